"""Detectors: torchvision's as they were published, our small ones, the background in one place, and their weights."""

import pytest
import torch
import torchvision
from engine_fixtures import mostly_slow
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn
from torchvision.models import detection
from torchvision.ops import FrozenBatchNorm2d

from distill_app.config.schema import ModelConf
from distill_app.config.tree import compose
from distill_app.errors import WeightsError
from distill_app.models import detector, pyramid_fasterrcnn, tiny_fasterrcnn, tiny_maskrcnn, tiny_retinanet
from distill_app.models.detectors import ARCHITECTURES, resized_side, resizing
from distill_app.networks.hooks import TappedModel
from distill_app.networks.weights import load_weights
from distill_app.tasks import Detection

SMALL = {"tiny_fasterrcnn": tiny_fasterrcnn, "tiny_maskrcnn": tiny_maskrcnn, "tiny_retinanet": tiny_retinanet}


def conf_of(name: str) -> ModelConf:
    cfg = compose([f"model@student={name}", "dataset=fashion_det"])
    OmegaConf.resolve(cfg)
    return OmegaConf.to_object(cfg.student)


def target(**more: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"boxes": torch.tensor([[8.0, 8.0, 40.0, 44.0]]), "labels": torch.tensor([3]), **more}


@pytest.mark.parametrize("name", mostly_slow(ARCHITECTURES, "fasterrcnn_mobilenet_v3_large_fpn"))
def test_every_detector_is_torchvisions_own_and_has_its_taps(name):
    conf = conf_of(name)
    with torch.device("meta"):
        net = instantiate(conf.net, _convert_="all")
        published = getattr(detection, name)(weights=None, weights_backbone=None, num_classes=11)
    shapes = [
        {key: value.shape for key, value in each.state_dict().items() if not key.endswith("num_batches_tracked")}
        for each in (net, published)
    ]
    assert shapes[0] == shapes[1], "10 classes and the background"
    frozen, eps = ARCHITECTURES[name]
    norms = [part for part in net.modules() if isinstance(part, FrozenBatchNorm2d)]
    assert bool(norms) == frozen and not (frozen and any(isinstance(p, nn.BatchNorm2d) for p in net.modules()))
    assert not frozen or {norm.eps for norm in norms} == {1e-5 if eps is None else eps}
    TappedModel(net, dict(conf.taps)).close()


PYRAMIDS = [name for name in (*ARCHITECTURES, "fasterrcnn_resnet18_fpn") if not name.startswith("ssd")]


@pytest.mark.slow
@pytest.mark.parametrize("name", PYRAMIDS)
def test_a_level_of_a_pyramid_is_called_after_its_stride(name):
    conf = conf_of(name)
    with torch.device("meta"):
        net = instantiate(conf.net, _convert_="all").eval()
    taps = {tap: path for tap, path in conf.taps.items() if tap[0] in "cp" and tap[1:].isdigit() and "rpn" not in path}
    with TappedModel(net, taps, runs=net.backbone) as tapped, torch.no_grad():
        maps = tapped(torch.zeros(1, 3, 512, 512, device="meta"))
    assert "p5" in maps
    assert {tap: tuple(each.shape[2:]) for tap, each in maps.items()} == {
        tap: (512 // 2 ** int(tap[1:]),) * 2 for tap in taps
    }


@pytest.mark.slow
def test_a_pyramid_on_another_resnet_is_torchvisions_but_for_its_widths():
    conf = conf_of("fasterrcnn_resnet18_fpn")
    with torch.device("meta"):
        net = instantiate(conf.net, _convert_="all")
        published = detector("fasterrcnn_resnet50_fpn", num_classes=10)
        plain = pyramid_fasterrcnn("resnet34", num_classes=10, frozen_norms=False, box_detections_per_img=7)
    heads = [
        {name: value.shape for name, value in each.state_dict().items() if "body" not in name and "inner" not in name}
        for each in (net, published)
    ]
    assert heads[0] == heads[1]
    assert any(isinstance(part, FrozenBatchNorm2d) for part in net.backbone.body.modules())
    assert not any(isinstance(part, FrozenBatchNorm2d) for part in plain.modules())
    assert all(parameter.requires_grad for parameter in net.parameters()) and plain.roi_heads.detections_per_img == 7
    TappedModel(net, dict(conf.taps)).close()
    with pytest.raises(ValueError, match="did you mean 'resnet18'"):
        pyramid_fasterrcnn("resnet19", num_classes=10)


@pytest.mark.slow
def test_weights_of_the_backbone_alone_are_a_second_source(monkeypatch):
    asked = []

    def given(self, *args, **options):
        asked.append(str(self))
        return torchvision.models.mobilenet_v3_large().state_dict()

    monkeypatch.setattr(torchvision.models.MobileNet_V3_Large_Weights, "get_state_dict", given)
    name = "fasterrcnn_mobilenet_v3_large_320_fpn"
    net = detector(name, num_classes=10, weights_backbone="IMAGENET1K_V1")
    assert asked == ["MobileNet_V3_Large_Weights.IMAGENET1K_V1"]
    assert any(isinstance(part, FrozenBatchNorm2d) for part in net.backbone.modules())
    own = detector(name, num_classes=10, weights_backbone="IMAGENET1K_V1", frozen_norms=False)
    assert not any(isinstance(part, FrozenBatchNorm2d) for part in own.modules())
    images = [torch.rand(3, 64, 80)]
    assert own.eval()(images)[0].keys() == {"boxes", "labels", "scores"}


def test_what_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="did you mean 'fasterrcnn_resnet50_fpn'"):
        detector("fasterrcnn_resnet50", num_classes=3)
    with pytest.raises(ValueError, match="trainable_backbone_layers: has no effect here"):
        detector("fasterrcnn_resnet50_fpn", num_classes=3, trainable_backbone_layers=2)
    with pytest.raises(ValueError, match="they are not frozen here"):
        detector("ssd300_vgg16", num_classes=3, eps=0.0)


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_small_detectors_train_and_every_tap_that_is_learnt_from_has_gradients(name):
    conf = conf_of(name)
    net = SMALL[name](num_classes=10, image_size=96).train()
    more = {"masks": torch.ones(1, 96, 96, dtype=torch.uint8)} if name == "tiny_maskrcnn" else {}
    tapped = TappedModel(net, dict(conf.taps))
    taps = tapped([torch.rand(3, 96, 96), torch.rand(3, 96, 96)], [target(**more), target(**more)])
    assert all(value.dim() == 0 for value in taps["losses"].values())
    sum(taps["losses"].values()).backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
    levels = [name for name in taps if name.startswith("p") and name[1:].isdigit()]
    sides = [96 // 2 ** int(level[1:]) for level in levels]
    assert [tuple(taps[level].shape[1:]) for level in levels] == [(64, side, side) for side in sides]


def test_the_small_detector_is_as_small_as_its_file_says():
    net = tiny_fasterrcnn(num_classes=10, image_size=96)
    assert sum(parameter.numel() for parameter in net.parameters()) == 581_558


@pytest.mark.parametrize("name", SMALL)
def test_weights_for_other_classes_load_without_all_heads_that_count_them(name, tmp_path):
    torch.manual_seed(0)
    file = tmp_path / "coco.pt"
    torch.save(SMALL[name](num_classes=90, image_size=96).state_dict(), file)
    net = SMALL[name](num_classes=10, image_size=96)
    conf = ModelConf(net={"_target_": f"distill_app.models.{name}"}, taps={}, checkpoint=str(file))
    with pytest.raises(WeightsError, match=r"the file has 91 classes, the network 11; student\.drop_head=true"):
        load_weights(net, conf, key="student")
    conf.drop_head = True
    origin = load_weights(net, conf, key="student")
    heads = {"tiny_fasterrcnn": {"cls_score", "bbox_pred"}, "tiny_retinanet": {"cls_logits"}}
    expected = heads.get(name, {"cls_score", "bbox_pred", "mask_fcn_logits"})
    assert {tensor.split(".")[-2] for tensor in origin.random} == expected
    assert "91 classes in the file, 11 here" in str(origin)


def test_a_network_that_sees_things_larger_in_training_than_in_an_evaluation_is_told_of():
    task = Detection(num_classes=3)
    photos, recipe = [(480, 640), (640, 480), (427, 640)], [(640, 853), (853, 640), (800, 1199)]
    small = tiny_fasterrcnn(num_classes=3, image_size=320)
    text = task.scales_apart(small, name="student", trained=recipe, judged=photos)
    assert text is not None and "student is trained on images whose shorter side is 640 px" in text
    assert "to 240 px itself" in text and "dataset.train_transform" in text and "dataset.image_size" in text
    assert task.scales_apart(small, name="student", trained=[(240, 320)] * 3, judged=photos) is None
    published = pyramid_fasterrcnn("resnet18", num_classes=3)
    assert resized_side(published, (480, 640)) == 800 and resized_side(published, (300, 1333)) == 300
    assert task.scales_apart(published, name="student", trained=recipe, judged=photos) is None
    one_size = detector("ssdlite320_mobilenet_v3_large", num_classes=3)
    assert resized_side(one_size, (480, 640)) is None is resized_side(torch.nn.ReLU(), (480, 640))
    assert task.scales_apart(one_size, name="student", trained=recipe, judged=photos) is None


def test_images_are_resized_as_published_or_as_they_are_and_the_network_is_given_back():
    net = tiny_fasterrcnn(num_classes=3, image_size=96).eval()
    images, seen = [torch.rand(3, 64, 50)], []
    handle = net.backbone.body.register_forward_hook(
        lambda module, args, output: seen.append(tuple(args[0].shape[-2:]))
    )
    net(images)
    with resizing(net, enabled=False):
        net(images)
    with resizing(net, enabled=False, pad_to=128):
        net(images)
    net(images)
    handle.remove()
    assert seen == [(96, 96), (64, 64), (128, 128), (96, 96)]
    assert net.transform.size_divisible == 32 and "resize" not in vars(net.transform)

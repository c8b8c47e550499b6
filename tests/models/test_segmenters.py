"""Segmenters: torchvision's and our own, where their taps lie, and weights for another number of classes."""

import pytest
import torch
from engine_fixtures import mostly_slow
from hydra.utils import instantiate
from omegaconf import OmegaConf
from pixel_fixtures import SEGMENTERS
from torch import nn
from torchvision.models import get_model_weights, segmentation

from distill_app.config.schema import ModelConf
from distill_app.config.tree import compose
from distill_app.errors import WeightsError
from distill_app.models import tiny_fpn_segmenter
from distill_app.networks.hooks import TappedModel
from distill_app.networks.weights import load_weights

TORCHVISION = sorted(name for name in SEGMENTERS if not name.startswith("tiny"))
# Sides of the maps of taps, of an image of 64 px.
RESNET = {"stage1": 16, "stage2": 8, "stage3": 8, "stage4": 8, "features": 8, "logits": 8}
MOBILE = {"stage1": 32, "stage2": 16, "stage3": 8, "stage4": 4}
SIDES = {
    **{name: RESNET for name in TORCHVISION if "resnet" in name},
    "deeplabv3_mobilenet_v3_large": {**MOBILE, "features": 4, "logits": 4},
    "lraspp_mobilenet_v3_large": {**MOBILE, "features": 4, "logits": 8},
}


def conf_of(name: str) -> ModelConf:
    cfg = compose([f"model@student={name}", "dataset=fashion_seg"])
    OmegaConf.resolve(cfg)
    return OmegaConf.to_object(cfg.student)


@pytest.mark.parametrize("name", mostly_slow(TORCHVISION, "lraspp_mobilenet_v3_large"))
def test_every_tap_of_torchvisions_segmenters_is_where_its_file_says(name):
    conf = conf_of(name)
    with torch.device("meta"):
        net = instantiate(conf.net, _convert_="all").eval()
        tapped = TappedModel(net, {**conf.taps, "output": ""})
        taps = tapped(torch.zeros(2, 3, 64, 64))
    assert {tap: taps[tap].shape[-1] for tap in SIDES[name]} == SIDES[name]
    auxiliary = name != "lraspp_mobilenet_v3_large"
    assert taps["output"].keys() == ({"out", "aux"} if auxiliary else {"out"})
    assert taps["logits"].shape[1] == taps["output"]["out"].shape[1] == 11
    assert taps["output"]["out"].shape[-2:] == (64, 64) and ("aux_logits" in taps) == auxiliary
    names = get_model_weights(getattr(segmentation, name)).__members__
    assert "COCO_WITH_VOC_LABELS_V1" in names


@pytest.mark.slow
def test_the_output_is_the_tap_of_logits_interpolated():
    torch.manual_seed(0)
    conf = conf_of("lraspp_mobilenet_v3_large")
    net = instantiate(conf.net, _convert_="all").eval()
    with torch.no_grad():
        taps = TappedModel(net, {"logits": conf.taps["logits"], "output": ""})(torch.rand(1, 3, 64, 64))
    whole = nn.functional.interpolate(taps["logits"], size=(64, 64), mode="bilinear", align_corners=False)
    assert torch.equal(taps["output"]["out"], whole)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "heads"),
    [
        ("fcn_resnet50", {"classifier.4", "aux_classifier.4"}),
        ("lraspp_mobilenet_v3_large", {"classifier.low_classifier", "classifier.high_classifier"}),
    ],
)
def test_weights_for_vocs_classes_load_and_for_others_without_the_heads_that_count_them(name, heads, monkeypatch):
    build = getattr(segmentation, name)
    options = {"aux_loss": True} if "fcn" in name else {}
    published = build(weights=None, weights_backbone=None, num_classes=21, **options).state_dict()
    monkeypatch.setattr("torchvision.models._api.WeightsEnum.get_state_dict", lambda self, **_: published)
    conf = conf_of(name)
    conf.weights = "COCO_WITH_VOC_LABELS_V1"
    same = instantiate({**conf.net, "num_classes": 21}, _convert_="all")
    assert load_weights(same, conf, key="student").random == ()
    assert all(torch.equal(value, published[key]) for key, value in same.state_dict().items())
    origin = load_weights(instantiate(conf.net, _convert_="all"), conf, key="student")
    assert {tensor.rpartition(".")[0] for tensor in origin.random} == heads
    assert "21 classes in the file, 11 here" in str(origin)


@pytest.mark.slow
def test_the_small_segmenters_are_as_small_as_their_files_say_and_learn_on_any_size():
    torch.manual_seed(0)
    for name, count in (("tiny_fpn_segmenter", 352_827), ("tiny_fpn_segmenter_8", 80_755)):
        conf = conf_of(name)
        net = instantiate(conf.net, _convert_="all")
        assert sum(parameter.numel() for parameter in net.parameters()) == count
        taps = TappedModel(net, {**conf.taps, "output": ""})(torch.rand(2, 3, 70, 52))
        assert taps["output"].shape == (2, 11, 70, 52) and taps["logits"].shape == (2, 11, 18, 13)
        assert [taps[f"p{level}"].shape[-2:] for level in (2, 3, 4, 5)] == [(18, 13), (9, 7), (5, 4), (3, 2)]
        taps["output"].sum().backward()
        assert all(parameter.grad is not None for parameter in net.parameters())


def test_a_checkpoint_of_other_classes_of_the_small_one_names_its_classifier(tmp_path):
    file = tmp_path / "other.pt"
    torch.save(tiny_fpn_segmenter(num_classes=21).state_dict(), file)
    conf = conf_of("tiny_fpn_segmenter")
    conf.checkpoint = str(file)
    net = tiny_fpn_segmenter(num_classes=11)
    with pytest.raises(WeightsError, match=r"the file has 21 classes, the network 11; student\.drop_head=true"):
        load_weights(net, conf, key="student")
    conf.drop_head = True
    assert load_weights(net, conf, key="student").random == ("classifier.weight", "classifier.bias")

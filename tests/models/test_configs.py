"""Every model config composes, builds for small images, and has taps of the canonical names and shapes."""

import functools
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from detection_fixtures import DETECTORS
from engine_fixtures import mostly_slow
from hydra import compose, initialize_config_dir
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pixel_fixtures import SEGMENTERS
from torch import nn

from distill_app.config.groups import conf_dir
from distill_app.config.schema import InputConf
from distill_app.networks.finding import find_taps
from distill_app.networks.hooks import TappedModel
from distill_app.networks.taps import Tap, resolve
from distill_app.networks.tracing import traced

OF_OTHERS = {*DETECTORS, *SEGMENTERS}  # test_detectors, test_segmenters
MODELS = sorted(path.stem for path in Path(conf_dir()).glob("model/*.yaml") if path.stem not in OF_OTHERS)
STAGES = [f"stage{i}" for i in range(1, 5)]
# What transformers have besides: all tokens, patches of single blocks, and the logits of single tokens.
BESIDES = {"tokens", "block1", "block2", "normed", "class_logits", "token_logits"}
CANONICAL = {"stem", *STAGES, *(f"{stage}_pre" for stage in STAGES), "pooled", "logits"}
# Their builders, or finding their taps, compute with the values of tensors, which the meta device does not have.
NEEDS_VALUES = {"regnet_y_400mf", "hub_local", "timm", "torchvision", "own"}
# One small network per family with activations, to run on real values.
REAL = [
    "resnet18",
    "resnet18_small",
    "resnet8",
    "resnet8x4",
    "wrn_16_2",
    "vgg8",
    "mobilenet_v1",
    "mobilenet_v2_half",
    "shufflenet_v1_small",
    "shufflenet_v2_small",
    "plain_8_16",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "efficientnet_b0",
    "mnasnet1_0",
    "shufflenet_v2_x1_0",
    "regnet_y_400mf",
    "densenet121",
    "densenet_bc_100_12",
    "timm",
]

HUBCONF = """
from torchvision.models import resnet18

def small(num_classes):
    return resnet18(num_classes=num_classes)
"""


@pytest.fixture(autouse=True)
def one_thread():
    """Small maps are faster on one thread than on several."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def composed(tmp_path_factory):
    """Composes two models at the keys teacher and student, for ten classes of 32 pixels."""
    folder = tmp_path_factory.mktemp("conf")
    defaults = ["_self_", {"model@teacher": "resnet18"}, {"model@student": "resnet8"}]
    unset = {"find_taps": None, "input": asdict(InputConf())}  # as the schema has it, which is not here
    primary = {
        "defaults": defaults,
        "hydra": {"searchpath": [f"file://{conf_dir()}"]},
        "dataset": {"num_classes": 10, "image_size": 32, "channels": 3},
        "teacher": unset,
        "student": unset,
    }
    OmegaConf.save(OmegaConf.create(primary), folder / "primary.yaml")

    @functools.cache
    def make(*overrides: str) -> DictConfig:
        with initialize_config_dir(str(folder), version_base="1.3"):
            cfg = compose("primary", overrides=list(overrides))
        OmegaConf.resolve(cfg)
        return cfg

    return make


def student_conf(composed, name: str, tmp_path: Path) -> DictConfig:
    more = []
    if name == "hub_local":
        (tmp_path / "hubconf.py").write_text(HUBCONF)
        more = [f"student.net.repo_or_dir={tmp_path}", "student.net.model=small"]
    if name == "own":
        more = ["student.net._target_=torchvision.models.resnet34"]
    conf = composed(f"model@student={name}", *more).student
    if conf.get("find_taps"):
        OmegaConf.set_struct(conf, False)  # without the schema
        net = build(conf)
        conf.taps = find_taps(net, traced(net, [(3, 224)]), num_classes=10).taps
    return conf


def build(conf: DictConfig, *, device: str = "cpu") -> nn.Module:
    with torch.device(device):
        return instantiate(conf.net, _convert_="all").eval()


@pytest.mark.slow
@pytest.mark.parametrize("name", mostly_slow(MODELS, *list(MODELS)[::4]))
def test_every_model_has_the_canonical_taps_in_aligned_shapes(name, composed, tmp_path):
    conf = student_conf(composed, name, tmp_path)
    device = "cpu" if name in NEEDS_VALUES else "meta"
    net = build(conf, device=device)
    taps = TappedModel(net, dict(conf.taps))(torch.zeros(2, 3, 32, 32, device=device))
    maps = [taps[stage] for stage in STAGES]
    sizes = [activation.shape[-1] for activation in maps]

    assert set(conf.taps) - BESIDES == CANONICAL
    assert all(activation.dim() == 4 and len(activation) == 2 for activation in [taps["stem"], *maps])
    assert sizes == sorted(sizes, reverse=True)
    assert taps["stem"].shape[-1] >= sizes[0]
    assert [taps[f"{stage}_pre"].shape for stage in STAGES] == [activation.shape for activation in maps]
    assert taps["logits"].shape == (2, 10)
    assert taps["pooled"].dim() == 2
    head = next(module for module in reversed(list(net.modules())) if isinstance(module, nn.Linear))
    assert taps["pooled"].shape == (2, head.in_features)


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_a_stage_is_the_activation_of_its_pre_activation(name, composed, tmp_path):
    conf = student_conf(composed, name, tmp_path)
    net = build(conf)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.bias)  # else a last norm of scale zero hides what was captured when
    pairs = [stage for stage in STAGES if conf.taps[stage] != conf.taps[f"{stage}_pre"]]
    with torch.no_grad():
        taps = TappedModel(net, dict(conf.taps))(torch.randn(2, 3, 32, 32))
        for stage in pairs:
            activation = resolve(net, Tap.parse(stage, conf.taps[f"{stage}_pre"]).path)
            before = taps[f"{stage}_pre"].clone()
            assert (before < 0).any(), f"{stage}_pre was captured after the activation"
            torch.testing.assert_close(activation(before), taps[stage], rtol=0, atol=0)
    assert pairs


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_every_tap_of_a_training_network_carries_gradients(name, composed, tmp_path):
    conf = student_conf(composed, name, tmp_path)
    net = build(conf).train()
    taps = TappedModel(net, dict(conf.taps))(torch.randn(2, 3, 32, 32))
    sum(activation.square().mean() for activation in taps.values()).backward()
    first = next(net.parameters())
    assert first.grad is not None
    assert first.grad.isfinite().all()
    assert first.grad.abs().sum() > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in REAL if not name.startswith("plain")])
def test_stage4_determines_the_pooled_features(name, composed, tmp_path):
    """What the last linear layer reads is computed from it by pooling alone, or the layers in between."""
    conf = student_conf(composed, name, tmp_path)
    net = build(conf)
    with torch.no_grad():
        taps = TappedModel(net, dict(conf.taps))(torch.randn(2, 3, 64, 64))
    if name.startswith("mobilenet_v3"):
        mean = net.classifier[:-1](taps["stage4"].mean((2, 3)))
    else:
        mean = (taps["stage4"].relu() if name.startswith("densenet") else taps["stage4"]).mean((2, 3))
    torch.testing.assert_close(mean, taps["pooled"])


def test_taps_land_at_the_key_the_model_is_mounted_at(composed):
    cfg = composed("model@teacher=resnet18", "model@student=mobilenet_v2")
    assert cfg.teacher.taps.stage1 == "layer1"
    assert cfg.student.taps.stage1 == "features.3"
    assert set(cfg) == {"dataset", "teacher", "student"}


def test_taps_of_another_family_can_be_chosen_on_the_command_line(composed):
    cfg = composed("model@student=torchvision", "student.net.name=resnet50", "model/taps@student.taps=resnet")
    taps = TappedModel(build(cfg.student, device="meta"), dict(cfg.student.taps))
    assert taps(torch.zeros(2, 3, 64, 64, device="meta"))["stage4_pre"].shape == (2, 2048, 2, 2)


@pytest.mark.slow
def test_at_224_pixels_the_stages_of_different_families_line_up(composed):
    for name in (
        "resnet50",
        "mobilenet_v1",
        "mobilenet_v2",
        "mobilenet_v3_large",
        "mnasnet1_0",
        "shufflenet_v2_x1_0",
        "swin_t",
    ):
        conf = composed(f"model@student={name}").student
        taps = TappedModel(build(conf, device="meta"), dict(conf.taps))(torch.zeros(1, 3, 224, 224, device="meta"))
        assert [taps[stage].shape[-1] for stage in STAGES] == [56, 28, 14, 7], name


def test_vit_gives_its_tokens_and_the_same_tokens_as_maps(composed):
    conf = composed("model@student=vit_b_16", "dataset.image_size=64").student
    taps = TappedModel(build(conf, device="meta"), dict(conf.taps))(torch.zeros(2, 3, 64, 64, device="meta"))
    assert taps["tokens"].shape == (2, 17, 768)
    assert taps["stage1"].shape == taps["stage4"].shape == (2, 768, 4, 4)


def test_a_hub_entry_point_gets_the_number_of_classes(composed, tmp_path):
    conf = student_conf(composed, "hub_local", tmp_path)
    assert build(conf).fc.out_features == 10


def test_an_impossible_network_is_refused_with_the_reason(composed):
    conf = composed("model@student=resnet20", "student.net.depth=21").student
    with pytest.raises(InstantiationException, match="got 21, a CIFAR ResNet has 6n \\+ 2 layers"):
        build(conf)

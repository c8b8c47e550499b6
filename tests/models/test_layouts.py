"""Networks of the CIFAR-100 benchmark have the parameters of RepDistiller's, and load its checkpoints."""

import argparse
import json
from pathlib import Path

import pytest
import torch
from engine_fixtures import mostly_slow
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor, nn

from distill_app.config.groups import conf_dir
from distill_app.config.schema import ModelConf
from distill_app.config.tree import compose
from distill_app.errors import WeightsError
from distill_app.networks.hooks import TappedModel
from distill_app.networks.origin import Origin
from distill_app.networks.weights import load_weights

# Of each architecture, at 100 classes: parameters, shapes of the features that methods read (of one image), and names
# and shapes in its checkpoints, without the counters of batches. From HobbitLong/RepDistiller at commit b84f547.
LAYOUTS = json.loads(Path(__file__).with_name("repdistiller_layouts.json").read_text())
OURS = {
    "MobileNetV2": "mobilenet_v2_half",
    "ShuffleV1": "shufflenet_v1_small",
    "ShuffleV2": "shufflenet_v2_small",
    "ResNet50": "resnet50_small",
}
ALL = mostly_slow(LAYOUTS, "resnet8", "wrn_16_1", "vgg8", "MobileNetV2", "ShuffleV1", "ShuffleV2", "ResNet50")
# Ours -> theirs, where a module has another name; of wide ResNets bn1 is also within blocks.
NAMES = {
    "resnet": [("shortcut.", "downsample.")],
    "wrn": [("layer", "block"), ("shortcut.", "convShortcut."), ("bn.", "bn1.")],
    "vgg": [("fc.", "classifier.")],
    "MobileNetV2": [("stem.", "conv1."), ("last.", "conv2."), ("fc.", "classifier.0.")],
    "ShuffleV1": [("fc.", "linear.")],
    "ShuffleV2": [("fc.", "linear.")],
    "ResNet50": [("downsample.", "shortcut."), ("fc.", "linear.")],
}


def conf_of(name: str):
    cfg = OmegaConf.load(Path(conf_dir(), "model", f"{OURS.get(name, name)}.yaml"))
    return OmegaConf.create({"dataset": {"num_classes": 100}, "net": cfg.net}).net


def build(name: str, *, seed: int = 0, device: str = "cpu") -> nn.Module:
    torch.manual_seed(seed)
    with torch.device(device):
        return instantiate(conf_of(name), _convert_="all").eval()


def tensors(net: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in net.state_dict().items() if not name.endswith("num_batches_tracked")}


def theirs(architecture: str, name: str) -> str:
    """A name of ours in their layout, by hand."""
    family = next(family for family in NAMES if architecture.startswith(family))
    for own, foreign in NAMES[family]:
        inner = "." if family == "wrn" and own == "bn." else ""
        if not inner or name.startswith(own):
            name = name.replace(own, foreign)
    if family == "wrn" and name.startswith("block"):
        block, rest = name.split(".", 1)
        name = f"{block}.layer.{rest}"
    return name


def load(net: nn.Module, path: Path, **more) -> Origin:
    return load_weights(net, ModelConf(net={"_target_": "x"}, checkpoint=str(path), **more), key="teacher")


def in_their_layout(architecture: str, net: nn.Module, *, prefix: str = "") -> dict[str, Tensor]:
    renamed = {theirs(architecture, name): value for name, value in tensors(net).items()}
    assert {name: list(value.shape) for name, value in renamed.items()} == LAYOUTS[architecture]["tensors"]
    return {prefix + name: value for name, value in renamed.items()}


def with_statistics(net: nn.Module) -> nn.Module:
    """Batch norms that do something, so that one in the wrong place is seen."""
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2.0)
            nn.init.uniform_(part.weight, 0.5, 1.5)
    return net


def test_there_are_twenty_two_architectures():
    assert len(LAYOUTS) == 22


@pytest.mark.parametrize("architecture", LAYOUTS)
def test_parameters_have_the_number_and_shapes_of_the_benchmark(architecture):
    net = build(architecture, device="meta")
    assert sum(parameter.numel() for parameter in net.parameters()) == LAYOUTS[architecture]["parameters"]
    shapes = sorted(list(value.shape) for value in tensors(net).values())
    assert shapes == sorted(LAYOUTS[architecture]["tensors"].values())


@pytest.mark.parametrize("architecture", ALL)
def test_a_checkpoint_in_the_layout_of_the_benchmark_loads(architecture, tmp_path):
    trained = with_statistics(build(architecture, seed=1))
    content = {
        "epoch": 240,
        "model": in_their_layout(architecture, trained),
        "accuracy": torch.tensor(75.61),
        "opt": argparse.Namespace(learning_rate=0.05, lr_decay_epochs=[150, 180, 210]),
        "optimizer": {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": [{"lr": 5e-5}]},
    }
    torch.save(content, tmp_path / "ckpt_epoch_240.pth")
    net = build(architecture)
    told = str(load(net, tmp_path / "ckpt_epoch_240.pth"))
    assert all(torch.equal(value, tensors(trained)[name]) for name, value in tensors(net).items())
    assert "the weights under 'model'" in told
    renamed = set(content["model"]) != set(tensors(trained))
    assert ("with another program's names of modules" in told) == renamed


@pytest.mark.parametrize("architecture", ["wrn_16_1", "vgg8", "resnet8"])
def test_names_of_the_benchmark_may_stand_behind_a_prefix(architecture, tmp_path):
    trained = with_statistics(build(architecture, seed=1))
    torch.save({"model": in_their_layout(architecture, trained, prefix="module.")}, tmp_path / "net.pth")
    net = build(architecture)
    assert "without the prefix 'module.'" in str(load(net, tmp_path / "net.pth"))
    assert all(torch.equal(value, tensors(trained)[name]) for name, value in tensors(net).items())


def test_a_file_of_a_wider_network_of_the_benchmark_is_refused(tmp_path):
    torch.save({"model": in_their_layout("wrn_16_2", build("wrn_16_2"))}, tmp_path / "net.pth")
    with pytest.raises(WeightsError, match="other shapes"):
        load(build("wrn_16_1"), tmp_path / "net.pth")


def test_another_programs_name_never_takes_the_place_of_an_own_one(tmp_path):
    state = {**build("resnet50_small", seed=1, device="meta").state_dict()}
    filled = {name: torch.zeros(value.shape, dtype=value.dtype) for name, value in state.items()}
    torch.save({**filled, "linear.weight": torch.ones(100, 2048)}, tmp_path / "net.pth")
    with pytest.raises(WeightsError, match=r"unexpected linear\.weight"):
        load(build("resnet50_small"), tmp_path / "net.pth")


@pytest.mark.parametrize("architecture", LAYOUTS)
def test_taps_have_the_sizes_of_the_features_of_the_benchmark(architecture):
    """Stem, stages and what is pooled; a stem stands in for the first of three stages."""
    taps = dict(compose([f"model@student={OURS.get(architecture, architecture)}", "dataset=cifar100"]).student.taps)
    images = torch.zeros(2, 3, 32, 32, device="meta")
    found = TappedModel(build(architecture, device="meta"), taps)(images)
    stem, *maps, pooled = LAYOUTS[architecture]["features"]
    stages = [list(found[f"stage{number}"].shape[1:]) for number in range(5 - len(maps), 5)]
    # The last map of these two is taken behind the last convolution, where the benchmark takes it before.
    last = {"MobileNetV2": [1280, 2, 2], "ShuffleV2": [1024, 4, 4]}.get(architecture, maps[-1])
    assert stages == [*maps[:-1], last]
    assert list(found["pooled"].shape[1:]) == pooled
    assert found["stem"].shape[1] == stem[0]
    if len(maps) == 3:
        assert found["stage1"].shape == found["stem"].shape

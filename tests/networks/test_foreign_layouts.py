"""Checkpoints in the layout of torchdistill load into the networks of this package, and compute the same."""

import argparse
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.densenet import _DenseBlock, _Transition
from torchvision.models.resnet import BasicBlock

from distill_app.config.schema import ModelConf
from distill_app.errors import WeightsError
from distill_app.models import CifarDenseNet, CifarResNet, WideResNet
from distill_app.networks.weights import load_weights


class ItsResNet(nn.Module):
    """The names and the function of its ResNet of CIFAR: torchvision's blocks, whose projection is a `downsample`."""

    def __init__(self, blocks: int):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*(BasicBlock(16, 16) for _ in range(blocks)))
        self.layer2, self.layer3 = self._stage(16, 32, blocks), self._stage(32, 64, blocks)
        self.fc = nn.Linear(64, 10)

    @staticmethod
    def _stage(before: int, width: int, blocks: int) -> nn.Sequential:
        project = nn.Sequential(nn.Conv2d(before, width, 1, stride=2, bias=False), nn.BatchNorm2d(width))
        rest = (BasicBlock(width, width) for _ in range(blocks - 1))
        return nn.Sequential(BasicBlock(before, width, stride=2, downsample=project), *rest)

    def forward(self, images: Tensor) -> Tensor:
        out = self.bn1(self.conv1(images)).relu()
        return self.fc(self.layer3(self.layer2(self.layer1(out))).mean((2, 3)))


class ItsWideBlock(nn.Module):
    """A block whose 1x1 shortcut takes the input as it is, before norm and activation."""

    def __init__(self, before: int, width: int, stride: int):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(before), nn.Conv2d(before, width, 3, stride, 1, bias=False)
        self.bn2, self.conv2 = nn.BatchNorm2d(width), nn.Conv2d(width, width, 3, 1, 1, bias=False)
        project = [nn.Conv2d(before, width, 1, stride, bias=False)] if stride != 1 or before != width else []
        self.shortcut = nn.Sequential(*project)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.bn2(self.conv1(self.bn1(x).relu())).relu()) + self.shortcut(x)


class ItsWideResNet(nn.Module):
    """Its wide ResNet, whose last norm is called as the blocks' first."""

    def __init__(self, blocks: int, widening: int):
        super().__init__()
        widths = [16, 16 * widening, 32 * widening, 64 * widening]
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        for number in (1, 2, 3):
            first = ItsWideBlock(widths[number - 1], widths[number], 1 if number == 1 else 2)
            rest = (ItsWideBlock(widths[number], widths[number], 1) for _ in range(blocks - 1))
            self.add_module(f"layer{number}", nn.Sequential(first, *rest))
        self.bn1, self.fc = nn.BatchNorm2d(widths[3]), nn.Linear(widths[3], 10)

    def forward(self, images: Tensor) -> Tensor:
        out = self.conv1(images)
        for number in (1, 2, 3):
            out = self.get_submodule(f"layer{number}")(out)
        return self.fc(self.bn1(out).relu().mean((2, 3)))


class ItsDenseNet(nn.Module):
    """Its DenseNet-BC of CIFAR, of torchvision's blocks."""

    def __init__(self, layers: int, growth: int):
        super().__init__()
        self.features, width = nn.Sequential(), 2 * growth
        self.features.add_module("conv0", nn.Conv2d(3, width, 3, padding=1, bias=False))
        for number in (1, 2, 3):
            block = _DenseBlock(layers, width, bn_size=4, growth_rate=growth, drop_rate=0.0)
            self.features.add_module(f"denseblock{number}", block)
            width += layers * growth
            if number < 3:
                self.features.add_module(f"transition{number}", _Transition(width, width // 2))
                width //= 2
        self.features.add_module("norm5", nn.BatchNorm2d(width))
        self.classifier = nn.Linear(width, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.features(images).relu().mean((2, 3)))


def written(net: nn.Module, file: Path) -> Path:
    """A checkpoint as its example for image classification writes it, after a few batches."""
    for _ in range(3):
        net(torch.randn(8, 3, 32, 32))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [1])
    arguments = argparse.Namespace(config="c.yaml", device="cuda", seed=None, test_only=False, world_size=1)
    states = {"optimizer": optimizer.state_dict(), "lr_scheduler": schedule.state_dict()}
    torch.save({"model": net.state_dict(), "best_value": 91.5, "args": arguments, **states}, file)
    return file


LAYOUTS = {
    "resnet": (lambda: ItsResNet(3), lambda: CifarResNet(20, num_classes=10)),
    "wide": (lambda: ItsWideResNet(1, 2), lambda: WideResNet(10, num_classes=10, widening=2, shortcut="input")),
    "dense": (lambda: ItsDenseNet(2, 4), lambda: CifarDenseNet(16, growth_rate=4, num_classes=10)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_checkpoint_of_torchdistill_loads_and_computes_the_same(tmp_path, layout):
    torch.manual_seed(0)
    its, ours = (make() for make in LAYOUTS[layout])
    origin = load_weights(ours, ModelConf(net={}, checkpoint=str(written(its, tmp_path / "its.pt"))), key="teacher")
    assert origin.loaded and any("'model'" in note for note in origin.notes)
    images = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(images), its.eval()(images), rtol=1e-5, atol=1e-5)


def test_a_wide_resnet_of_the_other_kind_of_shortcut_does_not_take_the_file(tmp_path):
    """The parameters are the same, so that it would compute something else and say nothing."""
    file = written(ItsWideResNet(1, 2), tmp_path / "its.pt")
    net = WideResNet(10, num_classes=10, widening=2)
    with pytest.raises(WeightsError, match=r"shortcut\.0\.weight"):
        load_weights(net, ModelConf(net={}, checkpoint=str(file)), key="teacher")


def test_own_names_are_left_alone(tmp_path):
    saved = CifarResNet(8, num_classes=10)
    torch.save(saved.state_dict(), tmp_path / "own.pt")
    net = CifarResNet(8, num_classes=10)
    origin = load_weights(net, ModelConf(net={}, checkpoint=str(tmp_path / "own.pt")), key="student")
    assert not any("another program" in note for note in origin.notes)
    assert all(torch.equal(value, saved.state_dict()[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize("options", [{"shortcut": "output"}, {"dropout": 1.0}])
def test_options_of_the_wide_resnet_are_checked(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        WideResNet(10, num_classes=10, widening=1, **options)


def test_dropout_of_the_wide_resnet_drops_in_training_only():
    torch.manual_seed(0)
    net, images = WideResNet(10, num_classes=10, widening=1, dropout=0.5), torch.randn(4, 3, 16, 16)
    assert not torch.equal(net.train()(images), net(images))
    assert torch.equal(net.eval()(images), net(images))

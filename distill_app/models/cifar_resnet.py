"""Residual networks for small images."""

from collections.abc import Sequence

from torch import Tensor, nn


class CifarResNet(nn.Module):
    """The ResNet of CIFAR: a 3x3 stem and three stages of n = (depth - 2) / 6 basic blocks each.

    He et al. 2016, section 4.2, https://arxiv.org/abs/1512.03385. Shortcuts that change shape are 1x1
    convolutions with batch norm, as in the distillation literature, where the paper pads with zeros: 2752
    parameters more at widths 16-32-64. Activations are out of place, so that every one of them can be tapped.

    Args:
        depth: 6n + 2.
        num_classes: Size of the output.
        widths: Channels of the three stages.
        stem_stride: 2 halves the resolution of every map: the cheap choice on a CPU.
        stem_width: Channels of the stem; that of the first stage unless given.
        in_channels: Of the images.

    Shapes: images (B, in_channels, H, W) to logits (B, num_classes); stages at H/s, H/2s, H/4s for a stem of stride s.

    Raises:
        ValueError: A depth other than 6n + 2, or not three widths.
    """

    # Names in files of RepDistiller and mdistiller, and of torchdistill, which builds it of torchvision's blocks.
    foreign_names = ((r"\bdownsample\.", "shortcut."),)

    def __init__(
        self,
        depth: int,
        *,
        num_classes: int,
        widths: Sequence[int] = (16, 32, 64),
        stem_stride: int = 1,
        stem_width: int | None = None,
        in_channels: int = 3,
    ):
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            raise ValueError(f"depth: got {depth}, a CIFAR ResNet has 6n + 2 layers: 8, 14, 20, 32, 44, 56, 110, ...")
        if len(widths) != 3:
            raise ValueError(f"widths: got {list(widths)}, a CIFAR ResNet has three stages: widths=[16,32,64]")
        blocks = (depth - 2) // 6
        stem = widths[0] if stem_width is None else stem_width
        self.conv1 = nn.Conv2d(in_channels, stem, 3, stride=stem_stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.relu = nn.ReLU()
        self.layer1 = _stage(stem, width=widths[0], blocks=blocks, stride=1)
        self.layer2 = _stage(widths[0], width=widths[1], blocks=blocks, stride=2)
        self.layer3 = _stage(widths[1], width=widths[2], blocks=blocks, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(widths[2], num_classes)
        init_convolutions(self)

    def forward(self, images: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(images)))
        out = self.layer3(self.layer2(self.layer1(out)))
        return self.fc(self.avgpool(out).flatten(1))


class BasicBlock(nn.Module):
    """relu(bn(conv(relu(bn(conv(x))))) + shortcut(x))."""

    def __init__(self, in_channels: int, *, width: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Sequential()
        if stride != 1 or in_channels != width:
            projection = nn.Conv2d(in_channels, width, 1, stride=stride, bias=False)
            self.shortcut.extend([projection, nn.BatchNorm2d(width)])
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu1(self.bn1(self.conv1(x)))
        return self.relu2(self.bn2(self.conv2(out)) + self.shortcut(x))


def _stage(in_channels: int, *, width: int, blocks: int, stride: int) -> nn.Sequential:
    first = BasicBlock(in_channels, width=width, stride=stride)
    return nn.Sequential(first, *(BasicBlock(width, width=width, stride=1) for _ in range(blocks - 1)))


def init_convolutions(net: nn.Module) -> None:
    """Kaiming initialisation of every convolution: variance 2 / (kernel area x output channels)."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

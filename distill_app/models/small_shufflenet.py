"""ShuffleNets for small images."""

import torch
from torch import Tensor, nn

# The output of every stage, and of the last convolution, by the factor on the channels: Table 5 of the paper.
V2_WIDTHS = {
    "0.5": (48, 96, 192, 1024),
    "1.0": (116, 232, 464, 1024),
    "1.5": (176, 352, 704, 1024),
    "2.0": (244, 488, 976, 2048),
}


class SmallShuffleNetV1(nn.Module):
    """ShuffleNet for images of 32 pixels: a 1x1 stem that keeps the resolution, three stages, no pooling before them.

    Zhang et al. 2018, https://arxiv.org/abs/1707.01083, as the benchmark of Tian et al. 2020,
    https://arxiv.org/abs/1910.10699, has it: with an activation behind the depthwise convolution, which the paper
    leaves out. Weights are initialised as PyTorch does it.

    Args:
        num_classes: Size of the output.
        widths: Channels of the three stages.
        groups: Of the 1x1 convolutions.
        in_channels: Of the images.

    Shapes: images (B, in_channels, H, W) to logits (B, num_classes); stages at H/2, H/4 and H/8.

    Raises:
        ValueError: Not three widths, or widths that groups do not divide.
    """

    # Names in files of RepDistiller and mdistiller.
    foreign_names = ((r"\blinear\.", "fc."),)

    def __init__(
        self, *, num_classes: int, widths: tuple[int, ...] = (240, 480, 960), groups: int = 3, in_channels: int = 3
    ):
        super().__init__()
        if len(widths) != 3 or any(width % (4 * groups) for width in widths) or 24 % groups:
            raise ValueError(
                f"widths: got {list(widths)} with {groups} groups; allowed: three multiples of {4 * groups}, "
                f"and groups that divide 24"
            )
        self.conv1 = nn.Conv2d(in_channels, 24, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(24)
        self.relu = nn.ReLU()
        # The 24 channels of the stem are too few for groups.
        self.layer1 = _v1_stage(24, width=widths[0], units=4, groups=groups, first=1)
        self.layer2 = _v1_stage(widths[0], width=widths[1], units=8, groups=groups, first=groups)
        self.layer3 = _v1_stage(widths[1], width=widths[2], units=4, groups=groups, first=groups)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(widths[2], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(images)))
        out = self.layer3(self.layer2(self.layer1(out)))
        return self.fc(self.avgpool(out).flatten(1))


class GroupedUnit(nn.Module):
    """Grouped 1x1, shuffle, 3x3 depthwise, grouped 1x1; added to the input, or beside its average at half the size."""

    def __init__(self, in_channels: int, *, width: int, halves: bool, groups: int, first: int):
        super().__init__()
        made = width - in_channels if halves else width
        inner = made // 4
        self.conv1 = nn.Conv2d(in_channels, inner, 1, groups=first, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.relu1 = nn.ReLU()
        self.shuffle = nn.ChannelShuffle(first)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride=2 if halves else 1, padding=1, groups=inner, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.relu2 = nn.ReLU()
        self.conv3 = nn.Conv2d(inner, made, 1, groups=groups, bias=False)
        self.bn3 = nn.BatchNorm2d(made)
        self.shortcut = nn.AvgPool2d(3, stride=2, padding=1) if halves else None
        self.relu3 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out = self.shuffle(self.relu1(self.bn1(self.conv1(x))))
        out = self.relu2(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return self.relu3(out + x if self.shortcut is None else torch.cat([out, self.shortcut(x)], dim=1))


def _v1_stage(in_channels: int, *, width: int, units: int, groups: int, first: int) -> nn.Sequential:
    halving = GroupedUnit(in_channels, width=width, halves=True, groups=groups, first=first)
    rest = [GroupedUnit(width, width=width, halves=False, groups=groups, first=groups) for _ in range(units - 1)]
    return nn.Sequential(halving, *rest)


class SmallShuffleNetV2(nn.Module):
    """ShuffleNetV2 for images of 32 pixels: a 1x1 stem that keeps the resolution, no pooling before the stages.

    Ma et al. 2018, https://arxiv.org/abs/1807.11164, as the benchmark of Tian et al. 2020,
    https://arxiv.org/abs/1910.10699, has it. Weights are initialised as PyTorch does it.

    Args:
        num_classes: Size of the output.
        width: Factor on the channels: 0.5, 1.0, 1.5 or 2.0.
        in_channels: Of the images.

    Shapes: images (B, in_channels, H, W) to logits (B, num_classes); stages at H/2, H/4 and H/8, the last map too.

    Raises:
        ValueError: Another width.
    """

    # Names in files of RepDistiller and mdistiller.
    foreign_names = ((r"\blinear\.", "fc."),)

    def __init__(self, *, num_classes: int, width: float = 1.0, in_channels: int = 3):
        super().__init__()
        if str(float(width)) not in V2_WIDTHS:
            raise ValueError(f"width: got {width}, there is a ShuffleNetV2 of width {', '.join(V2_WIDTHS)}")
        widths = V2_WIDTHS[str(float(width))]
        self.conv1 = nn.Conv2d(in_channels, 24, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(24)
        self.relu1 = nn.ReLU()
        self.layer1 = _v2_stage(24, width=widths[0], units=4)
        self.layer2 = _v2_stage(widths[0], width=widths[1], units=8)
        self.layer3 = _v2_stage(widths[1], width=widths[2], units=4)
        self.conv2 = nn.Conv2d(widths[2], widths[3], 1, bias=False)
        self.bn2 = nn.BatchNorm2d(widths[3])
        self.relu2 = nn.ReLU()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(widths[3], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        out = self.relu1(self.bn1(self.conv1(images)))
        out = self.layer3(self.layer2(self.layer1(out)))
        out = self.relu2(self.bn2(self.conv2(out)))
        return self.fc(self.avgpool(out).flatten(1))


class SplitUnit(nn.Module):
    """Half of the channels stays as it is, the other half passes 1x1, 3x3 depthwise, 1x1; then both are shuffled.

    The activation is taken of both halves, which changes nothing in the first: it is an activation already. So the
    whole map can be tapped before and behind it.
    """

    def __init__(self, width: int):
        super().__init__()
        half = width // 2
        self.conv1 = nn.Conv2d(half, half, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(half)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(half, half, 3, padding=1, groups=half, bias=False)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = nn.Conv2d(half, half, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(half)
        self.relu2 = nn.ReLU()
        self.shuffle = nn.ChannelShuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        kept, out = x.chunk(2, dim=1)
        out = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(out)))))
        return self.shuffle(self.relu2(torch.cat([kept, self.bn3(self.conv3(out))], dim=1)))


class HalvingUnit(nn.Module):
    """Two branches of all channels at half the size, 3x3 depthwise and 1x1, the second behind a 1x1; then shuffled."""

    def __init__(self, in_channels: int, *, width: int):
        super().__init__()
        half = width // 2
        self.conv1 = nn.Conv2d(in_channels, in_channels, 3, stride=2, padding=1, groups=in_channels, bias=False)
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv2 = nn.Conv2d(in_channels, half, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = nn.Conv2d(in_channels, half, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(half)
        self.relu1 = nn.ReLU()
        self.conv4 = nn.Conv2d(half, half, 3, stride=2, padding=1, groups=half, bias=False)
        self.bn4 = nn.BatchNorm2d(half)
        self.conv5 = nn.Conv2d(half, half, 1, bias=False)
        self.bn5 = nn.BatchNorm2d(half)
        self.relu2 = nn.ReLU()
        self.shuffle = nn.ChannelShuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        first = self.bn2(self.conv2(self.bn1(self.conv1(x))))
        second = self.bn4(self.conv4(self.relu1(self.bn3(self.conv3(x)))))
        second = self.bn5(self.conv5(second))
        return self.shuffle(self.relu2(torch.cat([first, second], dim=1)))


def _v2_stage(in_channels: int, *, width: int, units: int) -> nn.Sequential:
    return nn.Sequential(HalvingUnit(in_channels, width=width), *(SplitUnit(width) for _ in range(units - 1)))

"""Wide residual networks for small images."""

from torch import Tensor, nn

from distill_app.models.cifar_resnet import init_convolutions


class WideResNet(nn.Module):
    """WRN-depth-k: three stages of n = (depth - 4) / 6 pre-activation blocks, 16k, 32k and 64k channels wide.

    Zagoruyko and Komodakis 2016, https://arxiv.org/abs/1605.07146. A stage ends without an activation; its
    activated map is the first ReLU of the stage after it (`layer2.0.relu1` for `layer1`). Without the paper's
    dropout, which the distillation literature leaves out. Activations are out of place, so that every one of
    them can be tapped.

    Args:
        depth: 6n + 4.
        num_classes: Size of the output.
        widening: The factor k on the channels of the three stages.
        in_channels: Of the images.

    Shapes: images (B, in_channels, H, W) to logits (B, num_classes); stages at H, H/2 and H/4.

    Raises:
        ValueError: A depth other than 6n + 4.
    """

    # Names in files of RepDistiller and mdistiller; blocks have a bn1 of their own.
    foreign_names = (
        (r"\bblock(\d)\.layer\.", r"layer\1."),
        (r"\bconvShortcut\.", "shortcut."),
        (r"(?<!\d\.)\bbn1\.", "bn."),
    )

    def __init__(self, depth: int, *, num_classes: int, widening: int, in_channels: int = 3):
        super().__init__()
        if depth < 10 or (depth - 4) % 6:
            raise ValueError(f"depth: got {depth}, a wide ResNet has 6n + 4 layers: 10, 16, 22, 28, 40, ...")
        blocks = (depth - 4) // 6
        widths = [16 * widening, 32 * widening, 64 * widening]
        self.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.layer1 = _stage(16, width=widths[0], blocks=blocks, stride=1)
        self.layer2 = _stage(widths[0], width=widths[1], blocks=blocks, stride=2)
        self.layer3 = _stage(widths[1], width=widths[2], blocks=blocks, stride=2)
        self.bn = nn.BatchNorm2d(widths[2])
        self.relu = nn.ReLU()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(widths[2], num_classes)
        init_convolutions(self)

    def forward(self, images: Tensor) -> Tensor:
        out = self.layer3(self.layer2(self.layer1(self.conv1(images))))
        out = self.relu(self.bn(out))
        return self.fc(self.avgpool(out).flatten(1))


class PreActivationBlock(nn.Module):
    """conv(relu(bn(conv(a)))) + shortcut, a = relu(bn(x)); the shortcut is x, or a 1x1 convolution of a."""

    def __init__(self, in_channels: int, *, width: int, stride: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        changes_shape = stride != 1 or in_channels != width
        self.shortcut = nn.Conv2d(in_channels, width, 1, stride=stride, bias=False) if changes_shape else None

    def forward(self, x: Tensor) -> Tensor:
        activated = self.relu1(self.bn1(x))
        out = self.conv2(self.relu2(self.bn2(self.conv1(activated))))
        return out + (x if self.shortcut is None else self.shortcut(activated))


def _stage(in_channels: int, *, width: int, blocks: int, stride: int) -> nn.Sequential:
    first = PreActivationBlock(in_channels, width=width, stride=stride)
    return nn.Sequential(first, *(PreActivationBlock(width, width=width, stride=1) for _ in range(blocks - 1)))

"""Wide residual networks for small images."""

from typing import Any

from torch import Tensor, nn

from distill_app.models.cifar_resnet import init_convolutions

SHORTCUTS = ("activated", "input")
# Names of modules in its files; blocks have a bn1 of their own.
OF_TORCHDISTILL = ((r"\bshortcut\.0\.", "shortcut."), (r"(?<!\d\.)\bbn1\.", "bn."))


class WideResNet(nn.Module):
    """WRN-depth-k: three stages of n = (depth - 4) / 6 pre-activation blocks, 16k, 32k and 64k channels wide.

    Zagoruyko and Komodakis 2016, https://arxiv.org/abs/1605.07146. A stage ends without an activation; its
    activated map is the first ReLU of the stage after it (`layer2.0.relu1` for `layer1`). Activations are out of
    place, so that every one of them can be tapped.

    Args:
        depth: 6n + 4.
        num_classes: Size of the output.
        widening: The factor k on the channels of the three stages.
        in_channels: Of the images.
        dropout: The share of a block's inner activations that is dropped in training; 0.3 in the paper's second
            table, and 0 in the distillation literature.
        shortcut: What a 1x1 shortcut takes: `activated`, the block's activated input, as in the paper's code; or
            `input`, its input as it is, as in the networks and files of torchdistill. The parameters of both are the
            same, the functions are not.

    Shapes: images (B, in_channels, H, W) to logits (B, num_classes); stages at H, H/2 and H/4.

    Raises:
        ValueError: A depth other than 6n + 4, a share outside of [0, 1), or another shortcut.
    """

    # Names in files of RepDistiller and mdistiller; blocks have a bn1 of their own.
    foreign_names: tuple[tuple[str, str], ...] = (
        (r"\bblock(\d)\.layer\.", r"layer\1."),
        (r"\bconvShortcut\.", "shortcut."),
        (r"(?<!\d\.)\bbn1\.", "bn."),
    )

    def __init__(
        self,
        depth: int,
        *,
        num_classes: int,
        widening: int,
        in_channels: int = 3,
        dropout: float = 0.0,
        shortcut: str = "activated",
    ):
        super().__init__()
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout: got {dropout}, a share from 0 to below 1")
        if shortcut not in SHORTCUTS:
            raise ValueError(f"shortcut: got {shortcut!r}, allowed: {', '.join(SHORTCUTS)}")
        if shortcut == "input":  # a file of such a network would load into the other kind, and mean something else
            self.foreign_names = OF_TORCHDISTILL
        if depth < 10 or (depth - 4) % 6:
            raise ValueError(f"depth: got {depth}, a wide ResNet has 6n + 4 layers: 10, 16, 22, 28, 40, ...")
        blocks = (depth - 4) // 6
        widths = [16 * widening, 32 * widening, 64 * widening]
        block: dict[str, Any] = {"dropout": dropout, "activated": shortcut == "activated"}
        self.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.layer1 = _stage(16, width=widths[0], blocks=blocks, stride=1, **block)
        self.layer2 = _stage(widths[0], width=widths[1], blocks=blocks, stride=2, **block)
        self.layer3 = _stage(widths[1], width=widths[2], blocks=blocks, stride=2, **block)
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
    """conv(relu(bn(conv(a)))) + shortcut, a = relu(bn(x)); the shortcut is x, or a 1x1 convolution of a or of x."""

    def __init__(self, in_channels: int, *, width: int, stride: int, dropout: float, activated: bool):
        super().__init__()
        self.activated = activated
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride=stride, padding=1, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        changes_shape = stride != 1 or in_channels != width
        self.shortcut = nn.Conv2d(in_channels, width, 1, stride=stride, bias=False) if changes_shape else None

    def forward(self, x: Tensor) -> Tensor:
        activated = self.relu1(self.bn1(x))
        out = self.conv2(self.relu2(self.bn2(self.dropout(self.conv1(activated)))))
        return out + (x if self.shortcut is None else self.shortcut(activated if self.activated else x))


def _stage(in_channels: int, *, width: int, blocks: int, stride: int, **block: Any) -> nn.Sequential:
    first = PreActivationBlock(in_channels, width=width, stride=stride, **block)
    rest = (PreActivationBlock(width, width=width, stride=1, **block) for _ in range(blocks - 1))
    return nn.Sequential(first, *rest)

"""MobileNetV2 for small images."""

from torch import Tensor, nn

from distill_app.models.cifar_resnet import init_convolutions

# (expansion, channels at full width, blocks, stride of the first)
STAGES = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


class SmallMobileNetV2(nn.Module):
    """MobileNetV2 for images of 32 pixels, in the form of the CIFAR-100 benchmark of distillation.

    Sandler et al. 2018, https://arxiv.org/abs/1801.04381, as Tian et al. 2020, https://arxiv.org/abs/1910.10699, have
    it: the second stage keeps the resolution, the first one has its expansion of factor 1 as a convolution, activations
    are ReLU instead of ReLU6, widths are not rounded to multiples of 8, and there is no dropout. Activations are out of
    place, so that every one of them can be tapped.

    Args:
        num_classes: Size of the output.
        width: Factor on the channels; the last map has 1280 of them, or more where the factor is above 1.
        in_channels: Of the images.

    Shapes: images (B, in_channels, H, W) to logits (B, num_classes); maps at H/2, H/4, H/8 and H/16.

    Raises:
        ValueError: A width that leaves a stage without a channel.
    """

    # Names in files of RepDistiller and mdistiller.
    foreign_names = (
        (r"\bconv1\.(?=\d)", "stem."),
        (r"\bconv2\.(?=\d)", "last."),
        (r"\bclassifier\.0\.", "fc."),
    )

    def __init__(self, *, num_classes: int, width: float = 0.5, in_channels: int = 3):
        super().__init__()
        if int(16 * width) < 1:
            raise ValueError(f"width: got {width}, which leaves a stage of 16 channels without any; at least 0.0625")
        channels = int(32 * width)
        self.stem = _activated(nn.Conv2d(in_channels, channels, 3, stride=2, padding=1, bias=False))
        self.blocks = nn.Sequential()
        for expansion, full, count, stride in STAGES:
            out = int(full * width)
            blocks = [InvertedResidual(channels, width=out, expansion=expansion, stride=stride)]
            blocks += [InvertedResidual(out, width=out, expansion=expansion, stride=1) for _ in range(count - 1)]
            self.blocks.append(nn.Sequential(*blocks))
            channels = out
        last = int(1280 * max(width, 1.0))
        self.last = _activated(nn.Conv2d(channels, last, 1, bias=False))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(last, num_classes)
        init_convolutions(self)
        nn.init.normal_(self.fc.weight, std=0.01)
        nn.init.zeros_(self.fc.bias)

    def forward(self, images: Tensor) -> Tensor:
        out = self.last(self.blocks(self.stem(images)))
        return self.fc(self.avgpool(out).flatten(1))


class InvertedResidual(nn.Module):
    """1x1 convolution to `expansion` times the channels, 3x3 depthwise, 1x1 without activation; plus x if it fits."""

    def __init__(self, in_channels: int, *, width: int, expansion: int, stride: int):
        super().__init__()
        inner = in_channels * expansion
        depthwise = nn.Conv2d(inner, inner, 3, stride=stride, padding=1, groups=inner, bias=False)
        self.conv = nn.Sequential(
            *_activated(nn.Conv2d(in_channels, inner, 1, bias=False)),
            *_activated(depthwise),
            nn.Conv2d(inner, width, 1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.adds = stride == 1 and in_channels == width

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.adds else self.conv(x)


def _activated(convolution: nn.Conv2d) -> nn.Sequential:
    return nn.Sequential(convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU())

"""MobileNetV1, which torchvision lacks."""

from torch import Tensor, nn

from distill_app.models.cifar_resnet import init_convolutions

# Channels of the blocks of each stage; the first block of every stage but the first halves the resolution.
STAGES = ((64,), (128, 128), (256, 256), (512,) * 6, (1024, 1024))


class MobileNetV1(nn.Module):
    """Thirteen depthwise separable blocks behind a 3x3 convolution of stride 2; 4.2 million parameters at 1000 classes.

    Howard et al. 2017, https://arxiv.org/abs/1704.04861, Table 1. Its last block has a stride of 1, where the table
    says 2 and the sizes beside it 1. Without dropout, as the distillation literature trains it. Activations are out of
    place, so that every one of them can be tapped.

    Args:
        num_classes: Size of the output.
        width: Factor on all channels.
        in_channels: Of the images.

    Shapes: images (B, in_channels, H, W) to logits (B, num_classes); stages at H/2, H/4, H/8, H/16 and H/32.

    Raises:
        ValueError: A width that leaves the stem without a channel.
    """

    def __init__(self, *, num_classes: int, width: float = 1.0, in_channels: int = 3):
        super().__init__()
        if int(32 * width) < 1:
            raise ValueError(f"width: got {width}, which leaves the stem of 32 channels without any; at least 0.03125")
        channels = int(32 * width)
        self.stem = _activated(nn.Conv2d(in_channels, channels, 3, stride=2, padding=1, bias=False))
        stages = []
        for number, stage in enumerate(STAGES):
            blocks = nn.Sequential()
            for position, full in enumerate(stage):
                out = int(full * width)
                blocks.append(_separable(channels, width=out, stride=2 if number and not position else 1))
                channels = out
            stages.append(blocks)
        self.layer0, self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, num_classes)
        init_convolutions(self)

    def forward(self, images: Tensor) -> Tensor:
        out = self.layer0(self.stem(images))
        out = self.layer4(self.layer3(self.layer2(self.layer1(out))))
        return self.fc(self.avgpool(out).flatten(1))


def _separable(in_channels: int, *, width: int, stride: int) -> nn.Sequential:
    depthwise = nn.Conv2d(in_channels, in_channels, 3, stride=stride, padding=1, groups=in_channels, bias=False)
    return nn.Sequential(*_activated(depthwise), *_activated(nn.Conv2d(in_channels, width, 1, bias=False)))


def _activated(convolution: nn.Conv2d) -> nn.Sequential:
    return nn.Sequential(convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU())

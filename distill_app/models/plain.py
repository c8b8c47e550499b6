"""A tiny convolutional network: the student of the bundled data sets."""

from collections.abc import Sequence

from torch import Tensor, nn

from distill_app.models.cifar_resnet import init_convolutions


class PlainCNN(nn.Module):
    """One block per width (3x3 convolution of stride 2, batch norm, ReLU), average pooling, a linear layer.

    Args:
        widths: Channels of the blocks; each block halves the resolution.
        num_classes: Size of the output.
        in_channels: Of the images.

    Shapes: images (B, in_channels, H, W) to logits (B, num_classes); block i, counted from 0, at H / 2^(i + 1).

    Raises:
        ValueError: No widths.
    """

    def __init__(self, widths: Sequence[int], *, num_classes: int, in_channels: int = 3):
        super().__init__()
        if not widths:
            raise ValueError("widths: got none, a plain network needs at least one, e.g. widths=[16,32,64]")
        channels = [in_channels, *widths]
        self.features = nn.Sequential(*map(_block, channels, channels[1:]))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels[-1], num_classes)
        init_convolutions(self)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.avgpool(self.features(images)).flatten(1))


def _block(in_channels: int, width: int) -> nn.Sequential:
    # Out of place, so that the input of the activation can be tapped as well as its output.
    convolution = nn.Conv2d(in_channels, width, 3, stride=2, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU())

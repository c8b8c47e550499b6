"""VGG for small images."""

from torch import Tensor, nn

from distill_app.models.cifar_resnet import init_convolutions

# Convolutions of the five blocks, by the layers with weights that the network had with its three linear ones. VGG-8
# is the distillation literature's: one convolution a block.
BLOCKS = {8: (1, 1, 1, 1, 1), 11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
WIDTHS = (64, 128, 256, 512, 512)


class SmallVGG(nn.Module):
    """VGG with batch norm for images of 32 pixels: three poolings, and one linear layer in the place of three.

    Simonyan and Zisserman 2015, https://arxiv.org/abs/1409.1556, as the benchmark of Tian et al. 2020,
    https://arxiv.org/abs/1910.10699, has it: the last two blocks work at one resolution, and the last map is averaged.
    Activations are out of place, so that every one of them can be tapped.

    Args:
        depth: 8, 11, 13, 16 or 19.
        num_classes: Size of the output.
        in_channels: Of the images.

    Shapes: images (B, in_channels, H, W) to logits (B, num_classes); blocks at H, H/2, H/4, H/8 and H/8.

    Raises:
        ValueError: Another depth.
    """

    # Names in files of RepDistiller and mdistiller.
    foreign_names = ((r"\bclassifier\.(?=weight|bias)", "fc."),)

    def __init__(self, depth: int, *, num_classes: int, in_channels: int = 3):
        super().__init__()
        if depth not in BLOCKS:
            raise ValueError(f"depth: got {depth}, there is a VGG of depth {', '.join(map(str, BLOCKS))}")
        channels = (in_channels, *WIDTHS)
        blocks = [_block(channels[i], width=WIDTHS[i], layers=layers) for i, layers in enumerate(BLOCKS[depth])]
        self.block0, self.block1, self.block2, self.block3, self.block4 = blocks
        self.pool = nn.MaxPool2d(2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(WIDTHS[-1], num_classes)
        init_convolutions(self)
        nn.init.normal_(self.fc.weight, std=0.01)

    def forward(self, images: Tensor) -> Tensor:
        out = self.pool(self.block0(images))
        out = self.pool(self.block1(out))
        out = self.pool(self.block2(out))
        out = self.block4(self.block3(out))
        return self.fc(self.avgpool(out).flatten(1))


def _block(in_channels: int, *, width: int, layers: int) -> nn.Sequential:
    block = nn.Sequential()
    for layer in range(layers):
        convolution = nn.Conv2d(width if layer else in_channels, width, 3, padding=1)
        nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
        block.extend([convolution, nn.BatchNorm2d(width), nn.ReLU()])
    return block

"""A segmenter for small images that a CPU trains."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.functional import interpolate

from distill_app.models.cifar_resnet import init_convolutions
from distill_app.models.small_detectors import PyramidBackbone


class FpnSegmenter(nn.Module):
    """The levels of a feature pyramid, brought to H/4 and added up, a convolution, a classifier of every position.

    Kirillov, Girshick, He, Dollar 2019, https://arxiv.org/abs/1901.02446, with one convolution for all levels in the
    place of several for each.

    Args:
        num_classes: How many classes there are, the background among them.
        widths: Channels of the backbone's blocks.
        fpn: Channels of the pyramid and of the head.
    """

    def __init__(self, *, num_classes: int, widths: Sequence[int], fpn: int):
        super().__init__()
        self.backbone = PyramidBackbone(widths, channels=fpn)
        self.head = nn.Sequential(nn.Conv2d(fpn, fpn, 3, padding=1, bias=False), nn.BatchNorm2d(fpn), nn.ReLU())
        self.classifier = nn.Conv2d(fpn, num_classes, 1)
        init_convolutions(self.head)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> logits (B, classes, H, W)."""
        finest, *others = self.backbone(images).values()
        size = finest.shape[-2:]
        for level in others:
            finest = finest + interpolate(level, size=size, mode="bilinear", align_corners=False)
        logits = self.classifier(self.head(finest))
        return interpolate(logits, size=images.shape[-2:], mode="bilinear", align_corners=False)


def tiny_fpn_segmenter(*, num_classes: int, widths: Sequence[int] = (16, 32, 64, 64), fpn: int = 64) -> FpnSegmenter:
    """`FpnSegmenter` of maps at H/4, H/8, H/16 and H/32, of 0.35 M parameters.

    Args:
        num_classes: How many classes there are, the background among them.
        widths: Channels of the backbone's blocks.
        fpn: Channels of the pyramid and of the head.
    """
    return FpnSegmenter(num_classes=num_classes, widths=widths, fpn=fpn)

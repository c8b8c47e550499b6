"""Detectors for small images that a CPU trains: the heads of torchvision's on a narrow residual network."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN, MaskRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign

from distill_app.models.cifar_resnet import BasicBlock, init_convolutions
from distill_app.models.detectors import with_background

_RATIOS = (0.5, 1.0, 2.0)
# Few proposals and regions: in torchvision's numbers the heads would take ten times as long as the rest.
_FEW = {
    "rpn_pre_nms_top_n_train": 300,
    "rpn_post_nms_top_n_train": 100,
    "rpn_pre_nms_top_n_test": 200,
    "rpn_post_nms_top_n_test": 50,
    "rpn_batch_size_per_image": 64,
    "box_batch_size_per_image": 32,
    "box_detections_per_img": 20,
}


class Body(nn.Module):
    """A stem of stride 2 and a residual block of stride 2 for each width: maps at H/4, H/8, H/16, ...

    Args:
        widths: Channels of the stem and of the first block, and of the others.
    """

    def __init__(self, widths: Sequence[int]):
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths[0], 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU()
        channels = [widths[0], *widths]
        for number, width in enumerate(widths, start=1):
            self.add_module(f"layer{number}", BasicBlock(channels[number - 1], width=width, stride=2))
        self.levels = len(widths)
        init_convolutions(self)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> the map of every block."""
        out, maps = self.relu(self.bn1(self.conv1(images))), []
        for number in range(1, self.levels + 1):
            out = self.get_submodule(f"layer{number}")(out)
            maps.append(out)
        return maps


class PyramidBackbone(nn.Module):
    """The maps of a body from one block on, brought to one number of channels by a feature pyramid.

    Args:
        widths: Of the body.
        channels: Of the pyramid.
        first: The first block that it takes, counted from 0.
    """

    def __init__(self, widths: Sequence[int], *, channels: int, first: int = 0):
        super().__init__()
        self.body = Body(widths)
        self.fpn = FeaturePyramidNetwork(list(widths[first:]), channels)
        self.first, self.out_channels = first, channels

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) -> level -> (B, channels, h, w), the finest first."""
        maps = self.body(images)[self.first :]
        levels: dict[str, Tensor] = self.fpn(OrderedDict((str(level), each) for level, each in enumerate(maps)))
        return levels


def tiny_fasterrcnn(
    *, num_classes: int, image_size: int, widths: Sequence[int] = (16, 32, 64, 64), fpn: int = 64, **options: Any
) -> FasterRCNN:
    """Faster R-CNN on maps at H/4, H/8, H/16 and H/32, with one size of anchors on each, 12 px on the finest.

    Ren et al. 2015, https://arxiv.org/abs/1506.01497; Lin et al. 2017, https://arxiv.org/abs/1612.03144.

    Args:
        num_classes: Without the background.
        image_size: In pixels, of the longer side.
        widths: Channels of the backbone's blocks.
        fpn: Channels of the pyramid.
        options: Of torchvision's FasterRCNN, in the place of what is small here.
    """
    backbone = PyramidBackbone(widths, channels=fpn)
    return FasterRCNN(backbone, **{**_two_stages(backbone, num_classes=num_classes, image_size=image_size), **options})


def tiny_maskrcnn(
    *, num_classes: int, image_size: int, widths: Sequence[int] = (16, 32, 64, 64), fpn: int = 64, **options: Any
) -> MaskRCNN:
    """`tiny_fasterrcnn` with a head for masks of 28 x 28. He et al. 2017, https://arxiv.org/abs/1703.06870.

    Args:
        num_classes: Without the background.
        image_size: In pixels, of the longer side.
        widths: Channels of the backbone's blocks.
        fpn: Channels of the pyramid.
        options: Of torchvision's MaskRCNN, in the place of what is small here.
    """
    backbone = PyramidBackbone(widths, channels=fpn)
    masks = {
        "mask_roi_pool": MultiScaleRoIAlign(_levels(backbone), output_size=14, sampling_ratio=2),
        "mask_head": MaskRCNNHeads(fpn, (32, 32), 1),
        "mask_predictor": MaskRCNNPredictor(32, 32, with_background(num_classes)),
    }
    boxes = _two_stages(backbone, num_classes=num_classes, image_size=image_size)
    return MaskRCNN(backbone, **{**boxes, **masks, **options})


def tiny_retinanet(
    *, num_classes: int, image_size: int, widths: Sequence[int] = (16, 32, 64, 64), fpn: int = 64, **options: Any
) -> RetinaNet:
    """RetinaNet on maps at H/8, H/16 and H/32. Lin et al. 2017, https://arxiv.org/abs/1708.02002.

    Args:
        num_classes: Without the background.
        image_size: In pixels, of the longer side.
        widths: Channels of the backbone's blocks.
        fpn: Channels of the pyramid.
        options: Of torchvision's RetinaNet, in the place of what is small here.
    """
    backbone = PyramidBackbone(widths, channels=fpn, first=1)
    sizes = tuple((16 * 2**level, int(16 * 2 ** (level + 0.5))) for level in range(len(_levels(backbone))))
    given = {
        "min_size": image_size,
        "max_size": image_size,
        "anchor_generator": AnchorGenerator(sizes, (_RATIOS,) * len(sizes)),
        "detections_per_img": 20,
        "topk_candidates": 50,
    }
    return RetinaNet(backbone, with_background(num_classes), **{**given, **options})


def _two_stages(backbone: PyramidBackbone, *, num_classes: int, image_size: int) -> dict[str, Any]:
    levels, channels, width, side = _levels(backbone), backbone.out_channels, 128, 5
    sizes = tuple((12 * 2**level,) for level in range(len(levels)))
    return {
        "min_size": image_size,
        "max_size": image_size,
        "rpn_anchor_generator": AnchorGenerator(sizes, (_RATIOS,) * len(sizes)),
        "box_roi_pool": MultiScaleRoIAlign(levels, output_size=side, sampling_ratio=2),
        "box_head": TwoMLPHead(channels * side**2, width),
        "box_predictor": FastRCNNPredictor(width, with_background(num_classes)),
        **_FEW,
    }


def _levels(backbone: PyramidBackbone) -> list[str]:
    return [str(level) for level in range(backbone.body.levels - backbone.first)]

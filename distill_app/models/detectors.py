"""torchvision's detectors as they were published, for any number of classes; and what all of them do with images."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torchvision.models import detection
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import FrozenBatchNorm2d

from distill_app.networks.taps import resolve
from distill_app.words import unknown

# Architecture -> whether its batch norms are frozen, and the epsilon with which its weights for COCO were published
# (None: that of the norms as they are built).
ARCHITECTURES: dict[str, tuple[bool, float | None]] = {
    "fasterrcnn_resnet50_fpn": (True, 0.0),
    "fasterrcnn_resnet50_fpn_v2": (False, None),
    "fasterrcnn_mobilenet_v3_large_fpn": (True, None),
    "fasterrcnn_mobilenet_v3_large_320_fpn": (True, None),
    "maskrcnn_resnet50_fpn": (True, 0.0),
    "maskrcnn_resnet50_fpn_v2": (False, None),
    "keypointrcnn_resnet50_fpn": (True, 0.0),
    "retinanet_resnet50_fpn": (True, 0.0),
    "retinanet_resnet50_fpn_v2": (False, None),
    "fcos_resnet50_fpn": (True, None),
    "ssd300_vgg16": (False, None),
    "ssdlite320_mobilenet_v3_large": (False, None),
}


def with_background(num_classes: int) -> int:
    """How many classes a detector tells apart: label 0 is the background of all of them, and classes count from 1.

    torchvision's RetinaNet and FCOS have an output for it too, which no target names; so their weights for COCO fit.
    """
    return num_classes + 1


def detector(
    architecture: str,
    *,
    num_classes: int,
    weights_backbone: str | None = None,
    frozen_norms: bool | None = None,
    eps: float | None = None,
    **options: Any,
) -> nn.Module:
    """One of torchvision's detectors, without weights unless the backbone's are asked for.

    torchvision freezes batch norms and sets their epsilon only where it loads weights itself; here the network is the
    published one in any case, so that `weights` and `checkpoint` of its config fit. Without any weights frozen norms
    normalise nothing: train from scratch with `frozen_norms=false`.

    Args:
        architecture: The name of torchvision's builder.
        num_classes: Without the background.
        weights_backbone: The name of torchvision's weights of the backbone, such as IMAGENET1K_V1.
        frozen_norms: Whether batch norms of the backbone keep their statistics, scales and shifts for good; None: as
            published.
        eps: Of the frozen norms; None: as published with weights for COCO.
        options: For torchvision's builder, such as min_size, max_size or box_detections_per_img.

    Raises:
        ValueError: No such architecture, an epsilon for norms that are not frozen, or an option without an effect.
    """
    if architecture not in ARCHITECTURES:
        raise ValueError(f"architecture: {unknown('architecture', architecture, ARCHITECTURES)}")
    frozen, published = ARCHITECTURES[architecture]
    if frozen_norms is not None:
        published = published if frozen_norms == frozen else None
        frozen = frozen_norms
    if eps is not None and not frozen:
        raise ValueError("eps: is that of frozen norms, and they are not frozen here")
    if "trainable_backbone_layers" in options:  # torchvision heeds it only where it loads weights itself
        raise ValueError("trainable_backbone_layers: has no effect here; name what is frozen in a stage's freeze")
    build = getattr(detection, architecture)
    net = build(weights=None, weights_backbone=weights_backbone, num_classes=with_background(num_classes), **options)
    _set_norms(net.backbone, frozen=frozen, eps=published if eps is None else eps)
    return net


# ResNets of torchvision that a feature pyramid can stand on.
RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x4d", "resnext101_32x8d")


def pyramid_fasterrcnn(
    backbone: str,
    *,
    num_classes: int,
    weights_backbone: str | None = None,
    frozen_norms: bool = True,
    **options: Any,
) -> nn.Module:
    """Faster R-CNN as `fasterrcnn_resnet50_fpn` is, on the feature pyramid of another ResNet.

    Ren et al. 2015, https://arxiv.org/abs/1506.01497; Lin et al. 2017, https://arxiv.org/abs/1612.03144.

    Args:
        backbone: The name of torchvision's builder, such as resnet18.
        num_classes: Without the background.
        weights_backbone: The name of torchvision's weights of the backbone, such as IMAGENET1K_V1.
        frozen_norms: Whether batch norms of the backbone keep their statistics, scales and shifts for good; from
            scratch they would normalise nothing.
        options: Of torchvision's FasterRCNN, such as min_size, max_size or box_detections_per_img.

    Raises:
        ValueError: No such ResNet.
    """
    if backbone not in RESNETS:
        raise ValueError(f"backbone: {unknown('backbone', backbone, RESNETS)}")
    norm = FrozenBatchNorm2d if frozen_norms else nn.BatchNorm2d
    pyramid = resnet_fpn_backbone(backbone_name=backbone, weights=weights_backbone, norm_layer=norm, trainable_layers=5)
    return FasterRCNN(pyramid, with_background(num_classes), **options)


def _set_norms(module: nn.Module, *, frozen: bool, eps: float | None) -> None:
    """Batch norms as they shall be, with the numbers that they have."""
    wrong, make = (nn.BatchNorm2d, _frozen) if frozen else (FrozenBatchNorm2d, _trainable)
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, wrong):
                setattr(parent, name, make(child))
    for norm in module.modules() if eps is not None else ():
        if isinstance(norm, FrozenBatchNorm2d):
            norm.eps = eps


def _frozen(norm: Any) -> FrozenBatchNorm2d:
    made = FrozenBatchNorm2d(norm.num_features, eps=norm.eps)
    _copy_numbers(norm, made)
    return made


def _trainable(norm: Any) -> nn.BatchNorm2d:
    made = nn.BatchNorm2d(len(norm.weight), eps=norm.eps)
    _copy_numbers(norm, made)
    return made


@torch.no_grad()
def _copy_numbers(source: Any, target: Any) -> None:
    for name in ("weight", "bias", "running_mean", "running_var"):
        getattr(target, name).copy_(getattr(source, name))


def in_region_heads(network: nn.Module, path: str) -> bool:
    """Whether the module at a path belongs to what a detector of two stages does with each region."""
    steps = path.split(".")
    modules = (resolve(network, ".".join(steps[:count])) for count in range(1, len(steps) + 1))
    return any(isinstance(module, RoIHeads) for module in modules)


@contextmanager
def resizing(network: nn.Module, *, enabled: bool, pad_to: int | None = None) -> Iterator[None]:
    """Whether a detector in a network resizes images, for the time of the block, and to which size it pads them.

    One that takes a single size, such as SSD, goes on: it makes the same pixels each time.

    Args:
        network: A detector, or what holds one; others are left as they are.
        enabled: Whether images are resized.
        pad_to: The side of the padded images, not below any side of theirs; None: as the detector pads.
    """
    found = [part for part in network.modules() if isinstance(part, GeneralizedRCNNTransform)]
    changed: list[Callable[[], None]] = []
    try:
        for part in found:
            if part.fixed_size is not None:
                continue
            if not enabled:
                part.resize = _as_given
                changed.append(partial(delattr, part, "resize"))
            if pad_to is not None:
                changed.append(partial(setattr, part, "size_divisible", part.size_divisible))
                part.size_divisible = pad_to
        yield
    finally:
        for give_back in changed:
            give_back()


def _as_given(image: Any, target: Any = None) -> tuple[Any, Any]:
    return image, target


def resized_side(network: nn.Module, size: tuple[int, int]) -> float | None:
    """The shorter side in pixels that a detector gives an image in an evaluation.

    None: it leaves images as they are, or gives all of them one size, in training too.
    """
    for part in network.modules():
        if isinstance(part, GeneralizedRCNNTransform) and part.fixed_size is None:
            return float(min(part.min_size[-1], part.max_size * min(size) / max(size)))
    return None


def image_part(network: nn.Module, module: nn.Module) -> nn.Module:
    """What to run on one tensor of images (B, 3, H, W) for a module in a network to run.

    Of a detector its backbone, where the module lies in it: the rest looks at values, costs more than the backbone on
    weights that are random, and does not run without values (on the meta device). Of other networks the network.
    """
    backbone = getattr(network, "backbone", None)
    detects = isinstance(getattr(network, "transform", None), GeneralizedRCNNTransform)
    if detects and isinstance(backbone, nn.Module) and any(part is module for part in backbone.modules()):
        return backbone
    return network

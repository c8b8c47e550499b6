"""FGFI: maps agree near objects; and the boxes of a detection batch, as losses read them."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import box_iou

from distill_app.losses.numerics import as_target, full_precision, require_choice, require_same_shape

Target = Mapping[str, Any]
_AT_ONCE = 32  # boxes that are compared with all anchors; an image of 800 px has a quarter of a million of those


def boxes_in(target: Target) -> Tensor:
    """The boxes (N, 4) of an image's objects in its pixels: within the image, without crowds and empty ones."""
    height, width = target["size"]
    boxes = target["boxes"].clamp(min=0).minimum(target["boxes"].new_tensor([width, height, width, height]))
    kept = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
    if "iscrowd" in target:
        kept &= target["iscrowd"] == 0
    return boxes[kept]


def require_targets(targets: Sequence[Target], maps: Tensor, *, loss: str) -> None:
    """Refuses what are no targets with boxes, one for each map of a batch.

    Raises:
        ValueError: They are something else, or of another batch.
    """
    fits = isinstance(targets, list | tuple) and all(
        isinstance(each, Mapping) and "boxes" in each and "size" in each for each in targets
    )
    if not fits or len(targets) != len(maps):
        raise ValueError(f"{loss} needs the boxes of each image, a list of {len(maps)} targets: read batch.target")


class FineGrainedImitation(nn.Module):
    """FGFI: levels of a pyramid agree at the positions where anchors of the detector lie near an object.

    L = 1 / (2 N) * sum over levels, images, channels and positions of M (F_s - F_t)^2,  N = sum of M

    M is 1 where one of a position's anchors has an IoU with some box of more than `share` of the largest one that any
    anchor has with it.

    Wang, Yuan, Zhang, Feng 2019, https://arxiv.org/abs/1906.03609, who have one level: here an object is near to the
    anchors of its own size, on the one or two levels where these are (`maximum="pyramid"`), or marks positions of each
    level (`"level"`); public code has either. Deliberately different: a batch without any object gives 0, and NaN in
    the reference; IoUs are those of areas (`inclusive=True`: of pixels, corners included, as in the authors' code).
    The authors leave the term out for the first 400 steps: its weight may be a `losses.LinearWarmup`.

    `student` and `teacher` are lists of maps (B, C, H, W) of equal shapes, the student's behind adapters. `targets` are
    those of a detection batch, `anchors` a tensor (A, 4) for each image and `pyramid` the maps of all levels that they
    belong to, in order, both of the student. On several processes N is that of each.

    Args:
        share: Of the largest IoU; 0.5 in the paper.
        maximum: Over which anchors it is taken, those of the "pyramid" or of a "level".
        inclusive: Whether corners belong to boxes as pixels do.

    Raises:
        ValueError: A share outside of [0, 1), or another maximum.
    """

    def __init__(self, share: float = 0.5, *, maximum: str = "pyramid", inclusive: bool = False):
        super().__init__()
        require_choice(maximum, ("pyramid", "level"), argument="maximum")
        if not 0 <= share < 1:
            raise ValueError(f"share={share} must lie between 0 and 1, as a share of the largest IoU")
        self.share, self.maximum, self.inclusive = share, maximum, inclusive

    def forward(
        self,
        student: Sequence[Tensor],
        teacher: Sequence[Tensor],
        targets: Sequence[Target],
        anchors: Sequence[Tensor],
        pyramid: Mapping[str, Tensor] | Sequence[Tensor],
    ) -> Tensor:
        """The loss, a scalar.

        Raises:
            ValueError: Maps that differ in shape or are no level of the pyramid, or anchors that are not as many at
                each position.
        """
        if len(student) != len(teacher) or not student:
            raise ValueError(
                f"FineGrainedImitation needs as many levels of both networks, got {len(student)} and {len(teacher)}"
            )
        levels = list(pyramid.values() if isinstance(pyramid, Mapping) else pyramid)
        require_targets(targets, student[0], loss="FineGrainedImitation")
        masks = self.masks(targets, anchors, [(level.shape[2], level.shape[3]) for level in levels])
        total = full_precision(student[0]).new_zeros(())
        count = torch.zeros((), dtype=torch.int64, device=total.device)
        for ours, theirs in zip(student, teacher, strict=True):
            require_same_shape(ours, theirs, loss="FineGrainedImitation")
            mask = _of_size(masks, ours)
            total = total + ((full_precision(ours) - as_target(theirs)).square() * mask).sum()
            count = count + mask.sum()
        return total / (2 * count.clamp(min=1))

    @torch.no_grad()
    def masks(
        self, targets: Sequence[Target], anchors: Sequence[Tensor], sizes: Sequence[tuple[int, int]]
    ) -> list[Tensor]:
        """M of each level, bool (B, 1, H, W).

        Args:
            targets: Of each image.
            anchors: (A, 4) of each image: level by level, row by row, and at each position one after the other.
            sizes: Height and width of each level.

        Raises:
            ValueError: The anchors are not as many at each position.
        """
        positions = sum(height * width for height, width in sizes)
        each, rest = divmod(len(anchors[0]), positions)
        if rest or not each:
            raise ValueError(
                f"{len(anchors[0])} anchors on {positions} positions: FineGrainedImitation needs as many at each, as "
                f"those of Faster R-CNN and RetinaNet are"
            )
        counts = [height * width * each for height, width in sizes]
        near = [self._near(around, boxes_in(target), counts) for around, target in zip(anchors, targets, strict=True)]
        shaped = zip(sizes, zip(*near, strict=True), strict=True)
        return [torch.stack(marks).view(len(marks), 1, *size, each).any(dim=4) for size, marks in shaped]

    def _near(self, anchors: Tensor, boxes: Tensor, counts: Sequence[int]) -> tuple[Tensor, ...]:
        """Which anchors of an image are near to an object, bool (A,), level by level."""
        if not len(boxes):
            return anchors.new_zeros(len(anchors), dtype=torch.bool).split(list(counts))
        more = anchors.new_tensor([0, 0, 1, 1] if self.inclusive else [0, 0, 0, 0])
        near = anchors.new_zeros(len(anchors), dtype=torch.bool)
        for some in boxes.to(anchors.dtype).split(_AT_ONCE):
            overlaps = box_iou(anchors + more, some + more)
            best = overlaps.amax(dim=0)
            levels = overlaps.split(list(counts))
            near |= torch.cat(
                [
                    (level > self.share * (level.amax(dim=0) if self.maximum == "level" else best)).any(dim=1)
                    for level in levels
                ]
            )
        return near.split(list(counts))


def _of_size(masks: Sequence[Tensor], level: Tensor) -> Tensor:
    for mask in masks:
        if mask.shape[2:] == level.shape[2:]:
            return mask
    sizes = ", ".join(f"{mask.shape[2]} x {mask.shape[3]}" for mask in masks)
    raise ValueError(
        f"FineGrainedImitation: a map of {level.shape[2]} x {level.shape[3]} is no level of the student's pyramid, "
        f"whose sizes are {sizes}"
    )

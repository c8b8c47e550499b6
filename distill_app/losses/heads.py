"""Losses over the heads of one-stage detectors: what the student's features say in the teacher's head (CrossKD)."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import generalized_box_iou_loss

from distill_app.losses.numerics import as_target, full_precision

_CLAMP = math.log(1000 / 16)  # of log widths and heights in units of the anchor's, in both directions
BETWEEN = -2  # of an anchor that is matched neither with an object nor with the background


def per_anchor(levels: Sequence[Tensor], count: int) -> Tensor:
    """Maps of a head as rows of anchors: levels of (B, A K, H, W) -> (B, count, K), in the order of the anchors.

    Raises:
        ValueError: The positions of all levels have no whole number of anchors.
    """
    places = sum(level.shape[-2] * level.shape[-1] for level in levels)
    anchors = count // max(places, 1)
    if not anchors or count != anchors * places or any(level.shape[1] % anchors for level in levels):
        shapes = ", ".join(str(tuple(level.shape)) for level in levels)
        raise ValueError(f"maps {shapes} are not those of {count} anchors")
    rows = [level.permute(0, 2, 3, 1).reshape(len(level), -1, level.shape[1] // anchors) for level in levels]
    return torch.cat(rows, dim=1)


def imitated_classes(student: Tensor, teacher: Tensor, *, beta: float) -> Tensor:
    """The quality focal loss of every row, (..., K) -> (...): |sigma(s) - sigma(t)|^beta BCE(s, sigma(t)), summed."""
    wanted = teacher.sigmoid()
    off = (student.sigmoid() - wanted).abs()
    return (off.pow(beta) * F.binary_cross_entropy_with_logits(student, wanted, reduction="none")).sum(dim=-1)


def decoded(deltas: Tensor, anchors: Tensor) -> Tensor:
    """Boxes x1, y1, x2, y2 of a head's offsets: (..., 4), (..., 4) -> (..., 4)."""
    size = anchors[..., 2:] - anchors[..., :2]
    centre = anchors[..., :2] + size / 2 + deltas[..., :2] * size
    half = size * deltas[..., 2:].clamp(-_CLAMP, _CLAMP).exp() / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def objects_in(matches: Tensor) -> Tensor:
    """Of matches (B, N), how many anchors have an object, at least one for each image."""
    return (matches >= 0).sum(dim=1).clamp(min=1).sum()


class CrossHeadClasses(nn.Module):
    """CrossKD's classes: what the teacher's head says of the student's features, compared with what it says of its own.

    L = 1 / N * sum_anchors sum_classes |sigma(r) - sigma(t)|^beta BCE(r, sigma(t)),  N = sum_images max(1, positives)

    without anchors that the detector's own losses leave out. The weight carries a gradient, too.

    Wang, Chen, Zheng, Li, Cheng, Hou 2024, https://arxiv.org/abs/2306.11369, in the form for RetinaNet. The authors'
    code adds 1.2e-7 to N.

    Logits are a list over levels of maps (B, A classes, H, W), matches (B, N) as `distill_app.adapters.AnchorMatches`
    gives them, level after level, position after position.

    Args:
        beta: Exponent of the weight; 1 in the paper.
    """

    def __init__(self, beta: float = 1.0):
        super().__init__()
        if beta < 0:
            raise ValueError(f"beta={beta} must be 0 or more")
        self.beta = beta

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor], matches: Tensor) -> Tensor:
        """The loss, a scalar.

        Raises:
            ValueError: The maps differ in shape, or are not those of these anchors.
        """
        ours, theirs = _rows(student, teacher, matches, loss="CrossHeadClasses")
        rows = imitated_classes(ours, theirs, beta=self.beta)
        return (rows * (matches != BETWEEN)).sum() / objects_in(matches)


class CrossHeadBoxes(nn.Module):
    """CrossKD's boxes: those that the teacher's head makes of the student's features overlap those of its own.

    L = 1 / N * sum_anchors max_c sigma(t) (1 - GIoU(box(r), box(t))),  N = sum_images max(1, positives)

    without anchors that the detector's own losses leave out; t are the teacher's logits of classes.

    Wang, Chen, Zheng, Li, Cheng, Hou 2024, https://arxiv.org/abs/2306.11369, in the form for RetinaNet. The authors'
    code adds 1.2e-7 to N. Widths and heights go up to 62.5 times the anchor's and down to a 62.5th, as in that code;
    torchvision's decoding has the first bound only.

    Offsets are a list over levels of maps (B, 4 A, H, W), logits one of (B, A classes, H, W), anchors (N, 4) of each
    image in pixels, and matches (B, N) as `distill_app.adapters.AnchorMatches` gives them.
    """

    def forward(
        self,
        student: Sequence[Tensor],
        teacher: Sequence[Tensor],
        logits: Sequence[Tensor],
        anchors: Sequence[Tensor],
        matches: Tensor,
    ) -> Tensor:
        """The loss, a scalar.

        Raises:
            ValueError: The maps differ in shape, or are not those of these anchors.
        """
        ours, theirs = _rows(student, teacher, matches, loss="CrossHeadBoxes")
        if ours.shape[2] != 4:
            raise ValueError(f"CrossHeadBoxes needs 4 offsets for each anchor, got {ours.shape[2]}")
        sure = per_anchor([as_target(level) for level in logits], matches.shape[1]).sigmoid().amax(dim=2)
        places = torch.stack([each.to(ours.dtype) for each in anchors])
        # Boxes have an area by the bounds of the decoding, so that no epsilon is needed.
        rows = generalized_box_iou_loss(decoded(ours, places), decoded(theirs, places), reduction="none", eps=0.0)
        return (rows * sure * (matches != BETWEEN)).sum() / objects_in(matches)


def _rows(student: Sequence[Tensor], teacher: Sequence[Tensor], matches: Tensor, *, loss: str) -> tuple[Tensor, Tensor]:
    """Both sides as rows of anchors, (B, N, K)."""
    shapes = [[tuple(level.shape) for level in side] for side in (student, teacher)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"{loss} needs maps of one shape on every level, got student {shapes[0]}, teacher {shapes[1]}")
    ours = per_anchor([full_precision(level) for level in student], matches.shape[1])
    return ours, per_anchor([as_target(level) for level in teacher], matches.shape[1])

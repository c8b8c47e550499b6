"""Adapters that know what a detector's own losses compare its regions and anchors with."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import box_iou


class RegionLabels(nn.Module):
    """The class of every region that an R-CNN samples in training, 0 for the background, as its own losses have it.

    Args:
        borrowed: The network's RoI heads, which match boxes with targets. They stay the network's own.

    Raises:
        ValueError: It matches nothing.
    """

    def __init__(self, *, borrowed: nn.Module):
        super().__init__()
        self._borrowed = [_matching(borrowed, "assign_targets_to_proposals", adapter=self, of="student.roi_heads")]

    @torch.no_grad()
    def forward(self, source: Sequence[Any]) -> Tensor:
        """[boxes (n, 4) of each image, targets of each image as the network transforms them] -> int64 (sum of n,).

        The order is that of the logits: student.roi_pool.1 and student.transformed.1.

        Raises:
            ValueError: There are no targets for the boxes.
        """
        boxes, targets = source
        truth = _boxes_of(targets, adapter=self, read="student.roi_pool.1")
        labels = [target["labels"] for target in targets]
        truth = [each.to(boxes[0].dtype) for each in truth]
        _, classes = self._borrowed[0].assign_targets_to_proposals(boxes, truth, labels)
        return torch.cat(classes)


class AnchorMatches(nn.Module):
    """The object that every anchor of RetinaNet is matched with, as in its own losses.

    Args:
        borrowed: The network, which says how well a box has to fit. It stays what it is.

    Raises:
        ValueError: It matches nothing.
    """

    def __init__(self, *, borrowed: nn.Module):
        super().__init__()
        self._borrowed = [_matching(borrowed, "proposal_matcher", adapter=self, of="student.output")]

    @torch.no_grad()
    def forward(self, source: Sequence[Any]) -> Tensor:
        """[anchors (N, 4) of each image, targets of each image as the network transforms them] -> int64 (B, N).

        The number of the object in its image, -1 for the background, -2 for anchors between the two, which its losses
        leave out.

        Raises:
            ValueError: There are no targets for the anchors.
        """
        anchors, targets = source
        truth = _boxes_of(targets, adapter=self, read="student.anchors")
        matcher = self._borrowed[0].proposal_matcher
        matches = [
            matcher(box_iou(boxes.to(own.dtype), own)) if len(boxes) else boxes.new_full((len(own),), -1).long()
            for boxes, own in zip(truth, anchors, strict=True)
        ]
        return torch.stack(matches)


def _matching(borrowed: Any, method: str, *, adapter: nn.Module, of: str) -> Any:
    if not callable(getattr(borrowed, method, None)):
        raise ValueError(f"{type(adapter).__name__} needs what has a {method}, such as borrows: {of}; got {borrowed}")
    return borrowed


def _boxes_of(targets: Any, *, adapter: nn.Module, read: str) -> list[Tensor]:
    if not isinstance(targets, Sequence) or not all(isinstance(each, Mapping) for each in targets):
        name = type(adapter).__name__
        raise ValueError(f"{name} reads the targets of a detector in training: source: [{read}, student.transformed.1]")
    return [target["boxes"] for target in targets]

"""Targets that a detector makes for another one."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn


class PseudoBoxes(nn.Module):
    """The targets of a detection batch, those of unlabelled images made of what a frozen detector finds there.

    What is found with at least `score` stands as an object, with its box, its class and, where targets have masks, its
    mask. Images with a target keep theirs. With `fills: target` the networks that a stage trains get these.

    Sohn, Zhang, Li, Zhang, Lee, Pfister 2020, https://arxiv.org/abs/2005.04757. Deliberately different: what is found
    is found in the augmented image that the student sees, and not once in the plain one.

    `source` is a mapping of `targets`, those of the batch, and `found`, what the detector gave for the same images.

    Args:
        num_classes: Without the background.
        score: From which on something found is an object; 0.9 in the paper.
        everywhere: Whether images that have a target get a new one too.

    Raises:
        ValueError: A score outside of [0, 1].
    """

    def __init__(self, *, num_classes: int, score: float = 0.9, everywhere: bool = False):
        super().__init__()
        if not 0 <= score <= 1:
            raise ValueError(f"score={score} must lie between 0 and 1")
        self.num_classes, self.score, self.everywhere = num_classes, score, everywhere

    @torch.no_grad()
    def forward(self, source: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Targets and detections of B images -> targets of B images.

        Raises:
            ValueError: No detections of these images, of other classes, or targets for which none can be made.
        """
        targets, found = source["targets"], source["found"]
        if not _are_detections(found, len(targets)):
            raise ValueError(
                f"PseudoBoxes needs what a detector finds, boxes, labels and scores of each of {len(targets)} images, "
                f"got {_named(found)}: read teacher.output of a detector that the stage does not train"
            )
        return [
            self._made(target, each) if self.everywhere or target.get("unlabelled") else dict(target)
            for target, each in zip(targets, found, strict=True)
        ]

    def _made(self, target: Mapping[str, Any], found: Mapping[str, Tensor]) -> dict[str, Any]:
        highest = int(found["labels"].max()) if len(found["labels"]) else 0
        if highest > self.num_classes:
            raise ValueError(
                f"PseudoBoxes: a detector of a class {highest} cannot teach one of {self.num_classes} classes"
            )
        boxes = found["boxes"]
        kept = (found["scores"] >= self.score) & (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
        boxes = boxes[kept].to(target["boxes"].dtype)
        sides = boxes[:, 2:] - boxes[:, :2]
        made = {
            **target,
            "boxes": boxes,
            "labels": found["labels"][kept],
            "area": sides.prod(dim=1).to(target["area"].dtype),
            "iscrowd": torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device),
        }
        if "masks" in target:
            if "masks" not in found:
                raise ValueError("PseudoBoxes: targets have masks, and the detector finds none; set dataset.task.kinds")
            made["masks"] = (found["masks"][kept, 0] > 0.5).to(target["masks"].dtype)
        if "keypoints" in target:
            raise ValueError("PseudoBoxes: no keypoints are made of detections; set dataset.task.kinds=[bbox]")
        return made


def _are_detections(found: Any, count: int) -> bool:
    needed = ("boxes", "labels", "scores")
    listed = isinstance(found, Sequence) and len(found) == count
    return listed and all(isinstance(each, Mapping) and all(key in each for key in needed) for each in found)


def _named(found: Any) -> str:
    if isinstance(found, Mapping):
        return f"a mapping of {', '.join(map(str, found)) or 'nothing'}"
    if isinstance(found, Tensor):
        return f"a tensor {tuple(found.shape)}"
    return f"{len(found)} values" if isinstance(found, Sequence) else f"a {type(found).__name__}"

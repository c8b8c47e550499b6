"""Mirroring images of which some parts have a left and a right one."""

from collections.abc import Sequence
from typing import Any

import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

# Of COCO's 17 keypoints of a person: eyes, ears, shoulders, elbows, wrists, hips, knees, ankles.
PERSON = ((1, 2), (3, 4), (5, 6), (7, 8), (9, 10), (11, 12), (13, 14), (15, 16))


class KeypointFlip:
    """Mirrors image and target with a probability of one half; what was the left hand is the right one then.

    In a config: `{_target_: distill_app.data.KeypointFlip}` in the place of RandomHorizontalFlip, which leaves the
    order of keypoints as it is.

    Args:
        p: The probability.
        pairs: Numbers of keypoints that change places; None: those of a person in COCO.
    """

    def __init__(self, p: float = 0.5, *, pairs: Sequence[Sequence[int]] | None = None):
        if not 0 <= p <= 1:
            raise ValueError(f"p: a probability is needed, not {p}")
        self.p, self.pairs = p, PERSON if pairs is None else tuple((int(a), int(b)) for a, b in pairs)

    def __call__(self, image: Any, target: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Image and target, both mirrored or both as they were."""
        if float(torch.rand(())) >= self.p:
            return image, target
        image, target = v2.RandomHorizontalFlip(p=1.0)(image, target)
        points = target["keypoints"]
        order = list(range(points.shape[1]))
        for left, right in self.pairs:
            if max(left, right) >= len(order):
                raise ValueError(f"pairs: there is no keypoint {max(left, right)} among {len(order)}")
            order[left], order[right] = right, left
        swapped = tv_tensors.wrap(points.as_subclass(torch.Tensor)[:, order], like=points)
        return image, target | {"keypoints": swapped, "visibility": target["visibility"][:, order]}

    def __repr__(self) -> str:
        return f"KeypointFlip(p={self.p})"

"""Images in: what tasks on images share, whatever comes out."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from distill_app.data.samples import finished_image
from distill_app.tasks.base import Batch, Task, tensor_answer


class ImageTask(Task):
    """Images of three channels in; what comes out is for those who derive from it.

    Args:
        normalize: `mean` and `std` per channel, of images scaled to [0, 1].
        num_classes: How many classes there are, or numbers that a network gives.
    """

    finish = staticmethod(finished_image)

    def __init__(self, *, normalize: Any, num_classes: int):
        self.mean = torch.tensor(normalize.mean).view(1, -1, 1, 1)
        self.std = torch.tensor(normalize.std).view(1, -1, 1, 1)
        self.num_classes = num_classes

    def prepare(self, batch: Mapping[str, Any], *, device: torch.device) -> Batch:
        """Moves a batch to the device; uint8 images become floats in [0, 1], and all images are normalised there.

        Whatever a wrapper added as uint8 (B, 3, H, W) under a key of its own is an image too. An input of several
        images per sample, (B, V, 3, H, W), becomes (B * V, 3, H, W), rows grouped by sample; labels and indices stay
        one per sample.
        """
        prepared = super().prepare(batch, device=device)
        if prepared["input"].dim() == 5:
            prepared["input"] = prepared["input"].flatten(0, 1)
        for key, value in prepared.items():
            if key == "input" or (isinstance(value, Tensor) and value.dtype == torch.uint8 and value.dim() >= 4):
                prepared[key] = self._normalized(value)
        return prepared

    def _normalized(self, images: Tensor) -> Tensor:
        if self.mean.device != images.device:
            self.mean, self.std = self.mean.to(images.device), self.std.to(images.device)
        scaled = images.float().div_(255.0) if images.dtype == torch.uint8 else images
        return (scaled - self.mean) / self.std


class LogitTask(ImageTask):
    """Images in, a logit for each of several classes out."""

    def misfit(self, answer: Any, batch: Mapping[str, Any]) -> str | None:
        width = logits_of(answer).shape[1]
        if width == self.num_classes:
            return None
        return f"gives {width} logits, and there are {self.num_classes} classes"

    def mismatch(self, answer: Any, other: Any) -> str | None:
        mine, theirs = logits_of(answer).shape[1], logits_of(other).shape[1]
        return None if mine == theirs else f"one gives {mine} logits and the other {theirs}"


def logits_of(answer: Any) -> Tensor:
    """An answer as logits (B, classes)."""
    return tensor_answer(answer, shape="(B, classes)")

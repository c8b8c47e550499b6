"""Several images per sample: wrappers that replace a sample's image by views of it."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from PIL import Image
from torchvision.transforms.v2 import RandAugment

from distill_app.data.order import Key
from distill_app.data.samples import Samples, SampleWrapper
from distill_app.errors import DataError

TURNS = (None, Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)


class RotatedViews(SampleWrapper):
    """Replaces every image by its four rotations: 0, 90, 180 and 270 degrees, the upright one first.

    `input` (3, H, W) becomes (4, 3, H, W). An input of several images per sample is something that the program knows:
    `tasks.Classification.prepare` flattens (B, V, 3, H, W) to (B * V, 3, H, W), rows grouped by image, so that networks
    run on all views, while `target` and `index` stay one per image. Losses that know of views read the rows as they
    are; `adapters.SelectView` gives the rows of one view to those that do not. Evaluation uses no wrappers.

    In a stage: `wrappers: {views: {_target_: distill_app.data.RotatedViews}}`.

    Args:
        samples: `Samples`, or another wrapper.
        each: Whether the image is rotated before the transforms, and each rotation cropped and flipped for itself; else
            one augmented image is rotated, for a quarter of the transforms' time. SSKD in torchdistill does the former;
            the authors' code too, but flips all four alike.

    Raises:
        DataError: An image that is not square; or `each` around another wrapper, which has no transforms to repeat.
    """

    def __init__(self, samples: Any, *, each: bool = False) -> None:
        super().__init__(samples)
        self.each = each
        if each and isinstance(samples, SampleWrapper) and hasattr(samples, "samples"):
            raise DataError(
                f"RotatedViews with each=true has to be the first wrapper, not one around {type(samples).__name__}: "
                "every rotation goes through the dataset's train_transform"
            )

    def load(self, key: Key) -> dict[str, Any]:
        """One sample with its views."""
        if self.each and isinstance(self.samples, Samples):
            return self.samples.load(key, variants=[partial(_turned, turns=turns) for turns in range(4)])
        return super().load(key)

    def extend(self, sample: dict[str, Any]) -> dict[str, Any]:
        image = sample["input"]
        if image.shape[-2] != image.shape[-1]:
            raise DataError(
                f"RotatedViews needs square images, got {tuple(image.shape)}: end the dataset's train_transform with a "
                f"crop to one size, such as torchvision.transforms.v2.CenterCrop"
            )
        return sample | {"input": torch.stack([_turned(image, turns=turns) for turns in range(4)])}


def _turned(image: Any, *, turns: int) -> Any:
    """A tensor (..., H, W) or a picture of Pillow, by quarter turns against the clock."""
    turn = TURNS[turns]
    if isinstance(image, Image.Image):
        return image if turn is None else image.transpose(turn)
    return image.rot90(turns, (-2, -1))


class StrongView(SampleWrapper):
    """Replaces every image by two views: as the transforms left it, and that augmented once more.

    `input` (3, H, W) becomes (2, 3, H, W); rows are grouped by image as those of `RotatedViews`. What the second view
    draws from torch's generator goes on from where the transforms left it, so it is a function of (seed, stage, view,
    index) as well.

    In a stage: `wrappers: {views: {_target_: distill_app.data.StrongView}}`.

    Args:
        samples: `Samples`, or another wrapper.
        transform: Of the strong view, on the uint8 image (3, H, W) that the transforms give; None: RandAugment of
            torchvision, two operations of magnitude 10.

    Raises:
        DataError: The transform gives another size or type.
    """

    def __init__(self, samples: Any, *, transform: Callable[[Any], Any] | None = None) -> None:
        super().__init__(samples)
        self.transform = RandAugment(num_ops=2, magnitude=10) if transform is None else transform

    def extend(self, sample: dict[str, Any]) -> dict[str, Any]:
        image = sample["input"]
        strong = self.transform(image)
        if strong.shape != image.shape or strong.dtype != image.dtype:
            raise DataError(
                f"StrongView needs a transform that keeps size and type, got {tuple(strong.shape)} of {strong.dtype} "
                f"from {tuple(image.shape)} of {image.dtype}"
            )
        return sample | {"input": torch.stack([image, strong])}

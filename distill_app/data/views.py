"""Several images per sample: wrappers that replace a sample's image by views of it."""

from typing import Any

import torch

from distill_app.data.samples import SampleWrapper
from distill_app.errors import DataError


class RotatedViews(SampleWrapper):
    """Replaces every image by its four rotations: 0, 90, 180 and 270 degrees, the upright one first.

    `input` (3, H, W) becomes (4, 3, H, W). An input of several images per sample is something that the program knows:
    `tasks.Classification.prepare` flattens (B, V, 3, H, W) to (B * V, 3, H, W), rows grouped by image, so that networks
    run on all views, while `target` and `index` stay one per image. Losses that know of views read the rows as they
    are; `adapters.SelectView` gives the rows of one view to those that do not. Evaluation uses no wrappers.

    In a stage: `wrappers: {views: {_target_: distill_app.data.RotatedViews}}`.

    Raises:
        ValueError: An image that is not square.
    """

    def extend(self, sample: dict[str, Any]) -> dict[str, Any]:
        image = sample["input"]
        if image.shape[-2] != image.shape[-1]:
            raise DataError(
                f"RotatedViews needs square images, got {tuple(image.shape)}: end the dataset's train_transform with a "
                f"crop to one size, such as torchvision.transforms.v2.CenterCrop"
            )
        return sample | {"input": torch.stack([image.rot90(turns, (-2, -1)) for turns in range(4)])}

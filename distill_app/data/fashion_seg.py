"""A small segmentation set, made of the real images of Fashion-MNIST that come with the installation."""

from collections.abc import Sequence
from typing import Any

import torch
from torchvision import tv_tensors

from distill_app.data.fashion_det import FashionDet


class FashionSeg(FashionDet):
    """The images of `FashionDet` with maps of their items; items are (image, map): a tv_tensors.Image and a uint8
    tv_tensors.Mask (H, W) with 0 for the background and 1 to 10 for the classes of Fashion-MNIST.

    Args:
        split: `train` or `test`, of the images that items are taken from.
        count: How many images.
        sides: The smallest and the largest height and width of an image, in pixels.
        scale: The smallest and the largest side of an item, in pixels.
        most: Items in an image.
        seed: Of the set.

    Raises:
        ValueError: Sizes that leave no room for an item.
    """

    def __init__(
        self,
        split: str,
        *,
        count: int,
        sides: Sequence[int] = (96, 96),
        scale: Sequence[int] = (20, 44),
        most: int = 4,
        seed: int = 0,
    ):
        super().__init__(split, count=count, sides=sides, scale=scale, most=most, kinds=["segm"], seed=seed)
        self.classes = ["background", *self.classes]

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        record = self.records[index]
        found = torch.zeros(record.size, dtype=torch.uint8)
        for each in record.objects:  # the masks of items leave each other out
            found[each.shape.bool()] = each.label
        return tv_tensors.Image(self.pictures[index].clone()), tv_tensors.Mask(found)

"""A small detection set, made of the real images of Fashion-MNIST that come with the installation."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.data import Dataset
from torchvision import tv_tensors

from distill_app.data.bundled_images import BundledImages
from distill_app.data.objects import ImageRecord, ObjectRecord
from distill_app.data.targets import target_of
from distill_app.seeds import stable_hash

_VISIBLE = 16  # grey value above which a pixel belongs to an item
_TRIES = 20  # places that are tried for an item
_OVERLAP = 0.1  # IoU of two items, at most


class FashionDet(Dataset):
    """Real items of clothing on smooth dark backgrounds, with boxes and masks; items are (image, target).

    Each image has 1 to `most` items of the images of its split, scaled, tinted and placed so that they hardly overlap;
    no training image is in a test image. What an image shows is a function of (seed, split, index).

    Args:
        split: `train` or `test`, of the images that items are taken from.
        count: How many images.
        sides: The smallest and the largest height and width of an image, in pixels.
        scale: The smallest and the largest side of an item, in pixels.
        most: Items in an image.
        kinds: `segm` among them adds masks.
        labelled: How many images, the first ones, have a target; of the others nothing is known, and a stage sees them
            if it says so. None: all.
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
        kinds: Sequence[str] = ("bbox",),
        labelled: int | None = None,
        seed: int = 0,
    ):
        source = BundledImages("fashion_mini", split, image_size=28)
        if min(sides) <= max(scale) or min(scale) < 8 or most < 1 or count < 1:
            raise ValueError(
                f"sides={list(sides)}, scale={list(scale)}, most={most}, count={count}: items of at least 8 px have to "
                "be smaller than images, and there is at least one of each"
            )
        if labelled is not None and not 1 <= labelled <= count:
            raise ValueError(f"labelled={labelled}: from 1 to count={count}, or null for all")
        if unknown := set(kinds) - {"bbox", "segm"}:
            raise ValueError(f"kinds: the items have boxes (bbox) and masks (segm), no {', '.join(sorted(unknown))}")
        self.classes, self.kinds = list(source.classes), tuple(kinds)
        self.unlabelled = range(count if labelled is None else labelled, count)
        self.pictures: list[Tensor] = []
        self.records: list[ImageRecord] = []
        for index in range(count):
            rng = np.random.Generator(np.random.Philox(key=stable_hash("fashion_det", seed, split, index)))
            picture, objects = _composed(rng, source, sides=sides, scale=scale, most=most)
            self.pictures.append(picture)
            height, width = picture.shape[-2:]
            known = index not in self.unlabelled
            self.records.append(ImageRecord(f"{split} image {index}", (height, width), objects if known else []))

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[Any, dict[str, Any]]:
        record = self.records[index]
        known = index not in self.unlabelled
        target = target_of(record, kinds=self.kinds, name=record.file, known=known)
        return tv_tensors.Image(self.pictures[index].clone()), target

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Height and width of every image."""
        return [record.size for record in self.records]


def _composed(
    rng: np.random.Generator, source: BundledImages, *, sides: Sequence[int], scale: Sequence[int], most: int
) -> tuple[Tensor, list[ObjectRecord]]:
    height, width = (int(side) for side in rng.integers(sides[0], sides[1] + 1, size=2))
    coarse = torch.from_numpy(rng.integers(0, 60, size=(1, 3, 4, 4)).astype(np.float32))
    canvas = interpolate(coarse, size=(height, width), mode="bicubic", align_corners=False)[0].clamp(0, 80)
    placed: list[tuple[int, Tensor, tuple[int, int, int, int]]] = []
    for _ in range(int(rng.integers(1, most + 1))):
        pick, side = int(rng.integers(len(source))), int(rng.integers(scale[0], scale[1] + 1))
        item = interpolate(source.images[pick].float()[None], size=(side, side), mode="bilinear")[0, 0]
        visible = item > _VISIBLE
        spot = _spot(rng, visible, (height, width), [box for _, _, box in placed])
        tint = torch.from_numpy(rng.uniform(0.7, 1.0, size=(3, 1, 1)).astype(np.float32))
        if spot is None:
            continue
        top, left, box = spot
        region = canvas[:, top : top + side, left : left + side]
        region.copy_(torch.where(visible, item * tint, region))
        mask = torch.zeros(height, width, dtype=torch.bool)
        mask[top : top + side, left : left + side] = visible
        placed = [(label, below & ~mask, around) for label, below, around in placed]
        placed.append((source.targets[pick] + 1, mask, box))
    return canvas.round().clamp(0, 255).byte(), [_object(label, mask) for label, mask, _ in placed]


def _spot(
    rng: np.random.Generator, visible: Tensor, size: tuple[int, int], taken: Sequence[tuple[int, int, int, int]]
) -> tuple[int, int, tuple[int, int, int, int]] | None:
    """Top and left of an item and the box around what is visible of it; None where there is no room."""
    side = len(visible)
    x1, y1, x2, y2 = _around(visible)
    for _ in range(_TRIES):
        top, left = (int(rng.integers(0, whole - side + 1)) for whole in size)
        box = (left + x1, top + y1, left + x2, top + y2)
        if all(_iou(box, other) < _OVERLAP for other in taken):
            return top, left, box
    return None


def _object(label: int, mask: Tensor) -> ObjectRecord:
    x1, y1, x2, y2 = map(float, _around(mask))
    return ObjectRecord(label, (x1, y1, x2, y2), area=float(mask.sum()), shape=mask.byte())


def _around(mask: Tensor) -> tuple[int, int, int, int]:
    rows, columns = mask.any(dim=1).nonzero().flatten(), mask.any(dim=0).nonzero().flatten()
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _iou(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    inside = max(width, 0) * max(height, 0)
    areas = [(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (a, b)]
    return inside / (sum(areas) - inside)

"""Data sets that tests name in configs, and folders of images."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset, default_collate

from distill_app.errors import DataError
from distill_app.tasks import Classification


class Labelled(Dataset):
    """Black images of 32 pixels with the labels that are given, and a list of labels where there is one.

    Args:
        labels: Of the items.
        kept: The list `targets`; True: the labels themselves.
        classes: Names of classes.
    """

    def __init__(self, labels: Any, kept: Any = None, classes: list[str] | None = None):
        self.of_items, self.reads = labels, 0
        if kept is not None:
            self.targets = labels if kept is True else kept
        if classes is not None:
            self.classes = classes

    def __len__(self) -> int:
        return len(self.of_items)

    def __getitem__(self, index: int) -> Any:
        self.reads += 1
        return torch.zeros(3, 32, 32, dtype=torch.uint8), self.of_items[index]


class Unwilling(Dataset):
    """A data set that says why it cannot be read."""

    def __init__(self) -> None:
        raise DataError("dataset.train: the index file is of another version")


class AnyLabel(Classification):
    """Labels are no business of this task."""

    def label_problems(self, dataset: Any) -> list[str]:
        return []


class OwnCollate(Classification):
    """A task whose batches are of its own kind."""

    def collate(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        return default_collate(samples)


def write_images(root: Path, counts: Mapping[str, int], *, size: tuple[int, int] = (32, 32)) -> Path:
    """Noise as PNGs: class folder -> number of images, of (width, height) pixels."""
    generator = np.random.default_rng(0)
    for name, count in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = generator.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number:03}.png")
    return root


def folders(root: Path, classes: Iterable[str] = ("cat", "dog"), *, train: int = 6, val: int = 3) -> Path:
    """The same for the splits train and val."""
    for split, count in (("train", train), ("val", val)):
        write_images(root / split, dict.fromkeys(classes, count))
    return root


COLOURS = {"ant": (200, 40, 40), "bee": (40, 200, 40), "cat": (40, 40, 200), "dog": (190, 190, 40)}


def stranger_folder(root: Path, *, each: int = 50) -> Path:
    """Four classes that differ in colour and grain; RGB, grey, RGBA and palette, PNG and JPEG, of many sizes."""
    generator = np.random.default_rng(0)
    for label, (name, colour) in enumerate(COLOURS.items()):
        (root / name).mkdir(parents=True)
        for number in range(each):
            height, width = generator.integers(24, 90, 2)
            stripes = 60 * ((np.arange(width) // (2 + 2 * label)) % 2)[None, :, None]
            noise = generator.normal(0, 25, (height, width, 1))
            image = Image.fromarray(np.clip(np.array(colour) + stripes + noise, 0, 255).astype(np.uint8))
            kind = ("RGB", "RGB", "L", "RGBA", "P")[number % 5]
            image.convert(kind).save(root / name / f"{number:02}.{'jpg' if number % 5 == 0 else 'png'}")
    return root

"""Images of a data set in the format of Hugging Face, read from the disk by their index."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import Dataset

from distill_app.data.hub import LOOKED_AT, hub_listing
from distill_app.data.images import image_of, load_image
from distill_app.data.opening import MAX_PIXELS
from distill_app.errors import DataError


class HuggingFaceImages(Dataset):
    """Images with a class each; an item is (uint8 tensor (3, H, W), label).

    Args:
        path: a folder that `save_to_disk` wrote, a parquet file or a folder of those, or an id on the hub.
        split: `train`, whose images of validation come along, or `test`.
        subset: of a data set on the hub that has several.
        columns: image, label -> name of the column, where it is neither of that type nor of a usual name.
        splits: part -> its name in the data set, where that is none of the usual ones.
        classes: names in the order of their labels; None: as the data set has them, else sorted.
        test_fraction: the share of each class that is tested, where there is no part for that; None: 0.2.
        split_seed: what draws it.
        max_pixels: images with more are refused.
        upright: turn images as their EXIF data say.

    Attributes:
        validation: positions of the images that are there to validate, None if the data set has none of its own.
        division: how all images fall into parts, as a run records it.
        fingerprint: of the bytes of some images.

    Raises:
        DataError: There is no such data set, column or part, or an image has no class; or the package is missing.
    """

    def __init__(
        self,
        path: str,
        *,
        split: str,
        subset: str | None = None,
        columns: Mapping[str, str | None] | None = None,
        splits: Mapping[str, str | None] | None = None,
        classes: Sequence[str] | None = None,
        test_fraction: float | None = None,
        split_seed: int = 0,
        max_pixels: int = MAX_PIXELS,
        upright: bool = False,
    ) -> None:
        if split not in ("train", "test"):
            raise DataError(f"split: train or test, not {split!r}")
        found = hub_listing(
            path,
            subset=subset,
            columns=columns,
            splits=splits,
            classes=classes,
            test_fraction=test_fraction,
            split_seed=split_seed,
        )
        chosen = {part: found.division.places.get(part, []) for part in ("train", "validation", "test")}
        places = chosen["test"] if split == "test" else chosen["train"] + chosen["validation"]
        validating = split == "train" and chosen["validation"]
        self.validation = list(range(len(chosen["train"]), len(places))) if validating else None
        self.classes = found.classes
        self.targets = [found.labels[place] for place in places]
        self.rows = [found.rows[place] for place in places]
        self._tables, self._image = found.tables, found.image
        self._reading: dict[str, Any] = {"max_pixels": max_pixels, "upright": upright}
        self.fingerprint = self._fingerprint()
        self.division = {**found.record(), "of": self.fingerprint}

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        name, row = self.rows[index]
        stored = self._tables[name][row][self._image]
        if stored is None:
            raise ValueError(f"row {row} of {name} has no image")
        if stored["bytes"] is None:
            return load_image(stored["path"], **self._reading), self.targets[index]
        return image_of(stored["bytes"], name=f"row {row} of {name}", **self._reading), self.targets[index]

    def _fingerprint(self) -> str:
        hasher = hashlib.blake2b(digest_size=8)
        for name, table in self._tables.items():
            for row in range(0, len(table), max(1, len(table) // LOOKED_AT)):
                stored: Any = table[row][self._image] or {}
                hasher.update(f"{name} {row} {stored.get('path') if stored.get('bytes') is None else ''};".encode())
                hasher.update(stored.get("bytes") or b"")
        return hasher.hexdigest()

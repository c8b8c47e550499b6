"""Images in files, which may come from strangers: folders with one folder per class."""

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torchvision.datasets import DatasetFolder

from distill_app.data.absence import folder_problems
from distill_app.data.class_folders import ClassFolders
from distill_app.data.images import load_image
from distill_app.data.listing import Listing, folder_listing
from distill_app.data.names import refuse_unwritable
from distill_app.data.opening import MAX_PIXELS
from distill_app.errors import DataError


class FileImages(DatasetFolder):
    """Images that a listing names, read by `load_image`; an item is (uint8 tensor (3, H, W), label).

    Args:
        listing: The files, their classes and their parts.
        split: `train`, whose images of validation come along; `test`; None: all.
        max_pixels: images with more are refused.
        white: the value that becomes 255, of images of more than 8 bits a channel; None: 65535 for those of 16 bits,
            while 32-bit images are refused.
        upright: turn images as their EXIF data say.

    Attributes:
        validation: positions of the images that are there to validate, None if the data set has none of its own.
        division: how all images fall into parts, as a run records it.
    """

    def __init__(
        self,
        listing: Listing,
        split: str | None,
        *,
        max_pixels: int = MAX_PIXELS,
        white: float | None = None,
        upright: bool = False,
    ) -> None:
        if split not in (None, "train", "test"):
            raise DataError(f"split: train or test, not {split!r}")
        self.listing, self.split = listing, split
        self.validation, self.division = listing.validation(split), listing.record()
        load = partial(load_image, max_pixels=max_pixels, white=white, upright=upright)
        super().__init__(listing.root, loader=load, is_valid_file=lambda _: True)

    def find_classes(self, directory: str | Path) -> tuple[list[str], dict[str, int]]:
        """The classes and their labels."""
        return self.listing.classes, {name: label for label, name in enumerate(self.listing.classes)}

    def make_dataset(self, directory: str | Path, *_: Any, **__: Any) -> list[tuple[str, int]]:
        """The images and their labels."""
        return self.listing.samples(self.split)


class ImageFolder(FileImages):
    """Images in one folder for each class, of all formats that `load_image` opens; errors name what is at fault.

    Hidden folders (`.ipynb_checkpoints`, `__MACOSX`, ...) are no classes, and links are not followed in circles.

    Args:
        root: holds the class folders; or, with a `split`, folders of class folders for training, test and, if need be,
            validation.
        split: `train` or `test`. Where the root has class folders right away, each class is shared.
        splits: part -> name of its folder, where that is none of the usual ones.
        classes: names in the order of their labels; None: sorted.
        test_fraction: the share of each class that is tested, where it is shared; None: 0.2.
        split_seed: what draws it.
        max_pixels: images with more are refused.
        white: as of `FileImages`.
        upright: turn images as their EXIF data say.

    Attributes:
        folders: what lies below the root, with the files and folders that are not read.

    Raises:
        FileNotFoundError: No root, no class folder, or a class folder without an image.
        DataError: Parts that cannot be told apart, a single class, or too few images to share.
        OSError: A folder that cannot be listed.
    """

    def __init__(
        self,
        root: str,
        *,
        split: str | None = None,
        splits: Mapping[str, str | None] | None = None,
        classes: Sequence[str] | None = None,
        test_fraction: float | None = None,
        split_seed: int = 0,
        max_pixels: int = MAX_PIXELS,
        white: float | None = None,
        upright: bool = False,
    ) -> None:
        if split is None:
            if problems := folder_problems(root):
                raise FileNotFoundError("; ".join(problems))
            found = ClassFolders.scan(root)
            files = [(path, found.classes[label]) for path, label in found.samples]
            refuse_unwritable(path for path, _ in files)
            listing = Listing(str(root), found.classes, files, folders=found)
        else:
            listing = folder_listing(
                str(root), splits=splits, classes=classes, test_fraction=test_fraction, split_seed=split_seed
            )
        super().__init__(listing, split, max_pixels=max_pixels, white=white, upright=upright)
        self.folders = listing.folders


def folders_of(dataset: Any) -> ClassFolders | None:
    """What lies where a data set of class folders was read from, None for any other data set.

    `unread` is what this data set did not read: torchvision's own knows fewer suffixes.
    """
    if isinstance(dataset, FileImages):
        return dataset.listing.folders if dataset.split != "test" else None  # told of the part that has them all
    if not isinstance(dataset, DatasetFolder):
        return None
    found, read = ClassFolders.scan(dataset.root), {path for path, _ in dataset.samples}
    missed = [os.path.relpath(path, dataset.root) for path, _ in found.samples if path not in read]
    found.unread = [name for name in found.unread if os.path.join(dataset.root, name) not in read] + missed
    return found

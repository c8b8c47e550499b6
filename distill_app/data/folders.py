"""Image folders (one folder per class) whose files may come from strangers."""

import os
from functools import partial
from pathlib import Path
from typing import Any

from torchvision.datasets import DatasetFolder
from torchvision.datasets import ImageFolder as TorchvisionImageFolder

from distill_app.data.class_folders import ClassFolders
from distill_app.data.images import MAX_PIXELS, load_image
from distill_app.data.presence import folder_problems


class ImageFolder(TorchvisionImageFolder):
    """torchvision's ImageFolder with `load_image`, all formats that it opens, and errors that name what is at fault.

    Hidden folders (`.ipynb_checkpoints`, `__MACOSX`, ...) are no classes, and links are not followed in circles.

    Args:
        root: holds one folder per class.
        max_pixels: images with more are refused.
        white: the value that becomes 255, of images of more than 8 bits a channel; None: 65535 for those of 16 bits,
            while 32-bit images are refused.

    Attributes:
        folders: what lies below the root, with the files and folders that are not read.

    Raises:
        FileNotFoundError: No root, no class folder, or a class folder without an image.
        OSError: A folder that cannot be listed.
    """

    def __init__(self, root: str, *, max_pixels: int = MAX_PIXELS, white: float | None = None) -> None:
        problems = folder_problems(root)
        if problems:
            raise FileNotFoundError("; ".join(problems))
        self.folders = ClassFolders.scan(root)
        super().__init__(root, loader=partial(load_image, max_pixels=max_pixels, white=white))

    def find_classes(self, directory: str | Path) -> tuple[list[str], dict[str, int]]:
        """The class folders and their labels."""
        return self.folders.classes, {name: label for label, name in enumerate(self.folders.classes)}

    def make_dataset(self, directory: str | Path, *_: Any, **__: Any) -> list[tuple[str, int]]:
        """The images and their labels."""
        return self.folders.samples


def folders_of(dataset: Any) -> ClassFolders | None:
    """What lies where a data set of class folders was read from, None for any other data set.

    `unread` is what this data set did not read: torchvision's own knows fewer suffixes.
    """
    if not isinstance(dataset, DatasetFolder):
        return None
    if isinstance(dataset, ImageFolder):
        return dataset.folders
    found, read = ClassFolders.scan(dataset.root), {path for path, _ in dataset.samples}
    missed = [os.path.relpath(path, dataset.root) for path, _ in found.samples if path not in read]
    found.unread = [name for name in found.unread if os.path.join(dataset.root, name) not in read] + missed
    return found

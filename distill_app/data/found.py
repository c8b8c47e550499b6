"""Which files a user means who names folders, patterns and files of images. No torch."""

import glob
import os
from collections.abc import Iterable
from pathlib import Path

from distill_app.data.class_folders import ClassFolders, is_hidden, is_image
from distill_app.errors import UsageError


def found_images(named: Iterable[str]) -> list[Path]:
    """The images in folders at any depth, those that patterns fit, and files, in the order in which they are named.

    A file that is named itself is taken whatever its name ends in.

    Raises:
        UsageError: A path at which nothing is, a pattern that fits nothing, or a folder without images.
    """
    found: dict[Path, None] = {}
    for name in named:
        here = list(_of(name))
        if not here:
            raise UsageError(_nothing(name))
        found.update(dict.fromkeys(here))
    return list(found)


def _of(name: str) -> list[Path]:
    path = Path(name)
    if path.is_dir():
        folders = sorted(ClassFolders([]).walk(str(path), root=str(path)))
        return [Path(folder, file) for folder, files in folders for file in files]
    if path.exists():
        return [path]
    fitting = sorted(glob.glob(name, recursive=True)) if glob.has_magic(name) else []
    return [Path(each) for each in fitting if is_image(os.path.basename(each)) and os.path.isfile(each)]


def _nothing(name: str) -> str:
    if Path(name).is_dir():
        other = sorted(each for each in os.listdir(name) if not is_hidden(each))
        inside = f"there are {len(other)} entries, such as {other[0]!r}" if other else "it is empty"
        return f"{name} has no images in it ({inside}); images are known by their suffix: .jpg, .png, .webp ..."
    if glob.has_magic(name):
        return f"no image fits the pattern {name!r}"
    return f"there is no file or folder {name}"

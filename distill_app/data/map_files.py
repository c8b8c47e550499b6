"""Maps of classes in files, a whole number for each pixel: reading them, and folders of images and maps. No torch."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from PIL import ExifTags

from distill_app.data.absence import absence
from distill_app.data.class_folders import is_hidden, is_image
from distill_app.data.names import refuse_unwritable
from distill_app.data.opening import open_image
from distill_app.data.parts import Division, divided, part_names
from distill_app.errors import DataError
from distill_app.words import some

if TYPE_CHECKING:  # reading a listing needs no arrays
    import numpy as np

IGNORED = 255  # of a pixel that belongs to no class: it is neither learnt nor judged
MOST_CLASSES = 255  # 0 to 254
IMAGES, MAPS, NAMES = "images", "masks", "classes.txt"
_MODES = ("1", "L", "P", "I", "I;16", "I;16L", "I;16B")
_UNTURNED = (None, 1)


def read_map(path: str) -> "np.ndarray":
    """The numbers of a map as they are in the file, those of a palette's entries where it has one.

    Returns:
        int32 (H, W).

    Raises:
        ValueError: No picture, one of colours, or one whose format changes numbers.
        OSError: Damaged bytes.
    """
    import numpy as np

    with open_image(path) as image:
        if image.format == "JPEG":
            raise ValueError(f"{path} is a JPEG, which changes the numbers of classes; save maps as PNG")
        if image.mode not in _MODES:
            raise ValueError(
                f"{path} is a picture of colours (mode {image.mode}), and a map has the number of a class for each "
                f"pixel; save it as grey values or with a palette"
            )
        return np.asarray(image).astype(np.int32)


def coded(raw: "np.ndarray", *, num_classes: int, values: Sequence[int] | None = None, name: str) -> "np.ndarray":
    """The classes of a map, uint8 (H, W), with 255 where a pixel has none.

    Args:
        raw: The numbers of the file.
        num_classes: Classes are numbers below this.
        values: The number that stands for each class in files; None: the class itself. 255 is none unless named here.
        name: Of the file, for messages.

    Raises:
        ValueError: A number that stands for no class.
    """
    import numpy as np

    if values is None:
        wrong = (raw != IGNORED) & ((raw < 0) | (raw >= num_classes))
        found, allowed = raw, f"num_classes={num_classes} means 0 to {num_classes - 1}"
    else:
        order = np.argsort(values)
        places = np.searchsorted(values, raw, sorter=order).clip(max=len(values) - 1)
        found = order[places]
        known = np.asarray(values)[found] == raw
        ignored = (raw == IGNORED) & ~known
        found, wrong = np.where(ignored, IGNORED, found), ~known & ~ignored
        allowed = f"classes are the values {some(map(str, values))}"
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise ValueError(
            f"{name} has the number {raw[row, column]} at row {row}, column {column}, and {allowed}, beside {IGNORED} "
            f"for no class"
        )
    return found.astype(np.uint8)


def sizes_of(image: str, classes: str) -> tuple[tuple[int, int], str | None]:
    """Height and width of an image, by its header, and what keeps a map from being that of it.

    Raises:
        OSError, ValueError: A header that cannot be read.
    """
    with open_image(image, header_only=True) as opened:
        size, turned = opened.size, opened.getexif().get(ExifTags.Base.Orientation)
    with open_image(classes, header_only=True) as opened:
        other = opened.size
    problem = None
    if other != size:
        problem = f"{classes} has {other[0]} x {other[1]} px, and {image} {size[0]} x {size[1]}"
    elif turned not in _UNTURNED:
        problem = f"{image} is turned by its EXIF data, and nobody can know whether {classes} is; save it upright"
    return (size[1], size[0]), problem


@dataclass
class MapListing:
    """Images with their maps, and which of them are for what.

    Attributes:
        root: What the names of images are relative to.
        classes: Names, in the order of their numbers.
        files: Image and map of each.
        division: Which of them are for what.
        notes: What may be a mistake.
    """

    root: str
    classes: list[str]
    files: list[tuple[str, str]]
    division: Division
    notes: list[str]

    @property
    def names(self) -> list[str]:
        """Of the images: their paths below the root."""
        return [os.path.relpath(image, self.root) for image, _ in self.files]

    def places(self, split: str) -> list[int]:
        """Indices of the images of a split; those of training go before those of validation, which come along."""
        parts = ("train", "validation") if split == "train" else (split,)
        return [index for part in parts for index in self.division.places.get(part, ())]

    def validation(self, split: str) -> list[int] | None:
        """Which of a split are there to validate; None where the folder has no such images of its own."""
        count = len(self.division.places.get("validation", ())) if split == "train" else 0
        total = len(self.places(split))
        return list(range(total - count, total)) if count else None

    def record(self) -> dict[str, Any]:
        """What a run keeps of how images fall into parts."""
        return self.division.record(self.names)


def map_listing(
    root: str,
    *,
    splits: Mapping[str, str | None] | None = None,
    classes: Sequence[str] | None = None,
    values: Sequence[int] | None = None,
    test_fraction: float | None = None,
    split_seed: int = 0,
) -> MapListing:
    """The images and maps of a folder: `images` and `masks` with parts in or above them, or none, which are shared.

    An image and its map have one name but for the suffix.

    Args:
        root: The folder.
        splits: Part -> name of its folder, where that is none of the usual ones.
        classes: Names in the order of their numbers; None: a line each of `classes.txt`, else as many as the maps have.
        values: As of `coded`.
        test_fraction: The share that is tested, where there are no parts; None: 0.2.
        split_seed: What draws it.

    Raises:
        DataError: No such folders, images without a map, two maps for an image, or maps that cannot be read or counted.
        OSError: A folder that cannot be listed.
    """
    root = str(root)
    if not os.path.isdir(root):
        raise DataError(f"root: {absence(root)}")
    parts, notes = _parts(root, splits), []
    files, of = [], []
    for part, (images, maps) in parts.items():
        found, left = _paired(images, maps)
        files += found
        of += [part] * len(found)
        notes += [f"{len(left)} files in {maps} are the map of no image: {some(left)}"] if left else []
    refuse_unwritable(path for pair in files for path in pair)
    names = [os.path.relpath(image, root) for image, _ in files]
    said = None if "" in parts else of
    called = {part: os.path.relpath(images, root) for part, (images, _) in parts.items()}
    division = divided(
        said,
        called,
        labels=["images"] * len(files),
        images=names,
        test_fraction=test_fraction,
        seed=split_seed,
    )
    chosen = _names(root, classes, [each for _, each in files], values)
    return MapListing(root, chosen, files, division, notes)


def _parts(root: str, splits: Mapping[str, str | None] | None) -> dict[str, tuple[str, str]]:
    """Part -> its folders of images and of maps; '' where there are no parts."""
    images, maps = (os.path.join(root, name) for name in (IMAGES, MAPS))
    if os.path.isdir(images) and os.path.isdir(maps):
        below = [set(_folders(place)) for place in (images, maps)]
        found = part_names(sorted(below[0] & below[1]), splits)
        if not found:
            return {"": (images, maps)}
        return {part: (os.path.join(images, name), os.path.join(maps, name)) for part, name in found.items()}
    both = [
        name for name in _folders(root) if all(os.path.isdir(os.path.join(root, name, each)) for each in (IMAGES, MAPS))
    ]
    found = part_names(sorted(both), splits)
    if not found:
        raise DataError(
            f"root: {root} has no folders {IMAGES} and {MAPS}, nor has a folder for training in it "
            f"(it has: {some(sorted(os.listdir(root))) or 'nothing'})"
        )
    return {part: tuple(os.path.join(root, name, each) for each in (IMAGES, MAPS)) for part, name in found.items()}  # type: ignore[misc]


def _folders(place: str) -> list[str]:
    with os.scandir(place) as entries:
        return [entry.name for entry in entries if entry.is_dir() and not is_hidden(entry.name)]


def _paired(images: str, maps: str) -> tuple[list[tuple[str, str]], list[str]]:
    """Image and map of each name, and the maps that are left."""
    sides: list[dict[str, str]] = []
    for place in (images, maps):
        found: dict[str, str] = {}
        for name in sorted(os.listdir(place)):
            stem = os.path.splitext(name)[0]
            if not is_image(name) or not os.path.isfile(os.path.join(place, name)):
                continue
            if stem in found:
                raise DataError(f"root: {place} has both {found[stem]} and {name}, and a name belongs to one image")
            found[stem] = name
        sides.append(found)
    if not sides[0]:
        raise DataError(f"root: {images} has no images")
    if missing := [name for stem, name in sides[0].items() if stem not in sides[1]]:
        raise DataError(
            f"root: {len(missing)} of {len(sides[0])} images in {images} have no map of their name in {maps}: "
            f"{some(missing)}; add the maps, or take the images out"
        )
    pairs = [(os.path.join(images, name), os.path.join(maps, sides[1][stem])) for stem, name in sides[0].items()]
    return pairs, [name for stem, name in sides[1].items() if stem not in sides[0]]


def _names(root: str, classes: Sequence[str] | None, maps: Sequence[str], values: Sequence[int] | None) -> list[str]:
    """The names of the classes: said, in a file, or counted."""
    if values is not None and (len(values) < 2 or len(set(values)) < len(values)):
        raise DataError(f"values: two or more different numbers are needed, not {list(values)}")
    names = [str(name) for name in classes or ()] or _listed(os.path.join(root, NAMES))
    if not names:
        names = [str(number) for number in range(_count(maps) if values is None else len(values))]
    if values is not None and len(values) != len(names):
        raise DataError(f"values: {len(values)} numbers stand for {len(names)} classes ({some(names)})")
    if not 2 <= len(names) <= MOST_CLASSES:
        raise DataError(f"classes: 2 to {MOST_CLASSES} are possible, and there are {len(names)}")
    return names


def _listed(file: str) -> list[str]:
    if not os.path.isfile(file):
        return []
    try:
        with open(file, encoding="utf-8") as opened:
            return [line.strip() for line in opened if line.strip()]
    except UnicodeDecodeError as error:
        raise DataError(f"root: {file} is no text: {error}") from error


def _count(maps: Sequence[str]) -> int:
    """One more than the largest number of a class: all maps are read for it."""
    highest = -1
    for path in maps:
        try:
            state = os.stat(path)
            highest = max(highest, _highest(path, state.st_mtime_ns, state.st_size))
        except (OSError, ValueError, SyntaxError) as error:
            raise DataError(f"root: {path} cannot be read: {error}") from error
    if highest < 1:
        raise DataError(
            f"root: the maps have no number but 0 and {IGNORED}, which stands for no class; where {IGNORED} is a "
            f"class, say so: dataset.train.values=[0,{IGNORED}]"
        )
    return highest + 1


@lru_cache(maxsize=1 << 18)
def _highest(path: str, changed: int, size: int) -> int:
    """The largest number of a map but 255; -1 where there is none. A file that has not changed is read once."""
    raw = read_map(path)
    there = raw[raw != IGNORED]
    highest = int(there.max()) if there.size else -1
    if highest >= MOST_CLASSES:
        raise ValueError(f"it has the number {highest}, and classes are numbers from 0 to {MOST_CLASSES - 1}")
    return highest

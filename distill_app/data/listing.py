"""Images in files, each with a class and a part: as folders lay them out. No torch, and no image is opened."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distill_app.data.absence import absence, folder_problems
from distill_app.data.class_folders import ClassFolders, class_folders
from distill_app.data.names import class_name_notes, left_out_notes, number_of, refuse_unwritable
from distill_app.data.parts import Division, divided, part_names
from distill_app.errors import DataError
from distill_app.words import some, unknown


@dataclass
class Listing:
    """The images of a data set whose images are files.

    Attributes:
        root: What the names of images are relative to.
        classes: Names, in the order of their labels.
        files: Path and class of each image.
        division: Which of them are for what; None: all for whatever they are asked for.
        folders: What lies where they were found; None where nobody looked around.
    """

    root: str
    classes: list[str]
    files: list[tuple[str, str]]
    division: Division | None = None
    folders: ClassFolders | None = None

    def __post_init__(self) -> None:
        self._label = {name: label for label, name in enumerate(self.classes)}

    @property
    def names(self) -> list[str]:
        """Of the images: their paths below the root."""
        return [os.path.relpath(path, self.root) for path, _ in self.files]

    @property
    def labels(self) -> list[int]:
        """Of the images."""
        return [self._label[name] for _, name in self.files]

    def places(self, split: str | None) -> list[int]:
        """Indices of the images of a split; those of training go before those of validation, which come along."""
        if split is None or self.division is None:
            return list(range(len(self.files)))
        parts = ("train", "validation") if split == "train" else (split,)
        return [index for part in parts for index in self.division.places.get(part, ())]

    def samples(self, split: str | None) -> list[tuple[str, int]]:
        """Path and label of each image of a split."""
        chosen = (self.files[index] for index in self.places(split))
        return [(path, self._label[name]) for path, name in chosen]

    def validation(self, split: str | None) -> list[int] | None:
        """Which samples of a split are there to validate; None where the data set has no such images of its own."""
        count = len(self.division.places.get("validation", ())) if self.division and split == "train" else 0
        total = len(self.places(split))
        return list(range(total - count, total)) if count else None

    @property
    def notes(self) -> list[str]:
        """What may be a mistake and keeps nobody from reading the images."""
        left = [] if self.folders is None else list(left_out_notes(self.folders))
        return [*left, *class_name_notes(self.classes, of_table=self.folders is None)]

    def record(self) -> dict[str, Any] | None:
        """What a run keeps of how images fall into parts."""
        return None if self.division is None else self.division.record(self.names)


def ordered_classes(
    found: Iterable[str], classes: Sequence[str] | None, *, of: str, numeric: bool = False
) -> list[str]:
    """The classes in the order of their labels: as the config has them, else sorted.

    Args:
        found: The names that the data have.
        classes: Those of the config; None: the found ones.
        of: What a class is in the data, for messages: "class folders in DIR".
        numeric: Names that are all numbers are sorted as such: 2 before 10.

    Raises:
        DataError: A single class, or others than the config names.
    """
    names = sorted(set(found))
    if numeric and None not in (numbers := [number_of(name) for name in names]):
        names = [name for _, name in sorted(zip(numbers, names, strict=True))]
    if classes is not None:
        given = [str(name) for name in classes]
        if extra := [name for name in names if name not in given]:
            raise DataError(f"classes: {of}: {unknown('class', extra[0], given)}")
        if lacking := [name for name in given if name not in names]:
            raise DataError(f"classes: {of}: there is none for {some(map(repr, lacking))}")
        names = given
    if len(names) == 1:
        raise DataError(f"classes: {of}: there is one alone, {names[0]!r}, and a classifier needs two or more")
    return names


def split_folders(root: str, splits: Mapping[str, str | None] | None = None) -> dict[str, str]:
    """Part -> its folder's name, where a folder has one for each part; {} where it has class folders right away.

    A folder with images of its own and no folders in it is a class, whatever it is called.

    Args:
        root: The folder.
        splits: Part -> name of its folder, where that is no usual one.

    Raises:
        DataError: There is no folder, or parts without one for training.
        OSError: A folder that cannot be listed.
    """
    if not os.path.isdir(root):
        raise DataError(f"root: {absence(root)}")
    there = class_folders(root)
    names = part_names(there, splits)
    said = {name for name in (splits or {}).values() if name}
    names = {part: name for part, name in names.items() if name in said or class_folders(os.path.join(root, name))}
    if names and "train" not in names and (said or set(names.values()) == set(there)):
        raise DataError(
            f"root: {root} has {some(there)} and no folder for training; rename one, or say dataset.splits.train=NAME"
        )
    return names if "train" in names else {}


def found_classes(root: str, splits: Mapping[str, str | None] | None = None) -> list[str]:
    """The names of the class folders, of all parts together; nothing else is looked at.

    Raises:
        DataError, OSError: As `split_folders`.
    """
    places = [os.path.join(root, name) for name in split_folders(root, splits).values()] or [root]
    return sorted({name for place in places for name in class_folders(place)})


def folder_listing(
    root: str,
    *,
    splits: Mapping[str, str | None] | None = None,
    classes: Sequence[str] | None = None,
    test_fraction: float | None = None,
    split_seed: int = 0,
) -> Listing:
    """What lies in a folder of images: in one folder for each class, within one for each part or not.

    Args:
        root: The folder.
        splits: Part -> name of its folder, where that is no usual one.
        classes: Their order; None: sorted.
        test_fraction: Without folders for parts, the share of each class that is tested; None: 0.2.
        split_seed: What draws it.

    Raises:
        DataError: Something is not there, a class has no image, or too few to share.
        OSError: A folder that cannot be listed.
    """
    parts = split_folders(root, splits)
    places = {part: os.path.join(root, name) for part, name in parts.items()} or {"": root}
    if problems := [problem for place in places.values() for problem in folder_problems(place)]:
        raise DataError(f"root: {'; '.join(problems)}")
    names = _class_names(root, places, classes)
    scanned = {part: ClassFolders.scan(place) for part, place in places.items()}
    files = [(path, found.classes[label]) for found in scanned.values() for path, label in found.samples]
    refuse_unwritable(path for path, _ in files)
    division = divided(
        [part for part, found in scanned.items() for _ in found.samples] if parts else None,
        parts,
        labels=[name for _, name in files],
        images=[os.path.relpath(path, root) for path, _ in files],
        test_fraction=test_fraction,
        seed=split_seed,
    )
    return Listing(root, names, files, division, _merged(root, places, scanned, names))


def _class_names(root: str, places: Mapping[str, str], classes: Sequence[str] | None) -> list[str]:
    found = sorted({name for place in places.values() for name in class_folders(place)})
    trained = places.get("train", root)
    if untrained := [name for name in found if name not in class_folders(trained)]:
        raise DataError(f"root: {trained} has no class folder {some(untrained)}, which other parts of {root} have")
    try:
        return ordered_classes(found, classes, of=f"class folders in {trained}")
    except DataError as error:
        deeper = [name for name in found if len(class_folders(os.path.join(trained, name))) > 1]
        hint = f"; if the classes are the folders in it: dataset.root={os.path.join(root, deeper[0])}" if deeper else ""
        raise DataError(f"{error}{hint if len(found) == 1 else ''}") from None


def _merged(
    root: str, places: Mapping[str, str], scanned: Mapping[str, ClassFolders], classes: list[str]
) -> ClassFolders:
    """What lies in several folders as what lies in one; folders beside those of parts are not read."""
    whole = ClassFolders(classes)
    for part, found in scanned.items():
        above = os.path.relpath(places[part], root)
        for mine, theirs in ((whole.unread, found.unread), (whole.hidden, found.hidden), (whole.loops, found.loops)):
            mine += [os.path.normpath(os.path.join(above, name)) for name in theirs]
    beside = set(class_folders(root)) - {os.path.relpath(place, root) for place in places.values()}
    whole.beside = sorted(beside) if "" not in places else []
    return whole

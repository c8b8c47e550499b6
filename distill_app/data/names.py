"""Names of files and classes that may be a mistake, or cannot be written down. No torch, and no image is opened."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from distill_app.data.absence import SHOWN
from distill_app.data.class_folders import IMAGE_SUFFIXES, ClassFolders, is_hidden, is_image
from distill_app.errors import DataError
from distill_app.words import printable, some

_NONE = ("nan", "na", "n/a", "none", "null", "?")  # what programs write where a cell is empty
_NUMBER = re.compile(r"-?\d+(\.\d+)?", re.ASCII)


def number_of(name: str) -> float | None:
    """The number that a name of a class is; None where it is none."""
    return float(name) if _NUMBER.fullmatch(name) else None


def refuse_unwritable(paths: Iterable[str], *, key: str = "root") -> None:
    """Refuses files whose names are no text, as old archives leave them: no record could hold them.

    Args:
        paths: Of the files.
        key: In the config, of where they lie.

    Raises:
        DataError: There are such.
    """
    if odd := [path for path in paths if not is_text(path)]:
        told = some(map(ascii, odd), limit=SHOWN)
        raise DataError(
            f"{key}: the names of {len(odd)} files are no text in UTF-8, so that nothing can record them: {told}; "
            f"rename them (convmv does a whole folder)"
        )


def is_text(name: str) -> bool:
    """Whether a name can be written in UTF-8; those of files that cannot hold lone surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def left_out_notes(folders: ClassFolders) -> Iterator[str]:
    """Yields what of a folder is not read."""
    by_kind = Counter(_kind(name) for name in folders.unread)
    kinds = ", ".join(f"{count} {printable(kind)}" for kind, count in by_kind.most_common(2 * SHOWN))
    found = [
        (f"files are not read as images ({kinds}; images are {' '.join(IMAGE_SUFFIXES)})", folders.unread),
        ("hidden folders are no classes and are not read", folders.hidden),
        ("folders beside those for training and test are not read", folders.beside),
        ("links lead back to a folder that they lie in and are not followed", folders.loops),
    ]
    for text, names in found:
        if names:
            yield f"{len(names)} {text}: {some(map(printable, names), limit=SHOWN)}"


def _kind(name: str) -> str:
    """Why a file is not read."""
    folder, file = os.path.split(name)
    if is_hidden(file):
        return "hidden"
    if is_image(file):
        return "links to nothing" if folder else "beside the class folders"
    return os.path.splitext(file)[1].lower() or "without a suffix"


def class_name_notes(names: Sequence[str], *, of_table: bool) -> Iterator[str]:
    """Yields which classes differ by their spelling alone, and which may stand for no class at all.

    Args:
        names: Of the classes.
        of_table: Whether they are values of a column, where nothing has a name too.
    """
    spellings: dict[str | float, list[str]] = {}
    for name in names:
        number = number_of(name.strip())
        spellings.setdefault(name.strip().casefold() if number is None else number, []).append(name)
    alike = [each for each in spellings.values() if len(each) > 1]
    for each in alike[:SHOWN]:
        yield f"{' and '.join(map(repr, each))} are different classes, by their spelling alone"
    for name in names if of_table else ():
        if name.strip().casefold() in _NONE:
            yield f"the images without a label may be those of the class {name!r}; where they are, leave them out"

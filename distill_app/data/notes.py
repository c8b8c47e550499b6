"""What of data sets may be a mistake, and does not keep a run from going on: a message each."""

import os
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from distill_app.data.absence import SHOWN
from distill_app.data.class_folders import IMAGE_SUFFIXES, ClassFolders, is_hidden, is_image
from distill_app.data.folders import folders_of
from distill_app.data.labels import class_names, kept_labels, numbers


def reading_notes(dataset: Any) -> list[str]:
    """What of the folder of a data set is not read or looks like a mistake, a message each, without its config key."""
    own = getattr(dataset, "notes", None)
    folders, notes = folders_of(dataset), list(own()) if callable(own) else []
    for text, names in () if folders is None else _left_out(folders):
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        notes.append(f"{len(names)} {text}: {', '.join(names[:SHOWN])}{more}")
    spellings: dict[str, list[str]] = {}
    for name in class_names(dataset) or []:
        spellings.setdefault(name.strip().casefold(), []).append(name)
    alike = [names for names in spellings.values() if len(names) > 1]
    notes += [
        f"{' and '.join(map(repr, names))} are different classes, by their spelling alone" for names in alike[:SHOWN]
    ]
    return notes


def _left_out(folders: ClassFolders) -> list[tuple[str, list[str]]]:
    by_kind = Counter(_kind(name) for name in folders.unread)
    kinds = ", ".join(f"{count} {kind}" for kind, count in by_kind.most_common(2 * SHOWN))
    found = [
        (f"files are not read as images ({kinds}; images are {' '.join(IMAGE_SUFFIXES)})", folders.unread),
        ("hidden folders are no classes and are not read", folders.hidden),
        ("folders beside those for training and test are not read", folders.beside),
        ("links lead back to a folder that they lie in and are not followed", folders.loops),
    ]
    return [(text, names) for text, names in found if names]


def _kind(name: str) -> str:
    """Why a file is not read."""
    folder, file = os.path.split(name)
    if is_hidden(file):
        return "hidden"
    if is_image(file):
        return "links to nothing" if folder else "beside the class folders"
    return os.path.splitext(file)[1].lower() or "without a suffix"


def class_notes(train: Any, test: Any, *, num_classes: int) -> list[str]:
    """Classes of which there is no image, as far as data sets keep a list of their labels."""
    there, tested, names = _labels(train), _labels(test), class_names(train)
    if there is None:
        return []
    notes = []
    if missing := sorted(set(range(num_classes)) - there):
        notes.append(f"no training image of {len(missing)} of the {num_classes} classes: {_shown(missing, names)}")
    if tested is not None and (unseen := sorted(tested - there)):
        many = f"{len(unseen)} classes" if len(unseen) > 1 else "a class"
        notes.append(f"test images of {many} without training images: {_shown(unseen, names)}")
    return notes


def _labels(dataset: Any) -> set[int] | None:
    kept = kept_labels(dataset)
    array = numbers(kept) if kept is not None else None
    return set(np.unique(array).astype(int).tolist()) if array is not None and array.ndim == 1 else None


def _shown(labels: Sequence[int], names: Sequence[str] | None) -> str:
    known = names or ()
    shown = [f"{label} ({known[label]})" if label < len(known) else str(label) for label in labels[:SHOWN]]
    return ", ".join(shown) + (", ..." if len(labels) > SHOWN else "")

"""What of data sets may be a mistake, and does not keep a run from going on: a message each."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from distill_app.data.absence import SHOWN
from distill_app.data.csv_images import CsvImages
from distill_app.data.folders import folders_of
from distill_app.data.huggingface import HuggingFaceImages
from distill_app.data.labels import class_names, kept_labels, numbers
from distill_app.data.names import class_name_notes, left_out_notes


def reading_notes(dataset: Any) -> list[str]:
    """What of the folder of a data set is not read or looks like a mistake, a message each, without its config key."""
    own = getattr(dataset, "notes", None)
    folders, notes = folders_of(dataset), list(own()) if callable(own) else []
    notes += left_out_notes(folders) if folders is not None else ()
    of_table = isinstance(dataset, CsvImages | HuggingFaceImages)
    return [*notes, *class_name_notes(class_names(dataset) or (), of_table=of_table)]


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

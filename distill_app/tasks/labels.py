"""What is wrong with the labels of a classifier's images: kinds of values, and classes that there are not."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
from torch import Tensor

from distill_app.data.labels import item_target, kept_labels, numbers, targets_of
from distill_app.errors import DataError
from distill_app.seeds import generator_kept

READ = 16  # items that are loaded to compare their labels with the list of the data set
_IGNORED = 255  # in masks and label files, "none of the classes"


def class_label_problems(dataset: Any, *, num_classes: int) -> list[str]:
    """What keeps labels from being one class each, without the config key; the first kind of problem that is found.

    The whole list that the data set keeps is looked at, and the labels of some items; without a list, all items are
    read, up to a number of them.

    Args:
        dataset: Of (image, label), or of dicts with `target`.
        num_classes: Labels are whole numbers below this.
    """
    kept = kept_labels(dataset)
    try:
        labels = targets_of(dataset) if kept is None else kept
    except DataError:  # too many to read; whoever needs all of them says so
        labels = []
    if kept is None and len(labels):
        items = dict(enumerate(labels))
    else:
        spread = np.linspace(0, len(dataset) - 1, min(READ, len(dataset))).astype(int)
        items = dict(_items(dataset, np.unique(spread).tolist()))
    problems = _kind_problems(items, num_classes=num_classes) or (_list_problems(labels) if len(labels) else [])
    if problems:
        return problems
    array = _single(labels) if len(labels) else None
    if array is None:
        return _range_problems(np.array([int(label) for label in items.values()], np.int64), num_classes)
    return _range_problems(array, num_classes) or _contradictions(items, array)


def _items(dataset: Any, indices: Iterable[int]) -> Iterable[tuple[int, Any]]:
    with generator_kept():
        for index in indices:
            try:
                yield index, item_target(dataset, index)
            except DataError:
                raise
            except Exception:  # an image that cannot be read is the business of runtime.corrupt_images
                continue


def _kind_problems(items: dict[int, Any], *, num_classes: int) -> list[str]:
    """Labels of items that do not collate to one int64 each."""
    wrong = {index: kind for index, label in items.items() if (kind := _kind(label)) is not None}
    if not wrong:
        return []
    kind, count = Counter(wrong.values()).most_common(1)[0]
    index = next(index for index, other in wrong.items() if other == kind)
    return [
        f"labels are {kind}, in {count} of the {len(items)} items read ({_short(items[index])} in item {index}), and a "
        f"class is a whole number from 0 to {num_classes - 1}; {_remedy(kind, items[index])}"
    ]


def _kind(label: Any) -> str | None:
    """What a label is, None where it is one whole number."""
    if isinstance(label, Tensor | np.ndarray | list | tuple):
        array = label.numpy() if isinstance(label, Tensor) else np.asarray(label)
        if array.ndim:
            return (
                f"arrays of one number, of shape {array.shape}"
                if array.size == 1
                else f"vectors of {len(array)} numbers"
            )
        label = array[()]
    if isinstance(label, bool | np.bool_):
        return "true or false"
    if isinstance(label, float | np.floating):
        return "floats"
    if isinstance(label, int | np.integer):
        return None
    return "text" if isinstance(label, str | bytes) else f"of type {type(label).__name__}"


def _remedy(kind: str, label: Any) -> str:
    if kind.startswith("vectors"):
        vector = np.asarray(label)
        if vector.dtype.kind in "biuf" and (vector != 0).sum() == 1 and vector.max() == 1:
            return "these are one-hot: return their argmax"
        return "for several labels an image another task is needed (dataset.task)"
    if kind == "text":
        return "return the position in the sorted list of class names"
    if kind.startswith("of type"):
        return "return an int"
    return "return int(label)"


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def _list_problems(labels: Any) -> list[str]:
    """A list of which the items are right, and that holds no whole numbers itself."""
    single = _single(labels)
    if single is None:
        odd = next((index for index, label in enumerate(labels) if _kind(label) not in (None, "floats")), 0)
        return [
            f"the data set's list of labels holds other things than single numbers (for item {odd}: "
            f"{_short(labels[odd])}), unlike its items; let `targets` be a list of whole numbers, one for each item"
        ]
    broken = np.flatnonzero(single != np.floor(single))
    if not len(broken):
        return []
    first = f"{broken[0]} ({single[broken[0]]:g})"
    return [f"{len(broken)} of {len(single)} labels are no whole numbers, first that of item {first}"]


def _single(labels: Any) -> np.ndarray | None:
    """Labels as one number each, None where they are something else."""
    array = numbers(labels)
    if array is not None and array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    return array if array is not None and array.ndim == 1 else None


def _range_problems(labels: np.ndarray, num_classes: int) -> list[str]:
    wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if not len(wrong):
        return []
    low, high = labels.min(), labels.max()
    return [
        f"labels go from {low:g} to {high:g}, and num_classes={num_classes} means 0 to {num_classes - 1}: {len(wrong)} "
        f"of {len(labels)} lie outside, first that of item {wrong[0]} ({labels[wrong[0]]:g}); "
        f"{_range_remedy(labels, num_classes)}"
    ]


def _range_remedy(labels: np.ndarray, num_classes: int) -> str:
    low, high = int(labels.min()), int(labels.max())
    leave_out = "leave these images out, for example by torch.utils.data.Subset"
    if low < 0:
        return f"negative labels often mean that there is no class: {leave_out}"
    if high == _IGNORED and len(rest := labels[labels != _IGNORED]) and rest.max() < num_classes:
        return f"{_IGNORED} often means that there is no class: {leave_out}"
    if low == 1 and high == num_classes:
        return f"they count from 1: let the data set subtract 1, or set num_classes={high + 1}"
    return f"set num_classes={high + 1} if there are as many classes, or map the labels to 0 to {num_classes - 1}"


def _contradictions(items: dict[int, Any], listed: np.ndarray) -> list[str]:
    """Items whose label is another one than the list has: splits and budgets would be of other classes."""
    for index, label in items.items():
        if int(label) != int(listed[index]):
            return [
                f"the data set's list of labels has {int(listed[index])} for item {index}, and the item itself has "
                f"{int(label)}; let them agree: splits and label budgets are made by the list"
            ]
    return []

"""Which images a stage may see: the held-out validation split and the label budget, both per class."""

from typing import Any

import numpy as np
from torch.utils.data import ConcatDataset, Subset

from distill_app.errors import DataError
from distill_app.seeds import generator_kept, permutation

# Past this, reading every item only for its label would take minutes, before the first batch, in silence.
MAX_READ_FOR_LABELS = 20_000


def labels_of(dataset: Any) -> np.ndarray:
    """The label of every item, int64, without reading images wherever the data set keeps its labels.

    Raises:
        DataError: A large data set that has neither `targets` nor `labels` nor `samples`.
    """
    if isinstance(dataset, Subset):
        return labels_of(dataset.dataset)[np.asarray(dataset.indices, dtype=np.int64)]
    if isinstance(dataset, ConcatDataset):
        return np.concatenate([labels_of(part) for part in dataset.datasets])
    for name in ("targets", "labels"):
        if getattr(dataset, name, None) is not None:
            return np.asarray(getattr(dataset, name), dtype=np.int64)
    if getattr(dataset, "samples", None) is not None:
        return np.asarray([label for _, label in dataset.samples], dtype=np.int64)
    if len(dataset) > MAX_READ_FOR_LABELS:
        raise DataError(
            f"dataset: {type(dataset).__name__} has no list of labels, and {len(dataset)} items are too many "
            "to read for them; give it an attribute `targets`"
        )
    with generator_kept():
        items = (dataset[index] for index in range(len(dataset)))
        return np.asarray([int(item["target"] if isinstance(item, dict) else item[1]) for item in items], np.int64)


def hold_out(labels: np.ndarray, *, fraction: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Divides the training images into (train, validation) indices, the same share of every class, ascending.

    Args:
        labels: (N,) of all training images.
        fraction: share of each class that goes to validation, in [0, 1).
        seed: fixed rather than the run's, so that runs of several seeds compare on the same images.

    Raises:
        DataError: A fraction outside of [0, 1), or one so small that no image is held out.
    """
    if not 0 <= fraction < 1:
        raise DataError(f"dataset.validation_fraction: from 0 to below 1, not {fraction}")
    held = [
        members[: round(fraction * len(members))]
        for members in (_shuffled(labels, label, "hold_out", seed) for label in np.unique(labels))
    ]
    validation = np.sort(np.concatenate([*held, np.empty(0, np.int64)]))
    if fraction and not len(validation):
        raise DataError(
            f"dataset.validation_fraction: {fraction} of {len(labels)} images holds none out; raise it, or "
            "set 0 to evaluate the epochs on the test set"
        )
    return np.setdiff1d(np.arange(len(labels)), validation), validation


def budget(labels: np.ndarray, indices: np.ndarray, *, per_class: int | None, seed: int = 0) -> np.ndarray:
    """The indices that a stage may see: `per_class` of every class, ascending; a smaller budget is a subset.

    Args:
        labels: (N,) of all training images.
        indices: those left after `hold_out`.
        per_class: images of each class; None: all.
        seed: as in `hold_out`.

    Raises:
        DataError: A budget below one, or a class that has fewer images.
    """
    if per_class is None:
        return np.sort(indices)
    if per_class < 1:
        raise DataError(f"dataset.student_labels_per_class: at least 1, or null for all, not {per_class}")
    chosen = []
    for label in np.unique(labels):
        members = _shuffled(labels, label, "budget", seed)
        members = members[np.isin(members, indices)]
        if len(members) < per_class:
            raise DataError(
                f"dataset.student_labels_per_class: {per_class} was given, but class {label} has "
                f"{len(members)} training images; lower it, or set null for all"
            )
        chosen.append(members[:per_class])
    return np.sort(np.concatenate(chosen))


def _shuffled(labels: np.ndarray, label: int, purpose: str, seed: int) -> np.ndarray:
    members = np.flatnonzero(labels == label)
    return members[permutation(len(members), purpose, seed, int(label))]

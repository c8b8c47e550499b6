"""Which images a stage may see: the held-out validation split and the label budget, both per class."""

import numpy as np

from distill_app.errors import DataError
from distill_app.seeds import permutation

SHARE = 0.1  # of each class, where data of one's own have no images for validation and nothing is said


def share_held_out(fraction: float | None) -> float:
    """The share of each class that judges epochs, where the data have no images for that."""
    return SHARE if fraction is None else fraction


def hold_out(
    labels: np.ndarray, *, fraction: float, seed: int = 0, key: str = "dataset.validation_fraction"
) -> tuple[np.ndarray, np.ndarray]:
    """Divides the training images into (train, validation) indices, the same share of every class, ascending.

    Args:
        labels: (N,) of all training images; where there are none, all zeros: all are divided alike.
        fraction: share of each class that goes to validation, in [0, 1).
        seed: fixed rather than the run's, so that runs of several seeds compare on the same images.
        key: where the fraction stands in the config.

    Raises:
        DataError: A fraction outside of [0, 1), or one so small that no image is held out.
    """
    if not 0 <= fraction < 1:
        raise DataError(f"{key}: from 0 to below 1, not {fraction}")
    held = [
        members[: round(fraction * len(members))]
        for members in (_shuffled(labels, label, "hold_out", seed) for label in np.unique(labels))
    ]
    validation = np.sort(np.concatenate([*held, np.empty(0, np.int64)]))
    if fraction and not len(validation):
        raise DataError(
            f"{key}: {fraction} of {len(labels)} images in {len(np.unique(labels))} classes holds none out; raise it, "
            f"or set 0 to evaluate the epochs on the test set"
        )
    return np.setdiff1d(np.arange(len(labels)), validation), validation


def budget(
    labels: np.ndarray,
    indices: np.ndarray,
    *,
    per_class: int | None,
    seed: int = 0,
    key: str = "dataset.student_labels_per_class",
) -> np.ndarray:
    """The indices that a stage may see: `per_class` of every class, ascending; a smaller budget is a subset.

    Args:
        labels: (N,) of all training images.
        indices: those left after `hold_out`.
        per_class: images of each class; None: all.
        seed: as in `hold_out`.
        key: where the budget stands in the config.

    Raises:
        DataError: A budget below one, or a class that has fewer images.
    """
    if per_class is None:
        return np.sort(indices)
    if per_class < 1:
        raise DataError(f"{key}: at least 1, or null for all, not {per_class}")
    chosen, short = [], {}
    for label in np.unique(labels):
        members = _shuffled(labels, label, "budget", seed)
        members = members[np.isin(members, indices)]
        if len(members) < per_class:
            short[int(label)] = len(members)
        chosen.append(members[:per_class])
    if short:
        label, fewest = min(short.items(), key=lambda item: item[1])
        more = f" (and {len(short) - 1} more classes too few)" if len(short) > 1 else ""
        most = f"lower it to {fewest}" if fewest else "lower the validation_fraction"
        raise DataError(
            f"{key}: {per_class} was given, but class {label} has {fewest} training images{more}; {most}, or set null "
            f"for all"
        )
    return np.sort(np.concatenate(chosen))


def _shuffled(labels: np.ndarray, label: int, purpose: str, seed: int) -> np.ndarray:
    members = np.flatnonzero(labels == label)
    return members[permutation(len(members), purpose, seed, int(label))]


def spread(indices: np.ndarray, most: int) -> np.ndarray:
    """So many of some indices, at even distances: of images in the order of their classes some of each."""
    count = min(most, len(indices))
    return indices[np.arange(count) * len(indices) // max(count, 1)]

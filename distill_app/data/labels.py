"""The labels of a data set: as it keeps them, as its items have them, and as whole numbers to split by."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import ConcatDataset, Subset, TensorDataset

from distill_app.errors import DataError
from distill_app.seeds import generator_kept

# Past this, reading every item only for its label would take minutes, before the first batch, in silence.
MAX_READ_FOR_LABELS = 20_000


def kept_labels(dataset: Any) -> Any:
    """The label of every item as the data set keeps them, without reading images; None where it keeps none.

    They lie in `targets`, `labels` or `samples`; a `target_transform` of the data set's own is applied to them.
    """
    if isinstance(dataset, Subset):
        labels = kept_labels(dataset.dataset)
        return None if labels is None else [labels[index] for index in dataset.indices]
    if isinstance(dataset, ConcatDataset):
        parts = [kept_labels(part) for part in dataset.datasets]
        return None if any(part is None for part in parts) else [label for part in parts for label in part]
    if isinstance(dataset, TensorDataset):
        return dataset.tensors[1].numpy() if len(dataset.tensors) == 2 else None
    labels = next(
        (kept for name in ("targets", "labels") if _is_list(kept := getattr(dataset, name, None), dataset)), None
    )
    if labels is None and _is_list(getattr(dataset, "samples", None), dataset):
        labels = [sample[1] for sample in dataset.samples]
    if isinstance(labels, Tensor):
        labels = labels.cpu().numpy()
    transform = getattr(dataset, "target_transform", None)
    if labels is None or transform is None:
        return labels
    return [transform(label) for label in (labels.tolist() if isinstance(labels, np.ndarray) else labels)]


def _is_list(labels: Any, dataset: Any) -> bool:
    # Some data sets call the names of their classes `labels`.
    return isinstance(labels, list | tuple | np.ndarray | Tensor) and len(labels) == len(dataset)


def item_target(dataset: Any, index: int) -> Any:
    """The target that an item has when it is loaded."""
    item = dataset[index]
    return item["target"] if isinstance(item, Mapping) else item[1]


def targets_of(dataset: Any) -> Any:
    """The target of every item, as the data set keeps them, else as the items have them.

    Raises:
        DataError: A large data set that has neither `targets` nor `labels` nor `samples`.
    """
    targets = kept_labels(dataset)
    if targets is not None:
        return targets
    if len(dataset) > MAX_READ_FOR_LABELS:
        raise DataError(
            f"dataset: {type(dataset).__name__} has no list of labels, and {len(dataset)} items are too many "
            "to read for them; give it an attribute `targets`"
        )
    with generator_kept():
        return [item_target(dataset, index) for index in range(len(dataset))]


def numbers(targets: Any) -> np.ndarray | None:
    """Targets as one array of numbers, one row each; None where they are something else, or of several lengths."""
    if not isinstance(targets, np.ndarray):
        targets = [target.numpy() if isinstance(target, Tensor) else target for target in targets]
    try:
        array = np.asarray(targets)
    except ValueError:
        return None
    return array if array.dtype.kind in "biuf" and array.ndim else None


def labels_of(dataset: Any) -> np.ndarray:
    """The label of every item, int64 (N,), without reading images wherever the data set keeps its labels.

    Raises:
        DataError: Labels that are not one whole number each, or a large data set that has no list of them.
    """
    array = numbers(targets_of(dataset))
    if array is not None and array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array is not None and array.ndim == 1 and np.array_equal(whole := array.astype(np.int64), array):
        return whole
    raise DataError(f"dataset: the labels of {type(dataset).__name__} are not one whole number each")


def class_names(dataset: Any) -> list[str] | None:
    """The names of the classes in the order of their labels, None for a data set that does not say."""
    names = getattr(dataset, "classes", None)
    return [str(name) for name in names] if isinstance(names, list | tuple) else None

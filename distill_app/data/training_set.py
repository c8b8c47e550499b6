"""Which images of a data set a stage trains on, and which judge its epochs."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from distill_app.config.plan import StagePlan
from distill_app.data.split import budget, hold_out, share_held_out
from distill_app.errors import DataError


@dataclass(frozen=True)
class TrainingSet:
    """Which images of the training data set a stage trains on, and which judge its epochs."""

    dataset: Any
    labels: np.ndarray | None  # of all its images; None where they have no single label
    train: np.ndarray  # indices, within the label budget
    validation: np.ndarray


def training_set(plan: StagePlan, dataset: Any, labels: np.ndarray | None, *, task: Any) -> TrainingSet:
    """Divides a training data set for a stage.

    Args:
        plan: The stage.
        dataset: Of all images that are not for the test.
        labels: Of all its images; None where they have no single label.
        task: Of the stage's data.

    Raises:
        DataError: A budget or split that the data cannot give.
    """
    conf, key, per_class = plan.data, plan.data_key, plan.conf.labels_per_class
    hidden = unlabelled(dataset, plan)
    train, validation = np.setdiff1d(np.arange(len(dataset)), hidden), np.arange(0)
    if (own := own_validation(dataset)) is not None:
        validation, train = own, np.setdiff1d(train, own)
    elif fraction := share_held_out(conf.validation_fraction):
        alike = np.zeros(len(dataset), np.int64)
        given = (alike if labels is None else labels)[train]
        held = hold_out(given, fraction=fraction, key=f"{key}.validation_fraction")
        train, validation = train[held[0]], train[held[1]]
    of_data = per_class == conf.student_labels_per_class
    where = f"{key}.student_labels_per_class" if of_data else f"{plan.key}.labels_per_class"
    seen = hidden if plan.conf.unlabelled else hidden[:0]
    if labels is not None:
        train = budget(labels, train, per_class=per_class, key=where)
        return TrainingSet(dataset, labels, np.concatenate([train, seen]), validation)
    if per_class is not None:
        raise DataError(
            f"{where}: {per_class} was given, but samples of {conf.name} have no single label by which "
            f"{type(task).__name__} could count them; set {where}=null, or give the task a method `labels`"
        )
    return TrainingSet(dataset, None, np.sort(np.concatenate([train, seen])), validation)


def own_validation(dataset: Any) -> np.ndarray | None:
    """Indices of the images that a data set itself has for validation, its `validation`; None where it has none."""
    own = getattr(dataset, "validation", None)
    return np.asarray(own, dtype=np.int64) if isinstance(own, list | np.ndarray) else None


def unlabelled(dataset: Any, plan: StagePlan) -> np.ndarray:
    """Indices of the images of which a data set has no target, its `unlabelled`.

    Raises:
        DataError: A stage is to see such images, and there are none; or these are no indices of its images.
    """
    hidden = np.asarray(getattr(dataset, "unlabelled", ()), dtype=np.int64)
    if plan.conf.unlabelled and not len(hidden):
        raise DataError(
            f"{plan.key}.unlabelled: {plan.data.name} has no images without targets; FashionDet has them by "
            f"`labelled`, CocoDetection by `unlabelled`, a data set of your own by an attribute `unlabelled`, a list "
            f"of their indices"
        )
    if len(hidden) and not (hidden.min() >= 0 and hidden.max() < len(dataset)):
        raise DataError(
            f"{plan.data.name}: its `unlabelled` are indices from {hidden.min()} to {hidden.max()}, and it has "
            f"{len(dataset)} images"
        )
    return hidden

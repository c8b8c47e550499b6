"""Image classification: one class for each image."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn import functional

from distill_app.data.labels import numbers, targets_of
from distill_app.runs.metrics import Metric
from distill_app.tasks.base import Sums
from distill_app.tasks.images import LogitTask, logits_of
from distill_app.tasks.labels import class_label_problems

_TOP5_FROM = 10  # classes; of fewer, the five best say little


class Classification(LogitTask):
    """Images in, the logits of classes out.

    Metrics: accuracy; top5 from 10 classes on; loss, the cross-entropy in nats; agreement, the share of answers that
    are the teacher's. A target may be a class, or the shares of all classes: then the largest share is the class.

    Args:
        normalize: `mean` and `std` per channel, of images scaled to [0, 1].
        num_classes: How many classes there are.
    """

    def __init__(self, *, normalize: Any, num_classes: int):
        super().__init__(normalize=normalize, num_classes=num_classes)
        self.metrics = [
            Metric("accuracy", percent=True),
            *([Metric("top5", percent=True, table=False)] if num_classes >= _TOP5_FROM else []),
            Metric("loss", direction="min", table=False),
            Metric("agreement", percent=True),
        ]

    def labels(self, dataset: Any) -> np.ndarray | None:
        """The class of every item; None where targets are no single numbers."""
        array = numbers(targets_of(dataset))
        return array.astype(np.int64) if array is not None and array.ndim == 1 else None

    def label_problems(self, dataset: Any) -> list[str]:
        """Labels that are not one class each; a task derived from this one may have targets of another kind."""
        own = type(self) is not Classification
        return [] if own else class_label_problems(dataset, num_classes=self.num_classes)

    def class_logits(self, tap: str) -> int | None:
        return self.num_classes if tap in ("logits", "output") else None

    def start(self) -> Sums:
        return {"count": 0, "compared": 0}

    def add(self, sums: Sums, answer: Any, batch: Mapping[str, Any]) -> None:
        logits, target = logits_of(answer), batch["target"]
        label = target.argmax(dim=1) if target.dim() == 2 else target
        found = {"accuracy": (logits.argmax(dim=1) == label).sum()}
        if self.num_classes >= _TOP5_FROM:
            best = logits.topk(min(5, logits.shape[1]), dim=1).indices
            found["top5"] = (best == label.unsqueeze(1)).any(dim=1).sum()
        found["loss"] = functional.cross_entropy(logits.float(), target, reduction="sum").double()
        sums["count"] += len(target)
        _add(sums, found)

    def compare(self, sums: Sums, answer: Any, other: Any, batch: Mapping[str, Any]) -> None:
        same = (logits_of(answer).argmax(dim=1) == logits_of(other).argmax(dim=1)).sum()
        sums["compared"] += len(batch["target"])
        _add(sums, {"agreement": same})

    def figures(self, sums: Sums) -> dict[str, Any]:
        return {
            metric.name: float(sums[metric.name]) / sums["compared" if metric.name == "agreement" else "count"]
            for metric in self.metrics
            if metric.name in sums
        }


def _add(sums: Sums, found: Mapping[str, Tensor]) -> None:
    for name, value in found.items():
        sums[name] = sums.get(name, 0) + value

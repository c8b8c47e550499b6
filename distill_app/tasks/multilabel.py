"""Several labels for each image, each of them there or not."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from distill_app.data.labels import numbers, targets_of
from distill_app.runs.metrics import Metric
from distill_app.tasks.base import Sums
from distill_app.tasks.images import LogitTask, logits_of


class MultiLabel(LogitTask):
    """Images in, a logit for each of C attributes out; a target is float (C,), of ones and zeros.

    Metrics: mAP, the mean over classes of the average precision; average_precision, one for each class; loss, the
    mean binary cross-entropy in nats; agreement, the share of yes-or-no answers (logit above 0) that are the teacher's.
    Classes without one positive image have no average precision, and no part in the mean. All scores are kept until the
    end, so that mAP is exact: 5 bytes for each image and class.

    There is no one label for each image: no label budgets, and validation images are drawn from all alike.

    Args:
        normalize: `mean` and `std` per channel, of images scaled to [0, 1].
        num_classes: C.
    """

    metrics = (
        Metric("mAP", percent=True),
        Metric("average_precision", percent=True, table=False),
        Metric("loss", direction="min", table=False),
        Metric("agreement", percent=True),
    )

    def label_problems(self, dataset: Any) -> list[str]:
        """Targets that are not C numbers from 0 to 1 each."""
        array = numbers(targets_of(dataset))
        allowed = f"a target is a vector of {self.num_classes} numbers, 1 for a label that is there and 0 for others"
        if array is None:
            return [f"targets are no numbers, or not of one length; {allowed}"]
        if array.ndim != 2 or array.shape[1] != self.num_classes:
            shape = "x".join(map(str, array.shape[1:])) or "one number"
            return [f"targets are of shape {shape}; {allowed} (dataset.num_classes)"]
        outside = ((array < 0) | (array > 1)).any(axis=1).sum()
        return [f"{outside} of {len(array)} targets have numbers outside of [0, 1]; {allowed}"] if outside else []

    @property
    def scores(self) -> str:
        return "sigmoid"

    def start(self) -> Sums:
        return {"scores": [], "targets": [], "loss": 0, "same": 0, "compared": 0}

    def add(self, sums: Sums, answer: Any, batch: Mapping[str, Any]) -> None:
        logits, target = logits_of(answer).float(), batch["target"].float()
        sums["scores"].append(logits)
        sums["targets"].append(target > 0.5)
        sums["loss"] += functional.binary_cross_entropy_with_logits(logits, target, reduction="sum").double()

    def compare(self, sums: Sums, answer: Any, other: Any, batch: Mapping[str, Any]) -> None:
        same = (logits_of(answer) > 0) == (logits_of(other) > 0)
        sums["same"] += same.sum()
        sums["compared"] += same.numel()

    def figures(self, sums: Sums) -> dict[str, Any]:
        scores, targets = torch.cat(sums["scores"]), torch.cat(sums["targets"])
        each = [average_precision(scores[:, index], targets[:, index]) for index in range(scores.shape[1])]
        defined = [value for value in each if value is not None]
        found = {
            "mAP": sum(defined) / len(defined) if defined else None,
            "average_precision": each,
            "loss": float(sums["loss"]) / scores.numel(),
        }
        return found | ({"agreement": float(sums["same"]) / sums["compared"]} if sums["compared"] else {})


def average_precision(scores: Tensor, positive: Tensor) -> float | None:
    """Area under the precision-recall curve as a step function: sum_n (R_n - R_(n-1)) P_n over distinct scores.

    Equal scores count as one step, so that their order plays no part; nothing is interpolated.

    Args:
        scores: (N,), higher is more likely.
        positive: (N,) bool.

    Returns:
        None where nothing is positive.
    """
    total = int(positive.sum())
    if not total:
        return None
    ranked, order = scores.double().sort(descending=True)
    hits = positive[order].double().cumsum(0)
    last = torch.ones_like(positive)  # of the samples of one score
    last[:-1] = ranked[1:] != ranked[:-1]
    precision = hits / torch.arange(1, len(hits) + 1, device=hits.device)
    gained = torch.diff(hits[last], prepend=hits.new_zeros(1)) / total
    return float((gained * precision[last]).sum())

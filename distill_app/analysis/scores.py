"""Answers of a classifier, kept sample by sample in a few numbers, and what becomes of them."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

BINS = 15


@dataclass
class Answered:
    """The answers of one network over a data set: for each sample a class and how sure of it the network is."""

    predicted: list[Tensor] = field(default_factory=list)
    confidence: list[Tensor] = field(default_factory=list)

    def add(self, logits: Tensor) -> None:
        """Adds a batch of logits (B, C)."""
        sure, best = logits.float().softmax(dim=1).max(dim=1)
        self.predicted.append(best.cpu())
        self.confidence.append(sure.double().cpu())

    def joined(self) -> tuple[Tensor, Tensor]:
        """Classes (N,) and confidences (N,) of all samples."""
        return torch.cat(self.predicted), torch.cat(self.confidence)


def confusion(labels: Tensor, predicted: Tensor, *, classes: int) -> Tensor:
    """How often each class was taken for each: (C, C), true classes in rows.

    Args:
        labels: (N,).
        predicted: (N,).
        classes: C.
    """
    counts = torch.bincount(labels * classes + predicted, minlength=classes * classes)
    return counts.reshape(classes, classes)


def by_class(matrix: Tensor) -> list[dict[str, Any]]:
    """For each class how many samples it has, which share of them was found (accuracy), and which share of those that
    were taken for it are of it (precision); None where there is nothing to divide by.

    Args:
        matrix: As `confusion` gives it.
    """
    hits, true, taken = matrix.diagonal(), matrix.sum(dim=1), matrix.sum(dim=0)
    return [
        {
            "count": int(true[index]),
            "accuracy": _share(hits[index], true[index]),
            "precision": _share(hits[index], taken[index]),
        }
        for index in range(len(matrix))
    ]


def _share(part: Tensor, whole: Tensor) -> float | None:
    return float(part) / float(whole) if whole else None


def calibration(confidence: Tensor, correct: Tensor, *, bins: int = BINS) -> dict[str, Any]:
    """How far confidences are the shares of right answers, in bins of equal width.

    ECE, the expected calibration error (Guo et al. 2017, https://arxiv.org/abs/1706.04599), is the mean over samples of
    |accuracy - confidence| of their bin; MCE the largest of any bin that has samples. A bin holds what lies above its
    lower end and up to its upper one.

    Args:
        confidence: (N,), of the class that was answered.
        correct: (N,), bool.
        bins: How many there are.

    Returns:
        `ece`, `mce`, mean `confidence`, and `bins` with count, and mean confidence and accuracy where it is not empty.
    """
    place = (confidence * bins).ceil().long().sub(1).clamp(0, bins - 1)
    count = torch.bincount(place, minlength=bins)
    sure = torch.bincount(place, weights=confidence.double(), minlength=bins)
    right = torch.bincount(place, weights=correct.double(), minlength=bins)
    gaps = (right - sure).abs()
    filled = count > 0
    entries = [
        {"count": int(n), "confidence": _share(s, n), "accuracy": _share(r, n)}
        for n, s, r in zip(count, sure, right, strict=True)
    ]
    return {
        "ece": float(gaps.sum() / len(confidence)),
        "mce": float((gaps[filled] / count[filled]).max()),
        "confidence": float(confidence.mean()),
        "bins": entries,
    }


def fidelity(*, labels: Tensor, student: Tensor, teacher: Tensor, divergence: float) -> dict[str, Any]:
    """How far the student answers as the teacher does.

    Fidelity as in Stanton et al. 2021, https://arxiv.org/abs/2106.05945: the share of samples with the same class, and
    the mean KL(teacher || student) of the class probabilities.

    Args:
        labels: (N,).
        student: Classes (N,).
        teacher: Classes (N,).
        divergence: The mean divergence, in nats.
    """
    mine, theirs = student == labels, teacher == labels
    return {
        "agreement": float((student == teacher).double().mean()),
        "kl": divergence,
        "both_right": float((mine & theirs).double().mean()),
        "only_teacher": float((~mine & theirs).double().mean()),
        "only_student": float((mine & ~theirs).double().mean()),
        "both_wrong": float((~mine & ~theirs).double().mean()),
        "same_mistake": float((~mine & (student == teacher)).double().mean()),
    }


def divergences(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(teacher || student) of the class probabilities of logits (B, C), in nats: (B,)."""
    mine, theirs = student.double().log_softmax(dim=1), teacher.double().log_softmax(dim=1)
    return (theirs.exp() * (theirs - mine)).sum(dim=1)

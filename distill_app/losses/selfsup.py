"""Losses of self-supervision KD (SSKD): Xu, Liu, Li, Loy 2020, https://arxiv.org/abs/2006.07114.

Rows are grouped by image: with `views` = 4, rows 0..3 are the upright first image and its three rotations, rows 4..7
the second image. The labels are one per image. Cross-entropy and KD on the upright images alone need no loss of their
own: `adapters.SelectView` gives the upright rows.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill_app.losses.logits import softened_kl
from distill_app.losses.numerics import (
    as_target,
    directions,
    full_precision,
    require_at_least,
    require_positive,
    require_same_batch,
    require_same_shape,
    require_share,
)


def _by_image(rows: Tensor, views: int, *, loss: str) -> Tensor:
    """(B * views, D) -> (B, views, D)."""
    if rows.dim() != 2 or len(rows) % views:
        raise ValueError(
            f"{loss} needs (images x views, D) rows grouped by image, got {tuple(rows.shape)} with views={views}"
        )
    return rows.unflatten(0, (-1, views))


def _require_views(rows: Tensor, views: int, target: Tensor | None, *, loss: str) -> None:
    """Refuses rows that are not `views` for each label: they would be paired with those of other images.

    Raises:
        ValueError: They are more or fewer.
    """
    if target is not None and len(target) * views != len(rows):
        raise ValueError(
            f"{loss} needs one label an image: {len(rows)} rows with views={views} want {len(rows) // views} labels, "
            f"got {len(target)}"
        )


def view_similarity(embedding: Tensor, views: int, *, loss: str) -> Tensor:
    """Cosines of every rotated view with every upright one: (B * views, D) -> (B * (views - 1), B)."""
    grouped = directions(_by_image(full_precision(embedding), views, loss=loss), dim=2)
    return grouped[:, 1:].flatten(0, 1) @ grouped[:, 0].T


def error_level_mask(scores: Tensor, target: Tensor, keep: float) -> Tensor:
    """Which rows of a teacher's scores to learn from: all right ones, and the least wrong share of the others.

    How wrong a row is, is the rank of its target among its scores. Rows of equal rank are taken in their order.

    Args:
        scores: (N, C).
        target: (N,), the right column of each row.
        keep: Share of the wrong rows, rounded down.

    Returns:
        (N,) bool; computed without waiting for the device.
    """
    rank = (scores > scores.gather(1, target.unsqueeze(1))).sum(dim=1)
    wrong = (rank > 0).sum()
    kept = len(rank) - wrong + (wrong * keep).floor().long()
    order = rank.argsort(stable=True)
    position = torch.empty_like(order).scatter_(0, order, torch.arange(len(rank), device=rank.device))
    return position < kept


def _mean_of_kept(rows: Tensor, kept: Tensor) -> Tensor:
    return torch.where(kept, rows, 0.0).sum() / kept.sum().clamp(min=1)


class ContrastivePrediction(nn.Module):
    """SSKD, stage 1: which upright image of the batch does a rotated view come from?

    L = mean over rotated views of CE(cosines with all upright images, own image); no temperature.

    It trains the teacher's `adapters.SelfSupervisedHead`, whose output (B * views, D) is `embedding`.

    Args:
        views: Rows per image, the upright one first; 2 or more.
    """

    whole_batch = True

    def __init__(self, views: int = 4):
        super().__init__()
        require_at_least(views, 2, argument="views")
        self.views = views

    def forward(self, embedding: Tensor, target: Tensor | None = None) -> Tensor:
        """The loss, a scalar; labels (B,), if there are, say nothing but how many images these are of.

        Raises:
            ValueError: Rows that do not fit `views` or the labels.
        """
        _require_views(embedding, self.views, target, loss="ContrastivePrediction")
        similarity = view_similarity(embedding, self.views, loss="ContrastivePrediction")
        return F.cross_entropy(similarity, _own_image(similarity, self.views))


class SimilarityKL(nn.Module):
    """SSKD, stage 2: the student's head finds the similarities between views that the teacher's head finds.

    L = T^2 * mean over kept rotated views of KL(softmax(S_t / T) || softmax(S_s / T)), S the cosines with all upright
    images. Kept are the views that the teacher assigns rightly and the least wrong share of the others.

    Args:
        temperature: 0.5 in the authors' code.
        views: Rows per image, the upright one first; 2 or more.
        keep: Share of wrongly assigned views; 0.75 in the authors' code.
    """

    whole_batch = True

    def __init__(self, temperature: float = 0.5, *, views: int = 4, keep: float = 0.75):
        super().__init__()
        require_positive(temperature, argument="temperature")
        require_at_least(views, 2, argument="views")
        require_share(keep, argument="keep")
        self.temperature, self.views, self.keep = temperature, views, keep

    def forward(self, student: Tensor, teacher: Tensor, target: Tensor | None = None) -> Tensor:
        """The loss, a scalar, of embeddings (B * views, D_s) and (B * views, D_t).

        Labels (B,), if there are, say nothing but how many images these are of.

        Raises:
            ValueError: Rows that do not fit `views` or the labels, or batches that differ.
        """
        require_same_batch(student, teacher, loss="SimilarityKL")
        _require_views(student, self.views, target, loss="SimilarityKL")
        found = view_similarity(student, self.views, loss="SimilarityKL")
        wanted = view_similarity(as_target(teacher), self.views, loss="SimilarityKL")
        kept = error_level_mask(wanted, _own_image(wanted, self.views), self.keep)
        return _mean_of_kept(softened_kl(found, wanted, self.temperature), kept)


class RotatedKL(nn.Module):
    """SSKD, stage 2: KD on the rotated views, those only on which the teacher is not too wrong.

    L = T^2 * mean over kept rotated views of KL(softmax(z_t / T) || softmax(z_s / T)). Kept are the views that the
    teacher classifies rightly and the least wrong share of the others.

    Args:
        temperature: 4 in the authors' code.
        views: Rows per image, the upright one first; 2 or more.
        keep: Share of wrongly classified views; 1, all of them, in the authors' code.
    """

    whole_batch = True

    def __init__(self, temperature: float = 4.0, *, views: int = 4, keep: float = 1.0):
        super().__init__()
        require_positive(temperature, argument="temperature")
        require_at_least(views, 2, argument="views")
        require_share(keep, argument="keep")
        self.temperature, self.views, self.keep = temperature, views, keep

    def forward(self, student: Tensor, teacher: Tensor, target: Tensor) -> Tensor:
        """The loss, a scalar, of logits (B * views, C) and labels (B,).

        Raises:
            ValueError: Logits that differ in shape or do not fit `views` and the labels.
        """
        require_same_shape(student, teacher, loss="RotatedKL")
        _require_views(student, self.views, target, loss="RotatedKL")
        rows = [_by_image(z, self.views, loss="RotatedKL")[:, 1:].flatten(0, 1) for z in (student, teacher)]
        found, wanted = full_precision(rows[0]), as_target(rows[1])
        kept = error_level_mask(wanted, target.repeat_interleave(self.views - 1), self.keep)
        return _mean_of_kept(softened_kl(found, wanted, self.temperature), kept)


def _own_image(similarity: Tensor, views: int) -> Tensor:
    return torch.arange(similarity.shape[1], device=similarity.device).repeat_interleave(views - 1)

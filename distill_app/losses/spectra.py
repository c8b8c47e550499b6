"""KD-SVD: how the main pattern of channels changes from one layer to the next."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill_app.losses.numerics import as_target, directions, full_precision

# How many more of the student's vectors may stand for one of the teacher's.
SPARE = 3


class SingularVectors(nn.Module):
    """KD-SVD: how much the main patterns of channels of two neighbouring layers have in common.

    L = sum over neighbouring layers of 1 / B * sum_b ||R_s - R_t||_F^2,  R_ij = exp(-(u_i - v_j)^2 / 8)

    where u and v are the first right singular vectors of the two layers' maps, as matrices (HW, C), `count` of them,
    each times its share of the teacher's singular values. Those of the student are the ones, of its first count + 3,
    that the teacher's vectors are most parallel to, with the sign that makes them so.

    Lee, Kim, Song 2018, https://arxiv.org/abs/1807.06819, in the form of RepDistiller; mdistiller takes other matrices.
    The sign of the teacher's own vectors, on which the loss depends, is the one that the decomposition happens to give,
    as in both. Deliberately different: where singular values coincide, or are zero, the gradient is damped, which would
    be infinite; elsewhere it is the exact one.

    `student` and `teacher` are lists of maps (B, C, H, W), shallow to deep, of equal channels layer by layer; sizes may
    differ.

    Args:
        count: Singular vectors of each map; 1 in the published settings.
    """

    def __init__(self, count: int = 1):
        super().__init__()
        if count < 1:
            raise ValueError(f"count={count} must be at least 1")
        self.count = count

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """The loss, a scalar.

        Raises:
            ValueError: Not the same number of maps, two or more, a side, or channels that differ.
        """
        shapes = [[tuple(feature.shape) for feature in side] for side in (student, teacher)]
        fit = [len(ours) == len(theirs) == 4 and ours[:2] == theirs[:2] for ours, theirs in zip(*shapes, strict=False)]
        if len(student) != len(teacher) or len(student) < 2 or not all(fit):
            raise ValueError(
                f"SingularVectors needs two or more maps (B, C, H, W) a side, of the same channels one by one, got "
                f"student {shapes[0]} and teacher {shapes[1]}: read each student map through an adapter "
                f"(distill_app.adapters.MatchChannels)"
            )
        layers = [self._vectors(ours, theirs) for ours, theirs in zip(student, teacher, strict=True)]
        total = full_precision(student[0]).new_zeros(())
        for (ours, theirs), (deeper, wanted) in pairwise(layers):
            total = total + (_kernel(deeper, ours) - _kernel(wanted, theirs)).square().sum() / len(ours)
        return total

    def _vectors(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """Those of both networks at one layer: (B, C, count) twice."""
        values, theirs = _decomposed(as_target(teacher), self.count)
        _, ours = _decomposed(full_precision(student), self.count + SPARE)
        alike = ours.detach().transpose(1, 2) @ theirs
        nearest = alike.abs().argmax(dim=1, keepdim=True)
        picked = ours.gather(2, nearest.expand(-1, ours.shape[1], -1)) * alike.gather(1, nearest).sign()
        shares = directions(values, dim=1).unsqueeze(1)
        return picked * shares, theirs * shares


def _kernel(deep: Tensor, shallow: Tensor) -> Tensor:
    """exp(-(u_i - v_j)^2 / 8) of every vector: (B, C, K) x (B, D, K) -> (B, C, D, K)."""
    return torch.exp(-(deep.unsqueeze(2) - shallow.unsqueeze(1)).square() / 8)


def _decomposed(feature: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The first singular values and right singular vectors of a map: (B, C, H, W) -> (B, N), (B, C, N)."""
    matrix = feature.flatten(2).transpose(1, 2)
    return _RightSingularVectors.apply(matrix, min(count, *matrix.shape[1:]))


class _RightSingularVectors(torch.autograd.Function):
    """Singular values, without gradient, and right singular vectors, whose gradient stays finite."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, count: int) -> tuple[Tensor, Tensor]:
        left, values, right = torch.linalg.svd(matrix, full_matrices=False)
        ctx.save_for_backward(left, values, right)
        picked = values[:, :count].clone()
        ctx.mark_non_differentiable(picked)
        return picked, right[:, :count].transpose(1, 2).contiguous()

    @staticmethod
    def backward(ctx: Any, _: Tensor, gradient: Tensor) -> tuple[Tensor, None]:
        left, values, right = ctx.saved_tensors
        gradient = F.pad(gradient, (0, right.shape[1] - gradient.shape[2]))  # of the vectors that were not picked: zero
        inside = right @ gradient
        squares = values.square()
        apart = squares.unsqueeze(1) - squares.unsqueeze(2)
        # Of the rotation of vectors among themselves, and of what turns them out of their span.
        among = (inside - inside.transpose(1, 2)) * _damped_inverse(apart, squares)
        outside = _damped_inverse(values, values).unsqueeze(2) * (gradient - right.transpose(1, 2) @ inside).transpose(
            1, 2
        )
        return left @ (values.unsqueeze(2) * among @ right + outside), None


def _damped_inverse(difference: Tensor, scale: Tensor) -> Tensor:
    """1 / difference, but finite near 0 in proportion to the largest of `scale` of each sample, and 0 at 0."""
    info = torch.finfo(difference.dtype)
    small = info.eps**0.75 * scale.amax(dim=1).view(-1, *[1] * (difference.dim() - 1))
    return difference / (difference.square() + small.square() + info.tiny)

"""Centred kernel alignment of the activations of two networks.

Linear CKA (Kornblith et al. 2019, https://arxiv.org/abs/1905.00414) is 1 for activations that are a rotation and a
scaling of each other and near 0 for unrelated ones, whatever their widths. It is summed up batch by batch with the
unbiased estimator of HSIC (Song et al. 2012; Nguyen et al. 2021, https://arxiv.org/abs/2010.15327), so that no batch
size biases it and maps of any size fit.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

LEAST = 4  # samples, of which the unbiased estimator is defined


class Alignment:
    """Sums over batches; the order of samples must be random, since samples meet within a batch only.

    Args:
        rows: Names of activations of one network.
        columns: Of the other one.
    """

    def __init__(self, rows: list[str], columns: list[str]):
        self.rows, self.columns = rows, columns
        self._cross = torch.zeros(len(rows), len(columns), dtype=torch.float64)
        self._rows = torch.zeros(len(rows), dtype=torch.float64)
        self._columns = torch.zeros(len(columns), dtype=torch.float64)
        self.count = 0

    def add(self, rows: Mapping[str, Tensor], columns: Mapping[str, Tensor]) -> None:
        """Adds a batch: name -> activations, (B, ...) each; fewer than four samples are left out."""
        size = len(next(iter(rows.values())))
        if size < LEAST:
            return
        mine = [gram(rows[name]) for name in self.rows]
        theirs = [gram(columns[name]) for name in self.columns]
        for i, kernel in enumerate(mine):
            self._rows[i] += hsic(kernel, kernel)
            for j, other in enumerate(theirs):
                self._cross[i, j] += hsic(kernel, other)
        for j, other in enumerate(theirs):
            self._columns[j] += hsic(other, other)
        self.count += size

    def values(self) -> list[list[float | None]]:
        """CKA of every row with every column; None where an activation is the same for all samples."""
        scale = (self._rows.clamp_min(0)[:, None] * self._columns.clamp_min(0)).sqrt()
        return [
            [float(value) if whole > 0 else None for value, whole in zip(*line, strict=True)]
            for line in zip(self._cross / scale, scale, strict=True)
        ]


def gram(activations: Tensor) -> Tensor:
    """The products of all pairs of samples, float64 (B, B), of activations (B, ...) less their mean.

    CKA does not depend on the mean; without it the products keep their digits.
    """
    flat = activations.flatten(1).float()
    flat = flat - flat.mean(dim=0)
    return (flat @ flat.T).double().cpu()


def hsic(first: Tensor, second: Tensor) -> Tensor:
    """The unbiased estimate of the Hilbert-Schmidt independence criterion, of two Gram matrices (B, B), B >= 4."""
    n = len(first)
    a, b = (matrix - torch.diag(matrix.diagonal()) for matrix in (first, second))
    total = (a * b).sum() + a.sum() * b.sum() / ((n - 1) * (n - 2)) - 2 * (a.sum(dim=0) * b.sum(dim=0)).sum() / (n - 2)
    return total / (n * (n - 3))

"""WKD: Wasserstein distances between class probabilities, and between the features of two maps."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill_app.losses.numerics import (
    as_target,
    full_precision,
    require_labels,
    require_logits,
    require_positive,
    require_same_channels,
)

EPS = 1e-8


class SinkhornDistance(nn.Module):
    """Wasserstein distance of what both networks say of the other classes (WKD-L), where likeness of classes is cheap.

    L = 1 / B * sum_b sum_ij P_b,ij D_ij,  D = relu(cost) + 1e-8

    P_b moves softmax(z_s / T) over all classes but the label to softmax(z_t / T): the plan that Sinkhorn's iterations
    give, v = q / (K^T u + 1e-8), u = p / (K v + 1e-8), P = u K v, from K = exp(-D / regularization) and an even u.

    Lv, Yang, Li 2024, https://arxiv.org/abs/2412.08139. There is no T^2, and the gradient flows through all iterations,
    as in the authors' code. It is the cost of a plan that is smoothed and after ten iterations not yet exact: not zero
    where networks agree. The label's row and column are left out by zeros in u and v: one K serves all samples.

    Logits are (B, C), labels (B,), costs (C, C) from `adapters.ClassCosts`. With two classes it is 0, without gradient.

    Args:
        temperature: Of both sides; 2 on ImageNet, 4 to 8 on CIFAR-100.
        regularization: Of the plan's entropy.
        iterations: Of Sinkhorn's.
    """

    def __init__(self, temperature: float = 2.0, *, regularization: float = 0.05, iterations: int = 10):
        super().__init__()
        require_positive(temperature, argument="temperature")
        require_positive(regularization, argument="regularization")
        require_positive(iterations, argument="iterations")
        self.temperature, self.regularization, self.iterations = temperature, regularization, iterations

    def forward(self, student: Tensor, teacher: Tensor, target: Tensor, cost: Tensor) -> Tensor:
        """The loss, a scalar.

        Raises:
            ValueError: The logits differ in shape, labels are not one for each row, or costs not those of the classes.
        """
        require_logits(student, teacher, loss="SinkhornDistance")
        require_labels(target, student, loss="SinkhornDistance")
        classes = student.shape[1]
        if tuple(cost.shape) != (classes, classes):
            raise ValueError(
                f"SinkhornDistance needs a cost for each pair of {classes} classes, got {tuple(cost.shape)}: read a "
                f"distill_app.adapters.ClassCosts"
            )
        distances = as_target(cost).relu() + EPS
        kernel = torch.exp(-distances / self.regularization)
        other = torch.ones_like(student, dtype=torch.bool).scatter_(1, target.unsqueeze(1), False)
        ours, theirs = (self._others(logits, other) for logits in (full_precision(student), as_target(teacher)))
        u = other.to(ours.dtype) / max(classes - 1, 1)
        for _ in range(self.iterations):
            v = theirs / (u @ kernel + EPS)
            u = ours / (v @ kernel.T + EPS)
        return ((u @ (kernel * distances)) * v).sum(dim=1).mean()

    def _others(self, logits: Tensor, other: Tensor) -> Tensor:
        """Probabilities over the classes but the label, which has 0: (B, C) -> (B, C)."""
        # Finite, so that two classes of which none is left do not give NaN.
        softened = (logits / self.temperature).masked_fill(~other, torch.finfo(logits.dtype).min)
        return F.softmax(softened, dim=1) * other


class GaussianDistance(nn.Module):
    """Wasserstein distance of features as Gaussians of independent channels (WKD-F).

    L = 1 / (B G^2) * sum over samples and cells of [ratio sum_c (mu_s - mu_t)^2 + sum_c (sd_s - sd_t)^2]

    with mean and sd = sqrt(var + eps) of each channel over the positions of a cell of a G x G grid, whose windows are
    those of adaptive pooling; the variance is unbiased.

    Lv, Yang, Li 2024, https://arxiv.org/abs/2412.08139. Deliberately different: a cell of one position has a variance
    of zero, and not NaN. Maps (B, C, H, W) of equal channels, the student's through a projector
    (`adapters.ConvRegressor` with norm and activation); sizes may differ.

    Args:
        grid: G; 1, or 2 to 4 for large maps.
        ratio: Weight of the means against the deviations.
        eps: Added to the variance.
    """

    def __init__(self, grid: int = 1, *, ratio: float = 2.0, eps: float = 1e-5):
        super().__init__()
        require_positive(grid, argument="grid")
        require_positive(eps, argument="eps")
        self.grid, self.ratio, self.eps = grid, ratio, eps

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss, a scalar.

        Raises:
            ValueError: A tensor is no map, or the channels differ.
        """
        require_same_channels(student, teacher, loss="GaussianDistance")
        (mean, deviation), (wanted, spread) = map(self._moments, (full_precision(student), as_target(teacher)))
        squares = self.ratio * (mean - wanted).square() + (deviation - spread).square()
        return squares.sum() / (len(student) * self.grid**2)

    def _moments(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation of every cell: (B, C, H, W) -> (B, C, G^2) twice."""
        rows, columns = (_windows(side, self.grid) for side in feature.shape[2:])
        cells = [feature[:, :, row, column].flatten(2) for row in rows for column in columns]
        means = torch.stack([cell.mean(dim=2) for cell in cells], dim=2)
        variances = torch.stack([cell.var(dim=2, correction=min(cell.shape[2] - 1, 1)) for cell in cells], dim=2)
        return means, (variances + self.eps).sqrt()


def _windows(side: int, count: int) -> list[slice]:
    """Those of adaptive pooling: from the floor to the ceiling of even shares."""
    return [slice(number * side // count, -(-(number + 1) * side // count)) for number in range(count)]

"""Losses that compare the class probabilities of a batch as one table: by rows, by columns, by products of them."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill_app.losses.logits import softened_kl
from distill_app.losses.numerics import (
    as_target,
    full_precision,
    has_spread,
    pool_to_smaller,
    require_choice,
    require_logits,
    require_positive,
    require_same_channels,
)
from distill_app.losses.standardised import standardised


def pearson(first: Tensor, second: Tensor, *, eps: float) -> Tensor:
    """Pearson's correlation of every row with its counterpart: (R, K) x (R, K) -> (R,).

    A row without a spread, but for rounding, is uncorrelated with any other, without gradient.
    """
    spread = has_spread(first, dim=1)
    first = first - first.mean(dim=1, keepdim=True)
    second = second - second.mean(dim=1, keepdim=True)
    found = (first * second).sum(dim=1) / (first.norm(dim=1) * second.norm(dim=1) + eps)
    return found * spread


class PearsonDistance(nn.Module):
    """Distillation from a stronger teacher (DIST): correlations of probabilities, in place of their equality.

    L = T^2 [beta (1 - mean_b rho(p_s[b, :], p_t[b, :])) + gamma (1 - mean_c rho(p_s[:, c], p_t[:, c]))]

    where p is the softmax of z / T and rho Pearson's correlation: over the classes of a sample, and over the samples of
    a class.

    Huang, You, Wang, Qian, Xu 2022, https://arxiv.org/abs/2205.10536. As in the authors' code eps is added to the
    denominator of rho; one public framework clamps with it, which differs from the eighth digit on. Columns of hardly
    any probability thus count as uncorrelated. Deliberately different: rows and columns of a student with exactly equal
    logits, too, without the gradient of about a million that eps leaves there.

    Logits are (B, C). With a batch of one there is nothing to correlate over samples: that part is T^2 gamma, without
    gradient. With two classes the correlation over classes is 1 or -1, without gradient.

    Args:
        temperature: Of both sides; 1 on ImageNet, 4 on CIFAR.
        beta: Weight of the correlation over classes.
        gamma: Weight of the correlation over samples.
        eps: Added to the product of norms.
        whole_batch: Whether the samples of all processes are correlated. Rows that are not of samples, such as regions,
            are not as many on each, and are correlated there.
    """

    def __init__(
        self,
        temperature: float = 1.0,
        *,
        beta: float = 1.0,
        gamma: float = 1.0,
        eps: float = 1e-8,
        whole_batch: bool = True,
    ):
        super().__init__()
        require_positive(temperature, argument="temperature")
        self.whole_batch = whole_batch
        self.temperature, self.beta, self.gamma, self.eps = temperature, beta, gamma, eps

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss, a scalar.

        Raises:
            ValueError: The logits differ in shape.
        """
        require_logits(student, teacher, loss="PearsonDistance")
        student = F.softmax(full_precision(student) / self.temperature, dim=1)
        teacher = F.softmax(as_target(teacher) / self.temperature, dim=1)
        classes = 1 - pearson(student, teacher, eps=self.eps).mean()
        samples = 1 - pearson(student.T, teacher.T, eps=self.eps).mean()
        return self.temperature**2 * (self.beta * classes + self.gamma * samples)


LEVELS = ("instance", "batch", "class")


class MultiLevelAlignment(nn.Module):
    """Multi-level logit distillation (MLKD): probabilities at several temperatures, compared at one of three levels.

    instance:  L = sum_T T^2 / B * sum_b KL(p_t || p_s)
    batch:     L = sum_T 1 / B * ||P_t P_t^T - P_s P_s^T||_F^2   (B, B): how alike two samples are
    class:     L = sum_T 1 / C * ||P_t^T P_t - P_s^T P_s||_F^2   (C, C): how alike two classes are

    where P is the table (B, C) of softmax(z / T).

    Jin, Wang, Lin 2023, https://openaccess.thecvf.com/content/CVPR2023/html/Jin_Multi-Level_Logit_Distillation_CVPR_2023_paper.html.
    Deliberately different from the authors' code, in which masks of confident samples and classes are multiplied with
    sums, so that they only scale the terms, and which takes logits of a weak view for two of the temperatures of the
    strong one: here no mask is drawn, and one view is read.

    Logits are (B, C). The level of the batch depends on the batch size.

    Args:
        level: "instance", "batch" or "class".
        temperatures: Of both sides, one after the other; 4, 3, 5, 2 and 6 in the authors' code.
        standardize: z-scores in place of the logits, of level "instance" alone: logit standardisation on MLKD, Sun et
            al. 2024, https://arxiv.org/abs/2403.01427, with 2 in place of 4; it needs three classes or more.
    """

    whole_batch = True

    def __init__(
        self,
        level: str = "instance",
        *,
        temperatures: Sequence[float] = (4.0, 3.0, 5.0, 2.0, 6.0),
        standardize: bool = False,
    ):
        super().__init__()
        require_choice(level, LEVELS, argument="level")
        if not temperatures:
            raise ValueError("temperatures=[] has none: name one or more, such as [4.0]")
        for temperature in temperatures:
            require_positive(temperature, argument="temperatures")
        if standardize and level != "instance":
            raise ValueError(
                f"standardize=true has no part in level={level!r}: correlations read the logits themselves"
            )
        self.level, self.temperatures, self.standardize = level, tuple(temperatures), standardize

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss, a scalar.

        Raises:
            ValueError: The logits differ in shape.
        """
        require_logits(student, teacher, loss="MultiLevelAlignment")
        student, teacher = full_precision(student), as_target(teacher)
        if self.standardize:
            student, teacher = standardised(student), standardised(teacher)
        return sum(
            (self._at(student, teacher, temperature) for temperature in self.temperatures), student.new_zeros(())
        )

    def _at(self, student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        if self.level == "instance":
            return softened_kl(student, teacher, temperature).mean()
        ours, theirs = (F.softmax(logits / temperature, dim=1) for logits in (student, teacher))
        if self.level == "class":
            ours, theirs = ours.T, theirs.T
        return (theirs @ theirs.T - ours @ ours.T).square().sum() / len(ours)


class FeatureCorrelation(nn.Module):
    """DIST+: maps correlate, over the channels of each position and, at each position, over the samples of the batch.

    L = channels (1 - mean_b,hw rho(F_s[b, :, hw], F_t[b, :, hw])) + space (1 - mean_hw rho(A_s[:, hw], A_t[:, hw]))

    with A = sum over channels of F and rho Pearson's correlation.

    Huang, You, Wang, Qian, Xu 2025, https://ieeexplore.ieee.org/document/10938241; it stands beside `PearsonDistance`
    of the logits. Deliberately different: torchdistill, the only public code, adds the first correlation itself, which
    minimising makes small; its second part is the same.

    Maps (B, C, H, W) of equal channels; if sizes differ, the larger is average-pooled. The second part of a batch of
    one is `space`, without gradient.

    Args:
        channels: Weight of the correlation over channels.
        space: Weight of the correlation over samples.
        eps: Added to the product of norms.
    """

    whole_batch = True  # the second part

    def __init__(self, *, channels: float = 1.0, space: float = 1.0, eps: float = 1e-8):
        super().__init__()
        self.channels, self.space, self.eps = channels, space, eps

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss, a scalar.

        Raises:
            ValueError: A tensor is no map, or the channels differ.
        """
        require_same_channels(student, teacher, loss="FeatureCorrelation")
        student, teacher = pool_to_smaller(full_precision(student), as_target(teacher))
        ours, theirs = (feature.movedim(1, 3).flatten(0, 2) for feature in (student, teacher))
        channels = 1 - pearson(ours, theirs, eps=self.eps).mean()
        ours, theirs = (feature.sum(dim=1).flatten(1).T for feature in (student, teacher))
        space = 1 - pearson(ours, theirs, eps=self.eps).mean()
        return self.channels * channels + self.space * space


# Logits shorter than this have no direction to speak of: a head that starts at zero would get gradients of 1e12.
SHORTEST = 1e-3


class DirectionDistance(nn.Module):
    """Streamlined KD (SKD): how alike two samples are by the direction of their logits, in units of what varies.

    L = 1 / B * sum_b sqrt(d_b^T S^-1 d_b),  d_b row b of D = G_s - G_t,  S = cov(D) + tikhonov I

    where G = N N^T (B, B) and N are the logits, each row divided by its L2 norm: the Mahalanobis distance of rows of D.

    Jeong, Lee, Choi 2026, https://openaccess.thecvf.com/content/CVPR2026/papers/Jeong_Streamlined_Knowledge_Distillation_CVPR_2026_paper.pdf.
    This is the paper's equation, which torchdistill has as well; the authors' code divides G by the number of classes
    and the result by two or so, with a mask that chooses nothing. The gradient where networks agree is 0, not NaN, and
    rows shorter than 0.001 are divided by that.

    Logits are (B, C). A batch of one gives 0.

    Args:
        tikhonov: Added to the diagonal of the covariance.
    """

    whole_batch = True

    def __init__(self, tikhonov: float = 0.1):
        super().__init__()
        require_positive(tikhonov, argument="tikhonov")
        self.tikhonov = tikhonov

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss, a scalar.

        Raises:
            ValueError: The logits differ in shape.
        """
        require_logits(student, teacher, loss="DirectionDistance")
        sides = (full_precision(student), as_target(teacher))
        ours, theirs = (F.normalize(logits, dim=1, eps=SHORTEST) for logits in sides)
        difference = ours @ ours.T - theirs @ theirs.T
        centred = difference - difference.mean(dim=0)
        covariance = centred.T @ centred / max(len(difference) - 1, 1)
        ridge = torch.eye(len(difference), dtype=difference.dtype, device=difference.device) * self.tikhonov
        # |R^-1 d| with S = R R^T, whose norm has a gradient at zero as its square root has not.
        root = torch.linalg.cholesky(covariance + ridge)
        return torch.linalg.solve_triangular(root, difference.T, upper=False).norm(dim=0).mean()

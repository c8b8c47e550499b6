"""Losses over class logits."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill_app.losses.numerics import (
    as_target,
    full_precision,
    require_choice,
    require_labels,
    require_positive,
    require_same_shape,
)

REDUCTIONS = ("batchmean", "sum", "mean")


def softened_kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 KL(softmax(teacher / T) || softmax(student / T)) of every row: (..., C) x (..., C) -> (...)."""
    log_student = F.log_softmax(student / temperature, dim=-1)
    probabilities = F.softmax(teacher / temperature, dim=-1)
    return F.kl_div(log_student, probabilities, reduction="none").sum(dim=-1) * temperature**2


class KLDivergence(nn.Module):
    """Knowledge distillation: KL between softened class probabilities.

    L = T^2 / B * sum_b KL(softmax(z_t / T) || softmax(z_s / T))

    Hinton, Vinyals, Dean 2015, https://arxiv.org/abs/1503.02531. The factor T^2 is always there: it keeps the size of
    the gradient independent of T. One public framework drops it when the cross-entropy is off; here the cross-entropy
    is a term of its own, with a weight of its own.

    Logits are (B, C), or (B, C, ...) with a prediction at every position; then all positions count as rows.

    Args:
        temperature: Of both sides. 4 is common on CIFAR, 1 on ImageNet.
        reduction: "batchmean" sums over classes and averages over rows; "mean" also averages over classes, as
            some published code does.
    """

    def __init__(self, temperature: float = 4.0, *, reduction: str = "batchmean"):
        super().__init__()
        require_choice(reduction, REDUCTIONS, argument="reduction")
        require_positive(temperature, argument="temperature")
        self.temperature, self.reduction = temperature, reduction

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss, a scalar.

        Raises:
            ValueError: The logits differ in shape.
        """
        require_same_shape(student, teacher, loss="KLDivergence")
        log_student = F.log_softmax(full_precision(student) / self.temperature, dim=1)
        probabilities = F.softmax(as_target(teacher) / self.temperature, dim=1)
        rows, count = student.numel() // student.shape[1], student.numel()
        divisor = {"batchmean": rows, "mean": count, "sum": 1}[self.reduction]
        return F.kl_div(log_student, probabilities, reduction="sum") * (self.temperature**2 / divisor)

    def rows(self, student: Tensor, teacher: Tensor, target: Tensor | None = None) -> Tensor:
        """The loss of every row, (B,); it needs no labels."""
        return softened_kl(full_precision(student), as_target(teacher), self.temperature)


class SigmoidKL(nn.Module):
    """Knowledge distillation of several labels for each image: KL between softened yes-or-no probabilities.

    L = T^2 / (B C) * sum_b sum_c KL(Bernoulli(sigmoid(z_t / T)) || Bernoulli(sigmoid(z_s / T)))

    The logit part of Yang et al. 2023, Multi-Label Knowledge Distillation, https://arxiv.org/abs/2308.06453, which
    takes every label for a question of its own. Deliberately different: there is a temperature, and the mean over
    labels, so that the term has the size of `torch.nn.BCEWithLogitsLoss` beside it; with "batchmean" it is their sum.

    Args:
        temperature: Of both sides.
        reduction: "mean" over samples and labels; "batchmean" sums over labels; "sum" over both.
    """

    def __init__(self, temperature: float = 1.0, *, reduction: str = "mean"):
        super().__init__()
        require_choice(reduction, REDUCTIONS, argument="reduction")
        require_positive(temperature, argument="temperature")
        self.temperature, self.reduction = temperature, reduction

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss, a scalar, of logits (B, C) each.

        Raises:
            ValueError: The logits differ in shape.
        """
        require_same_shape(student, teacher, loss="SigmoidKL")
        student, teacher = full_precision(student) / self.temperature, as_target(teacher) / self.temperature
        probabilities = teacher.sigmoid()
        cross = F.binary_cross_entropy_with_logits(student, probabilities, reduction="sum")
        entropy = F.binary_cross_entropy_with_logits(teacher, probabilities, reduction="sum")
        divisor = {"batchmean": len(student), "mean": student.numel(), "sum": 1}[self.reduction]
        return (cross - entropy) * (self.temperature**2 / divisor)


class VirtualTeacherKL(nn.Module):
    """Teacher-free regularisation (Tf-KD reg): KL to a teacher that exists only as a label distribution.

    u is `correct_probability` on the label and the rest shared evenly. With form "authors", the published code,

        L = multiplier / (B C) * sum_b KL(softmax(u / T) || softmax(z_s))

    and with form "consistent", KD from a teacher with logits log u, the paper's text,

        L = T^2 / B * sum_b KL(softmax(log(u) / T) || softmax(z_s / T)).

    Yuan, Tay, Li, Wang, Feng 2020, https://arxiv.org/abs/1909.11723. The authors' code softens probabilities as if they
    were logits, leaves the student at T = 1, and averages over classes too; hence its multiplier.

    Args:
        temperature: 20 on CIFAR-100 and 40 in one of the authors' runs.
        correct_probability: What the virtual teacher gives the label; 0.99 in the authors' code.
        multiplier: Of form "authors" only.
        form: "authors" or "consistent".
    """

    def __init__(
        self,
        temperature: float = 20.0,
        *,
        correct_probability: float = 0.99,
        multiplier: float = 1.0,
        form: str = "authors",
    ):
        super().__init__()
        require_choice(form, ("authors", "consistent"), argument="form")
        require_positive(temperature, argument="temperature")
        if not 0 < correct_probability < 1:
            raise ValueError(f"correct_probability={correct_probability} must lie between 0 and 1")
        if form == "consistent" and multiplier != 1:
            raise ValueError(f"multiplier={multiplier} has no part in form='consistent': use the term's weight")
        self.temperature, self.correct_probability = temperature, correct_probability
        self.multiplier, self.form = multiplier, form

    def forward(self, student: Tensor, target: Tensor) -> Tensor:
        """The loss, a scalar, of logits (B, C) and class indices (B,).

        Raises:
            ValueError: These are no logits of two classes or more, or the labels are not one for each row.
        """
        if student.dim() != 2 or student.shape[1] < 2:
            raise ValueError(
                f"VirtualTeacherKL needs class logits (B, C) of two classes or more, got {tuple(student.shape)}: read "
                f"student.logits"
            )
        require_labels(target, student, loss="VirtualTeacherKL")
        student = full_precision(student)
        classes = student.shape[1]
        rest = (1 - self.correct_probability) / (classes - 1)
        virtual = torch.full_like(student, rest).scatter_(1, target.unsqueeze(1), self.correct_probability)
        if self.form == "consistent":
            return softened_kl(student, virtual.log(), self.temperature).mean()
        soft = F.softmax(virtual / self.temperature, dim=1)
        return F.kl_div(F.log_softmax(student, dim=1), soft, reduction="none").mean() * self.multiplier

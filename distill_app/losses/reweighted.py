"""Losses over class logits that reweight: samples against each other, or the teacher's probabilities."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill_app.losses.logits import softened_kl
from distill_app.losses.numerics import (
    as_target,
    full_precision,
    require_labels,
    require_logits,
    require_positive,
)


class WeightedSoftLabels(nn.Module):
    """Weighted soft labels (WSLD): KD of a sample counts by how much worse the student is on it than the teacher.

    L = T^2 / B * sum_b w_b CE(softmax(z_s / T), softmax(z_t / T)),  w_b = 1 - exp(-CE_s / CE_t)

    where CE_s and CE_t are the cross-entropies of the two networks with the label, at temperature 1; w is between 0 and
    1, and no gradient flows through it.

    Zhou, Song, Chen, Zhou, Wang, Yuan, Zhang 2021, https://arxiv.org/abs/2102.00650. Samples on which the student is
    right already only regularise it, and count less. As in the authors' code the soft labels enter as a cross-entropy:
    the gradient is that of KD, the value is not 0 at equality.

    Logits are (B, C), labels (B,) class indices.

    Args:
        temperature: Of the soft labels, both sides; 2 in the authors' ImageNet runs.
    """

    def __init__(self, temperature: float = 2.0):
        super().__init__()
        require_positive(temperature, argument="temperature")
        self.temperature = temperature

    def forward(self, student: Tensor, teacher: Tensor, target: Tensor) -> Tensor:
        """The loss, a scalar.

        Raises:
            ValueError: The logits differ in shape, or the labels are not one for each row.
        """
        require_logits(student, teacher, loss="WeightedSoftLabels")
        require_labels(target, student, loss="WeightedSoftLabels")
        student, teacher = full_precision(student), as_target(teacher)
        soft = F.softmax(teacher / self.temperature, dim=1)
        each = -(soft * F.log_softmax(student / self.temperature, dim=1)).sum(dim=1)
        return (sample_weights(student.detach(), teacher, target) * each).mean() * self.temperature**2


def sample_weights(student: Tensor, teacher: Tensor, target: Tensor) -> Tensor:
    """1 - exp(-CE_s / CE_t) of every sample: (B, C), (B, C), (B,) -> (B,)."""
    ours = F.cross_entropy(student, target, reduction="none")
    theirs = F.cross_entropy(teacher, target, reduction="none")
    # Added as in the authors' code: a teacher that is certain has a cross-entropy of 0.
    return -torch.expm1(-ours / (theirs + 1e-7))


class TransformedTeacherKL(nn.Module):
    """Transformed teacher matching (TTM, WTTM): the teacher is softened, the student is not.

    L = 1 / B * sum_b w_b KL(q || softmax(z_s)),  q = softmax(power z_t) = p_t^power / sum p_t^power

    with w = 1, or, if weighted, the power sum w_b = sum_c p_t(c)^power, which lies between 1 for a teacher that is
    certain and C^(1 - power) for one that knows nothing.

    Zheng, Yang 2024, https://arxiv.org/abs/2402.11148. `power` is 1 / T of the teacher; the student's temperature is 1
    and there is no T^2. The minimum is thus not where the student equals the teacher, but where it equals the softened
    teacher. Weights are not normalised over the batch, as in the authors' code.

    Logits are (B, C).

    Args:
        power: Exponent of the teacher's probabilities; 0.1 and 0.2 in the authors' runs on CIFAR-100.
        weighted: Whether each sample is weighted by the teacher's power sum (WTTM).
    """

    def __init__(self, power: float = 0.1, *, weighted: bool = False):
        super().__init__()
        require_positive(power, argument="power")
        self.power, self.weighted = power, weighted

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss, a scalar.

        Raises:
            ValueError: The logits differ in shape.
        """
        require_logits(student, teacher, loss="TransformedTeacherKL")
        student, teacher = full_precision(student), as_target(teacher)
        each = softened_kl(student, teacher * self.power, 1.0)
        return (power_sum(teacher, self.power) * each if self.weighted else each).mean()


def power_sum(logits: Tensor, power: float) -> Tensor:
    """The sum over classes of softmax(logits) ** power: (B, C) -> (B,)."""
    return (power * F.log_softmax(logits, dim=1)).exp().sum(dim=1)

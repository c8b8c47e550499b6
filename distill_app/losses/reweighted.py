"""Losses over class logits in which some samples count more than others."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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

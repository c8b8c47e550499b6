"""Losses over class logits that treat the label's class and the others apart."""

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
from distill_app.losses.standardised import standardised


def other_classes(logits: Tensor, target: Tensor) -> Tensor:
    """The logits of all classes but the label's: (B, C), (B,) -> (B, C - 1).

    Leaving the label out is exact for logits of any size; subtracting 1000 from it, as published code does, is not.
    """
    label = target.unsqueeze(1)
    position = torch.arange(logits.shape[1] - 1, device=logits.device).unsqueeze(0)
    return logits.gather(1, position + (position >= label))


def label_or_not(logits: Tensor, target: Tensor) -> Tensor:
    """[log p(label), log(1 - p(label))] of every row: (B, C), (B,) -> (B, 2)."""
    label = logits.gather(1, target.unsqueeze(1)).squeeze(1)
    rest = other_classes(logits, target).logsumexp(dim=1)
    return F.log_softmax(torch.stack([label, rest], dim=1), dim=1)


class DecoupledKL(nn.Module):
    """Decoupled knowledge distillation (DKD): what KD says of the label, and of the other classes, with own weights.

    L = T^2 / B * sum_b [alpha KL(b_t || b_s) + beta KL(r_t || r_s)]

    where b = [p(label), 1 - p(label)] of softmax(z / T), and r is the softmax of z / T over the other classes alone.

    Zhao, Cui, Song, Qiu, Liang 2022, https://arxiv.org/abs/2203.08679. With alpha = 1 and beta = 1 - p_t(label) of each
    sample it would be KD. The authors' code multiplies it by min(epoch / 20, 1), which is the term's weight here:
    `weight: {_target_: distill_app.losses.LinearWarmup, value: 1.0, epochs: 20}`.

    Logits are (B, C) of at least three classes, labels (B,) class indices.

    Args:
        temperature: Of both sides. 4 on CIFAR, 1 on ImageNet.
        alpha: Weight of the label against the rest; 1 in the paper.
        beta: Weight of the other classes; 8 for ResNet-32x4 to ResNet-8x4, 2 to 8 on CIFAR, 0.5 on ImageNet.
        standardize: z-scores in place of the logits: logit standardisation on DKD, Sun et al. 2024,
            https://arxiv.org/abs/2403.01427, with temperature 2 and both weights times 9 for that pair.
    """

    def __init__(self, temperature: float = 4.0, *, alpha: float = 1.0, beta: float = 8.0, standardize: bool = False):
        super().__init__()
        require_positive(temperature, argument="temperature")
        self.temperature, self.alpha, self.beta, self.standardize = temperature, alpha, beta, standardize

    def forward(self, student: Tensor, teacher: Tensor, target: Tensor) -> Tensor:
        """The loss, a scalar.

        Raises:
            ValueError: The logits differ in shape or have two classes, or the labels are not one for each row.
        """
        return self.rows(student, teacher, target).mean()

    def rows(self, student: Tensor, teacher: Tensor, target: Tensor) -> Tensor:
        """The loss of every row, (B,); it raises what the loss does."""
        require_logits(student, teacher, loss="DecoupledKL")
        require_labels(target, student, loss="DecoupledKL")
        if student.shape[1] < 3:
            raise ValueError(
                f"DecoupledKL compares classes other than the label: it needs three or more, got {student.shape[1]}; "
                "with two it is KD, method=kd"
            )
        student, teacher = full_precision(student), as_target(teacher)
        if self.standardize:
            student, teacher = standardised(student), standardised(teacher)
        student, teacher = student / self.temperature, teacher / self.temperature
        label = softened_kl(label_or_not(student, target), label_or_not(teacher, target), 1.0)
        others = softened_kl(other_classes(student, target), other_classes(teacher, target), 1.0)
        return (self.alpha * label + self.beta * others) * self.temperature**2


class NormalizedKD(nn.Module):
    """Normalized knowledge distillation (NKD): the label by the teacher's probability, the others among themselves.

    L = 1 / B * sum_b [-p_t(label) log p_s(label) - gamma T^2 sum_{c != label} r_t(c) log r_s(c)]

    where p is the softmax of z, at temperature 1 whatever T is, and r that of z / T over the other classes alone.

    Yang, Zeng, Li, Zhang, Yuan, Li 2023, https://arxiv.org/abs/2303.13005. Both parts are cross-entropies, as in the
    authors' code: the gradient of the second is that of a KL divergence, but its value is not 0 at equality, and the
    first goes on pulling there, less where the teacher is unsure.

    Logits are (B, C), labels (B,) class indices; with two classes only the first part is left.

    Args:
        temperature: Of the second part, both sides; 1 in the authors' ImageNet runs.
        gamma: Weight of the second part; 1.5 in the paper.
    """

    def __init__(self, temperature: float = 1.0, *, gamma: float = 1.5):
        super().__init__()
        require_positive(temperature, argument="temperature")
        self.temperature, self.gamma = temperature, gamma

    def forward(self, student: Tensor, teacher: Tensor, target: Tensor) -> Tensor:
        """The loss, a scalar.

        Raises:
            ValueError: The logits differ in shape, or the labels are not one for each row.
        """
        return self.rows(student, teacher, target).mean()

    def rows(self, student: Tensor, teacher: Tensor, target: Tensor) -> Tensor:
        """The loss of every row, (B,); it raises what the loss does."""
        require_logits(student, teacher, loss="NormalizedKD")
        require_labels(target, student, loss="NormalizedKD")
        student, teacher = full_precision(student), as_target(teacher)
        sure = F.softmax(teacher, dim=1).gather(1, target.unsqueeze(1)).squeeze(1)
        label = sure * F.cross_entropy(student, target, reduction="none")
        wanted = F.softmax(other_classes(teacher, target) / self.temperature, dim=1)
        others = -(wanted * F.log_softmax(other_classes(student, target) / self.temperature, dim=1)).sum(dim=1)
        return label + self.gamma * self.temperature**2 * others


class RefinedKL(nn.Module):
    """Refined logit distillation (RLD): what a teacher that is wrong says is not taught.

    L = 1 / B * sum_b [alpha S^2 KL([m_t, 1 - m_t] || [p_s(label), 1 - p_s(label)]) + beta T^2 KL(r_t || r_s)]

    where m_t is the teacher's largest probability, whatever class it is of, and p_s(label) the student's of the label,
    both at the temperature S; r is the softmax of z / T over the classes that the teacher finds strictly less likely
    than the label. How sure to be is thus learnt with the right label, and of the other classes only those in their
    place.

    Sun, Chen, Lyu, Chen, Chen, Wang 2024, https://arxiv.org/abs/2408.07703. Classes as likely as the label are left out
    as well, and a sample whose label is the teacher's least likely class has no second part; it counts in B, as in the
    authors' code. They let the term grow over 20 epochs on CIFAR and 1 on ImageNet, which is the term's weight here.

    Logits are (B, C), labels (B,) class indices.

    Args:
        temperature: T, of the second part; 4 on CIFAR, 1 on ImageNet.
        alpha: Weight of the first part.
        beta: Weight of the second part; 8 on CIFAR, 0.5 for ResNet-34 to ResNet-18 on ImageNet.
        confidence_temperature: S, of the first part.
        standardize: z-scores in place of the logits, of both networks (logit standardisation), which needs three
            classes or more.
    """

    def __init__(
        self,
        temperature: float = 4.0,
        *,
        alpha: float = 1.0,
        beta: float = 8.0,
        confidence_temperature: float = 1.0,
        standardize: bool = False,
    ):
        super().__init__()
        require_positive(temperature, argument="temperature")
        require_positive(confidence_temperature, argument="confidence_temperature")
        self.temperature, self.alpha, self.beta = temperature, alpha, beta
        self.confidence_temperature, self.standardize = confidence_temperature, standardize

    def forward(self, student: Tensor, teacher: Tensor, target: Tensor) -> Tensor:
        """The loss, a scalar.

        Raises:
            ValueError: The logits differ in shape, or the labels are not one for each row.
        """
        require_logits(student, teacher, loss="RefinedKL")
        require_labels(target, student, loss="RefinedKL")
        student, teacher = full_precision(student), as_target(teacher)
        # Which classes the label precedes is read before the spread is taken out: rounding may make ties.
        less_likely = teacher < teacher.gather(1, target.unsqueeze(1))
        if self.standardize:
            student, teacher = standardised(student), standardised(teacher)
        confidence = self._confidence(student, teacher, target)
        others = softened_kl_among(student, teacher, less_likely, self.temperature)
        return (self.alpha * confidence + self.beta * others).mean()

    def _confidence(self, student: Tensor, teacher: Tensor, target: Tensor) -> Tensor:
        """The first part of every sample, (B,)."""
        heat = self.confidence_temperature
        ours, theirs = label_or_not(student / heat, target), label_or_not(teacher / heat, teacher.argmax(dim=1))
        return softened_kl(ours, theirs, 1.0) * heat**2


def softened_kl_among(student: Tensor, teacher: Tensor, among: Tensor, temperature: float) -> Tensor:
    """T^2 KL of the softmaxes over a subset of classes of every row, 0 of an empty one: (B, C) x 3 -> (B,)."""
    # Large and finite: with infinity an empty subset would give NaN; as it is, both sides are uniform over all classes.
    absent = -1e9
    ours, theirs = ((logits / temperature).masked_fill(~among, absent) for logits in (student, teacher))
    return softened_kl(ours, theirs, 1.0) * temperature**2

"""Losses over logits with targets that are more than the teacher's probabilities: sharpened, hard, or of an exit."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill_app.losses.numerics import (
    as_target,
    full_precision,
    require_labels,
    require_logits,
    require_positive,
    require_same_shape,
)


class OneForAllCE(nn.Module):
    """One-for-all (OFA-KD): cross-entropy with the teacher's probabilities, raised where they speak for the label.

    L = -1 / B * sum_b sum_c [(p_t,c + 1(c = y))^gamma - 1(c = y)] log p_s,c,  p = softmax(z / T)

    Hao, Guo, Han, Tang, Hu, Wang, Xu 2023, https://arxiv.org/abs/2310.19444. With gamma 1 it is the soft
    cross-entropy; above, the label's weight grows and the others' fall. There is no T^2. Deliberately different: the
    logarithm of a softmax is taken in one, which is finite for logits of any size, where the authors' code is not.

    Logits are (B, C), labels (B,).

    Args:
        gamma: At least 1 in the paper: 1.5 on ImageNet from DeiT-T to ResNet-18, 1 on CIFAR-100 from Swin-T.
        temperature: Of both sides.
    """

    def __init__(self, gamma: float = 1.5, *, temperature: float = 1.0):
        super().__init__()
        require_positive(gamma, argument="gamma")
        require_positive(temperature, argument="temperature")
        self.gamma, self.temperature = gamma, temperature

    def forward(self, student: Tensor, teacher: Tensor, target: Tensor) -> Tensor:
        """The loss, a scalar.

        Raises:
            ValueError: The logits differ in shape, or labels are no classes.
        """
        require_logits(student, teacher, loss="OneForAllCE")
        require_labels(target, student, loss="OneForAllCE")
        log_student = F.log_softmax(full_precision(student) / self.temperature, dim=1)
        label = torch.zeros_like(log_student).scatter_(1, target[:, None], 1.0)  # one_hot would wait for the device
        weights = (F.softmax(as_target(teacher) / self.temperature, dim=1) + label) ** self.gamma - label
        return -(weights * log_student).sum(dim=1).mean()


class TeacherLabels(nn.Module):
    """Hard distillation (DeiT): cross-entropy with the class that the teacher chooses.

    L = CE(z_s, argmax_c z_t,c)

    Touvron, Cord, Douze, Massa, Sablayrolles, Jegou 2021, https://arxiv.org/abs/2012.12877. Logits are (B, C).
    """

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss, a scalar.

        Raises:
            ValueError: The logits differ in shape.
        """
        require_logits(student, teacher, loss="TeacherLabels")
        return F.cross_entropy(full_precision(student), teacher.detach().argmax(dim=1))


class SoftCrossEntropy(nn.Module):
    """Be your own teacher (BYOT): cross-entropy with the softened probabilities of the deepest exit.

    L = -T^2 / B * sum_b sum_c softmax(z_t / T) log softmax(z_s / T)

    Zhang, Song, Gao, Chen, Bao, Ma 2019, https://arxiv.org/abs/1905.08094. Its gradient is that of `KLDivergence`; the
    value has the entropy of the target in it, as in the public code. Logits are (B, C).

    Args:
        temperature: Of both sides; 3 in the public code.
    """

    def __init__(self, temperature: float = 3.0):
        super().__init__()
        require_positive(temperature, argument="temperature")
        self.temperature = temperature

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss, a scalar.

        Raises:
            ValueError: The logits differ in shape.
        """
        require_logits(student, teacher, loss="SoftCrossEntropy")
        wanted = F.softmax(as_target(teacher) / self.temperature, dim=1)
        return F.cross_entropy(full_precision(student) / self.temperature, wanted) * self.temperature**2


class ActiveDistance(nn.Module):
    """Be your own teacher (BYOT): the squared distance of features, where one of the two is active.

    L = sum over samples and elements of (s - t)^2 [s > 0 or t > 0]

    Zhang, Song, Gao, Chen, Bao, Ma 2019, https://arxiv.org/abs/1905.08094. As in the public code it is a sum over the
    batch too, hence a weight of 1e-6, which grows with the batch. Features (B, ...) of as many elements.
    """

    whole_batch = True

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss, a scalar.

        Raises:
            ValueError: The features differ in size.
        """
        student, teacher = student.flatten(1), teacher.flatten(1)
        require_same_shape(student, teacher, loss="ActiveDistance")
        student, teacher = full_precision(student), as_target(teacher)
        return ((student - teacher).square() * ((student > 0) | (teacher > 0))).sum()


class ProbabilityDistance(nn.Module):
    """Mean teacher: the mean squared distance of class probabilities.

    L = 1 / (B C) * sum_b sum_c (softmax(z_s) - softmax(z_t))^2

    Tarvainen, Valpola 2017, https://arxiv.org/abs/1703.01780. Logits are (B, C).
    """

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss, a scalar.

        Raises:
            ValueError: The logits differ in shape.
        """
        require_logits(student, teacher, loss="ProbabilityDistance")
        return F.mse_loss(F.softmax(full_precision(student), dim=1), F.softmax(as_target(teacher), dim=1))


class MaskedDistance(nn.Module):
    """ViTKD's high layer: the squared distance of what was generated at masked positions.

    L = 1 / (B share) * sum over masked positions of |s - t|^2

    Yang, Li, Zeng, Li, Yuan, Li 2022, https://arxiv.org/abs/2209.02432. Maps (B, C, H, W) of one shape; the mask,
    (B, 1, H, W), is 1 where a position was masked (`adapters.MaskedTokens` gives both). It is a sum over channels and
    positions, hence a weight of 3e-6.

    Args:
        share: Of the positions that are masked, by which the sum is divided; that of the adapter.
    """

    def __init__(self, share: float = 0.5):
        super().__init__()
        require_positive(share, argument="share")
        self.share = share

    def forward(self, student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
        """The loss, a scalar.

        Raises:
            ValueError: The shapes differ, or, where no gradient is wanted, another share is masked.
        """
        require_same_shape(student, teacher, loss="MaskedDistance")
        if not torch.is_grad_enabled():  # as on example images, before training: it waits for the device
            self._refuse_other_share(mask)
        difference = (full_precision(student) - as_target(teacher)).square()
        return (difference * mask.to(torch.bool)).sum() / (len(student) * self.share)

    def _refuse_other_share(self, mask: Tensor) -> None:
        masked, positions = float(mask.float().mean()), mask[0].numel()
        if abs(masked - self.share) * positions >= 1:  # a share of an odd number is rounded to positions
            raise ValueError(
                f"MaskedDistance divides by share={self.share}, and {masked:.3g} of the positions are masked: set "
                f"share of the loss to masked of the adapter (distill_app.adapters.MaskedTokens)"
            )

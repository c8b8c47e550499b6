"""Losses over maps that are compared position by position, once a spread or a mean is taken out of them."""

import torch.nn.functional as F
from torch import Tensor, nn

from distill_app.losses.numerics import (
    as_target,
    full_precision,
    pool_to_smaller,
    require_choice,
    require_positive,
    require_same_channels,
)


class ChannelwiseKL(nn.Module):
    """Channel-wise distillation (CWD): where each channel is active, as a probability over positions.

    L = T^2 / (B C) * sum_b sum_c KL(softmax over positions of t_bc / T || softmax over positions of s_bc / T)

    Shu, Liu, Gao, Yan, Shen 2021, https://arxiv.org/abs/2011.13256. Maps (B, C, H, W) of equal channels; if sizes
    differ, the larger is average-pooled. A map of one position has nothing to say: 0, without gradient.

    Args:
        temperature: Of both sides; 4 in the paper.
        over: "positions", or "channels" for a probability over the channels at each position, as in pixel-wise
            distillation; then the mean is over positions.
    """

    def __init__(self, temperature: float = 4.0, *, over: str = "positions"):
        super().__init__()
        require_positive(temperature, argument="temperature")
        require_choice(over, ("positions", "channels"), argument="over")
        self.temperature, self.over = temperature, over

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss, a scalar.

        Raises:
            ValueError: A tensor is no map, or the channels differ.
        """
        require_same_channels(student, teacher, loss="ChannelwiseKL")
        student, teacher = pool_to_smaller(full_precision(student), as_target(teacher))
        rows = student.shape[1] if self.over == "positions" else student.shape[2] * student.shape[3]
        dim = 2 if self.over == "positions" else 1
        ours = F.log_softmax(student.flatten(2) / self.temperature, dim=dim)
        theirs = F.softmax(teacher.flatten(2) / self.temperature, dim=dim)
        return F.kl_div(ours, theirs, reduction="sum") * (self.temperature**2 / (len(student) * rows))


class PearsonImitation(nn.Module):
    """PKD: maps agree in each channel but for its mean and its spread over the batch, that is, they correlate.

    L = 1/2 mean (n(F_s) - n(F_t))^2,  n(F) = (F - mean_c) / (std_c + eps), over all samples and positions of a channel

    Cao, Zhang, Gao, Cheng, Cheng, Zhang 2022, https://arxiv.org/abs/2207.02039: one minus the mean of Pearson's
    correlations. The standard deviation is unbiased. Deliberately different: where a channel has one value (a batch of
    one, a map of one position) it counts as its mean, which gives NaN in the reference. A student whose map is zero
    gets gradients of thousands, as there.

    Maps (B, C, H, W) of equal channels. If sizes differ, one is interpolated to the other's.

    Args:
        resize: Whose map is, "student" or "teacher".
        eps: Added to the standard deviation.
    """

    whole_batch = True  # mean and spread are those of the batch

    def __init__(self, *, resize: str = "student", eps: float = 1e-6):
        super().__init__()
        require_choice(resize, ("student", "teacher"), argument="resize")
        self.resize, self.eps = resize, eps

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss, a scalar.

        Raises:
            ValueError: A tensor is no map, or the channels differ.
        """
        require_same_channels(student, teacher, loss="PearsonImitation")
        student, teacher = full_precision(student), as_target(teacher)
        if student.shape != teacher.shape and self.resize == "student":
            student = F.interpolate(student, teacher.shape[2:], mode="bilinear", align_corners=False)
        elif student.shape != teacher.shape:
            teacher = F.interpolate(teacher, student.shape[2:], mode="bilinear", align_corners=False)
        return F.mse_loss(self._standardised(student), self._standardised(teacher)) / 2

    def _standardised(self, feature: Tensor) -> Tensor:
        centred = feature - feature.mean(dim=(0, 2, 3), keepdim=True)
        if feature.numel() == feature.shape[1]:
            return centred
        return centred / (feature.std(dim=(0, 2, 3), keepdim=True) + self.eps)

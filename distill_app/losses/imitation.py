"""Losses over maps that are compared position by position, in one form or another."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill_app.losses.numerics import (
    as_target,
    full_precision,
    has_spread,
    pool_to_smaller,
    require_choice,
    require_positive,
    require_same_channels,
    require_same_shape,
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
    one, a map of one position) it counts as its mean, which gives NaN in the reference; and a channel without a spread
    is zero, without the gradient of thousands that eps leaves there.

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
        spread = has_spread(feature.movedim(1, 0).flatten(1), dim=1).view(1, -1, 1, 1)
        return centred / (feature.std(dim=(0, 2, 3), keepdim=True) + self.eps) * spread


class HierarchicalContext(nn.Module):
    """ReviewKD's hierarchical context loss: maps, and pooled forms of them, agree at every level.

    L = sum over levels of [MSE(F_s, F_t) + sum_k 2^-k MSE(pool_k(F_s), pool_k(F_t))] / (1 + sum_k 2^-k)

    where pool_1, pool_2, ... average to 4 x 4, 2 x 2 and 1 x 1, as far as these are smaller than the map's height.

    Chen, Liu, Zhao, Jia 2021, https://arxiv.org/abs/2104.09044. `student` is the list of `feature`s of
    `adapters.ReviewFusion`, `teacher` that of the teacher's stages, maps (B, C, H, W) of equal shapes or embeddings
    (B, C), which are maps of one position. The authors let the term grow over the first epochs: its weight here.

    Args:
        sizes: Of the pooled forms, largest first.
    """

    def __init__(self, sizes: Sequence[int] = (4, 2, 1)):
        super().__init__()
        for size in sizes:
            require_positive(size, argument="sizes")
        self.sizes = tuple(sizes)

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """The loss, a scalar.

        Raises:
            ValueError: The lists differ in length, or a level in shape.
        """
        if len(student) != len(teacher) or not student:
            raise ValueError(
                f"HierarchicalContext needs as many of the student's maps as of the teacher's, got {len(student)} and "
                f"{len(teacher)}"
            )
        levels = [self._level(*pair) for pair in zip(student, teacher, strict=True)]
        return torch.stack(levels).sum()

    def _level(self, student: Tensor, teacher: Tensor) -> Tensor:
        student, teacher = _positions(full_precision(student)), _positions(as_target(teacher))
        require_same_shape(student, teacher, loss="HierarchicalContext")
        total, weight, weights = F.mse_loss(student, teacher), 1.0, 1.0
        for size in self.sizes:
            if size < student.shape[2]:
                weight /= 2
                ours, theirs = F.adaptive_avg_pool2d(student, size), F.adaptive_avg_pool2d(teacher, size)
                total, weights = total + weight * F.mse_loss(ours, theirs), weights + weight
        return total / weights


def _positions(feature: Tensor) -> Tensor:
    """An embedding as a map of one position; a map as it is."""
    return feature[:, :, None, None] if feature.dim() == 2 else feature


class MarginDistance(nn.Module):
    """Overhaul of feature distillation (OFD): pre-activations, of which negative ones count as far as they matter.

    L = 1 / B * sum over elements of (s - max(t, m_c))^2, but 0 where s <= max(t, m_c) <= 0

    Heo, Kim, Yun, Park, Kwak, Choi 2019, https://arxiv.org/abs/1904.01866. Both are pre-activations (B, C, H, W) of one
    shape, the student's through a connector (`adapters.ConvRegressor` with norm and pointwise); m, the margins, are
    (1, C, 1, 1) or (C,), negative, from `adapters.NegativeMargin`. The authors' scale, 1 / 1000 on CIFAR and 1 / 10000
    on ImageNet, and their layer weights, 2^-(n - 1 - i) for layer i = 0..n-1 of n, are the weights of the terms.
    """

    def forward(self, student: Tensor, teacher: Tensor, margin: Tensor) -> Tensor:
        """The loss, a scalar.

        Raises:
            ValueError: The shapes differ, or the margins are not one for each channel.
        """
        require_same_shape(student, teacher, loss="MarginDistance")
        if teacher.dim() != 4 or margin.numel() != teacher.shape[1]:
            raise ValueError(
                f"MarginDistance needs maps (B, C, H, W) and a margin for each channel, got {tuple(teacher.shape)} and "
                f"margins {tuple(margin.shape)}: read a distill_app.adapters.NegativeMargin of the teacher's map"
            )
        student, wanted = (
            full_precision(student),
            torch.maximum(as_target(teacher), as_target(margin).view(1, -1, 1, 1)),
        )
        counts = (student > wanted) | (wanted > 0)
        return ((student - wanted).square() * counts).sum() / len(student)


class SquaredDistance(nn.Module):
    """The squared distance of what belongs to each sample, as MGD compares what was generated with what was to be.

    L = 1 / B * sum over elements of (s - t)^2

    Yang, Li, Shao, Shi, Yuan, Yuan 2022, https://arxiv.org/abs/2205.01529. Tensors (B, ...) of one shape. It is a sum
    over elements, hence weights of 1e-5.
    """

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss, a scalar.

        Raises:
            ValueError: The shapes differ.
        """
        require_same_shape(student, teacher, loss="SquaredDistance")
        return (full_precision(student) - as_target(teacher)).square().sum() / len(student)


class ClassMapDistance(nn.Module):
    """Class attention transfer (CAT-KD): where an image speaks for each class, on a coarse grid.

    L = mean over B x C x r x r of (n(pool(M_s)) - n(pool(M_t)))^2

    where M are class activation maps, pool averages them to r x r and n divides each map by its L2 norm, or by 0.0001.

    Guo, Yan, Li, Lin 2023, https://openaccess.thecvf.com/content/CVPR2023/html/Guo_Class_Attention_Transfer_Based_Knowledge_Distillation_CVPR_2023_paper.html.
    Maps (B, classes, H, W) come from `adapters.ClassMaps`; sizes may differ.

    Args:
        resolution: r; 2 in most of the authors' settings, 4 for ShuffleNets.
        normalize: Whether n divides; between networks of one family the authors' settings do not.
    """

    def __init__(self, resolution: int = 2, *, normalize: bool = True):
        super().__init__()
        require_positive(resolution, argument="resolution")
        self.resolution, self.normalize = resolution, normalize

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss, a scalar.

        Raises:
            ValueError: A tensor is no map, or the classes differ.
        """
        require_same_channels(student, teacher, loss="ClassMapDistance")
        return F.mse_loss(self._pooled(full_precision(student)), self._pooled(as_target(teacher)))

    def _pooled(self, maps: Tensor) -> Tensor:
        pooled = F.adaptive_avg_pool2d(maps, self.resolution).flatten(2)
        # A class of which nothing is said is not blown up: a head that starts at zero would get gradients of 1e12.
        return F.normalize(pooled, dim=2, eps=1e-4) if self.normalize else pooled


class MapDistance(nn.Module):
    """The mean squared error of two maps, the larger average-pooled first, as SimKD compares projected maps.

    L = mean over all elements of (s - t)^2

    Chen, Mei, Zhang, Wang, Feng, Chen 2022, https://arxiv.org/abs/2203.14001. Maps (B, C, H, W) of equal channels.
    """

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss, a scalar.

        Raises:
            ValueError: A tensor is no map, or the channels differ.
        """
        require_same_channels(student, teacher, loss="MapDistance")
        return F.mse_loss(*pool_to_smaller(full_precision(student), as_target(teacher)))

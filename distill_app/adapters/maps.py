"""Adapters of maps: from the shape of one network's to that of another's."""

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill_app.adapters.shapes import Shape, require_map, require_same_size
from distill_app.losses.numerics import full_precision, require_positive


def resize_map(feature: Tensor, size: tuple[int, int]) -> Tensor:
    """Brings a map (B, C, H, W) to a size: average-pools what is too large, interpolates what is too small."""
    smaller = (min(feature.shape[-2], size[0]), min(feature.shape[-1], size[1]))
    if tuple(feature.shape[-2:]) != smaller:
        feature = F.adaptive_avg_pool2d(feature, smaller)
    return feature if smaller == size else F.interpolate(feature, size, mode="bilinear", align_corners=False)


class ConvRegressor(nn.Sequential):
    """A convolution from one network's map to the shape of another's: FitNet's regressor, DAB's connector.

    The convolution is 1x1 if the sizes are equal, 3x3 with stride 2 if the target has half the size, transposed 4x4
    with stride 2 if it has twice the size. At any other ratio, and always if `pointwise`, it is 1x1 and the map is
    average-pooled before or interpolated after it.

    Romero et al. 2015, https://arxiv.org/abs/1412.6550; DAB: Heo et al. 2019, https://arxiv.org/abs/1811.03233, with
    norm and pointwise set and no bias.

    Args:
        in_shape: (B, C, H, W) of the source.
        out_shape: (B, C', H', W') of the target.
        norm: Batch norm after the convolution.
        activation: ReLU at the end.
        bias: Whether the convolution has one; default: unless a norm follows.
        pointwise: Never 3x3 with stride 2, nor 4x4.
        kernel_size: Odd; of the convolution in the place of the 1x1, which keeps the size: 3 in some published code.
        same_size: Refuses maps of other sizes, as levels of pyramids with other strides have.

    Raises:
        ValueError: Source or target is not a map, sizes differ that must not, or the kernel has no middle.
    """

    def __init__(
        self,
        in_shape: Shape,
        out_shape: Shape,
        *,
        norm: bool = False,
        activation: bool = False,
        bias: bool | None = None,
        pointwise: bool = False,
        kernel_size: int = 1,
        same_size: bool = False,
    ):
        require_map(in_shape, adapter="ConvRegressor", argument="in_shape")
        require_map(out_shape, adapter="ConvRegressor", argument="out_shape")
        if same_size:
            require_same_size(in_shape, out_shape, adapter="ConvRegressor")
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size={kernel_size} must be odd: 1, 3, 5")
        bias = not norm if bias is None else bias
        layers = self._convolution(in_shape, out_shape, bias=bias, pointwise=pointwise, kernel_size=kernel_size)
        if norm:
            layers.append(nn.BatchNorm2d(out_shape[1]))
        if activation:
            layers.append(nn.ReLU(inplace=True))
        super().__init__(*layers)

    @staticmethod
    def _convolution(
        in_shape: Shape, out_shape: Shape, *, bias: bool, pointwise: bool, kernel_size: int
    ) -> list[nn.Module]:
        (channels, *size), (out_channels, *out_size) = in_shape[1:], out_shape[1:]
        if not pointwise and out_size == [2 * side for side in size]:
            return [nn.ConvTranspose2d(channels, out_channels, 4, stride=2, padding=1, bias=bias)]
        if not pointwise and out_size != size and out_size == [(side + 1) // 2 for side in size]:
            return [nn.Conv2d(channels, out_channels, 3, stride=2, padding=1, bias=bias)]
        convolution = nn.Conv2d(channels, out_channels, kernel_size, padding=kernel_size // 2, bias=bias)
        if out_size == size:
            return [convolution]
        # A 1x1 convolution and average pooling commute; it costs less on the smaller map.
        resize = Resize(out_size)
        return [resize, convolution] if prod(out_size) < prod(size) else [convolution, resize]


class Resize(nn.Module):
    """`resize_map` as a module."""

    def __init__(self, size: Sequence[int]):
        super().__init__()
        self.size = (size[0], size[1])

    def forward(self, feature: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, *size)."""
        return resize_map(feature, self.size)

    def extra_repr(self) -> str:
        return f"size={self.size}"


class MatchChannels(nn.Sequential):
    """The source as it is if it has the target's channels, else through a 1x1 convolution or a linear layer.

    For losses that need equal widths and nothing else (FSP, L2): between networks of one family nothing is learnt, as
    in the papers. The map's size stays as it is.

    Args:
        in_shape: (B, C) or (B, C, H, W) of the source.
        out_shape: The same of the target.
        bias: Whether the convolution has one.
        same_size: Refuses maps of other sizes, as levels of pyramids with other strides have.

    Raises:
        ValueError: One is a map and the other is not, or sizes differ that must not.
    """

    def __init__(self, in_shape: Shape, out_shape: Shape, *, bias: bool = False, same_size: bool = False):
        if len(in_shape) != len(out_shape) or len(in_shape) not in (2, 4):
            raise ValueError(
                f"MatchChannels needs two maps (B, C, H, W) or two embeddings (B, C), got in_shape={tuple(in_shape)} "
                f"and out_shape={tuple(out_shape)}: name taps of one kind"
            )
        if same_size:
            require_same_size(in_shape, out_shape, adapter="MatchChannels")
        if in_shape[1] == out_shape[1]:
            super().__init__()
        elif len(in_shape) == 2:
            super().__init__(nn.Linear(in_shape[1], out_shape[1], bias=bias))
        else:
            super().__init__(nn.Conv2d(in_shape[1], out_shape[1], 1, bias=bias))


class MatchStatistics(nn.Module):
    """CrossKD's alignment: the student's maps with mean and spread of the teacher's, channel by channel.

    F' = ReLU((F_s - mean(F_s)) / (std(F_s) + 1e-6) * std(F_t) + mean(F_t))

    over samples and positions of each level; std is the unbiased one. On several processes each takes its own samples.

    Wang, Chen, Zheng, Li, Cheng, Hou 2024, https://arxiv.org/abs/2306.11369.

    Args:
        in_shape: Of the student's levels and the teacher's, lists of (B, C, H, W); or of one map of each.
        activation: Whether a ReLU follows, as where the maps are those before an activation.

    Raises:
        ValueError: These are not two lists of levels, or two maps, of equal channels.
    """

    def __init__(self, in_shape: Sequence[Any], *, activation: bool = True):
        super().__init__()
        levels = [[side] if side and isinstance(side[0], int) else list(side) for side in in_shape]
        channels = [[shape[1] for shape in side if len(shape) == 4] for side in levels]
        if len(levels) != 2 or channels[0] != channels[1] or len(channels[0]) != len(levels[0]):
            raise ValueError(
                f"MatchStatistics needs maps of the student's head and of the teacher's with the same channels, got "
                f"{in_shape}: source: [student.cls_hidden, teacher.cls_hidden]"
            )
        self.activation = activation

    def forward(self, source: Sequence[Any]) -> Any:
        """[levels (B, C, H, W), levels (B, C, h, w)] -> levels (B, C, H, W); one map of each gives one map."""
        student, teacher = source
        if isinstance(student, Tensor):
            return self._matched(student, teacher)
        return [self._matched(*each) for each in zip(student, teacher, strict=True)]

    def _matched(self, student: Tensor, teacher: Tensor) -> Tensor:
        student, teacher = full_precision(student), full_precision(teacher)
        (own_mean, own), (mean, wanted) = _statistics(student), _statistics(teacher.detach())
        out = (student - own_mean) / (own + 1e-6) * wanted + mean
        return out.relu() if self.activation else out


def _statistics(feature: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and spread of every channel, (1, C, 1, 1); a single value has no spread."""
    values = feature.shape[0] * feature.shape[2] * feature.shape[3]
    spread, mean = torch.std_mean(feature, dim=(0, 2, 3), keepdim=True, correction=min(1, values - 1))
    return mean, spread


def _convolutions(layer: type[nn.Module], channels: Sequence[int], *, norm: bool, slope: float) -> list[nn.Module]:
    """3x3 layers from each number of channels to the next, each with a leaky ReLU and, if `norm`, a batch norm."""
    layers: list[nn.Module] = []
    for before, after in pairwise(channels):
        layers.append(layer(before, after, 3, padding=1))
        if norm:
            layers.append(nn.BatchNorm2d(after))
        layers.append(nn.LeakyReLU(slope))
    return layers


class FactorEncoder(nn.Sequential):
    """Factor transfer's paraphraser (its encoder) and translator: three 3x3 convolutions C -> C -> F -> F.

    As the paraphraser it reads the teacher and has no target: F = round(k C). As the translator it reads the student
    and its target is the paraphraser's output: F is the number of channels of that, and k plays no part. The size of
    the map stays; `losses.FactorTransfer` pools if the two differ.

    Kim, Park, Kwak 2018, https://arxiv.org/abs/1802.04977.

    Args:
        in_shape: (B, C, H, W) of the source.
        out_shape: (B, F, H', W') of the factors to match, if any.
        k: Share of channels that the factors keep; 0.5 in the paper.
        norm: Batch norm after each convolution.
        slope: Of the leaky ReLUs.
    """

    def __init__(
        self,
        in_shape: Shape,
        out_shape: Shape | None = None,
        *,
        k: float = 0.5,
        norm: bool = True,
        slope: float = 0.1,
    ):
        require_map(in_shape, adapter="FactorEncoder", argument="in_shape")
        require_positive(k, argument="k")
        channels = in_shape[1]
        factors = max(round(k * channels), 1) if out_shape is None else out_shape[1]
        super().__init__(*_convolutions(nn.Conv2d, [channels, channels, factors, factors], norm=norm, slope=slope))


class FactorDecoder(nn.Sequential):
    """Factor transfer's decoder, the encoder mirrored: transposed 3x3 convolutions F -> F -> C -> C.

    It is trained with the encoder to give back the teacher's map, and not used afterwards.

    Kim, Park, Kwak 2018, https://arxiv.org/abs/1802.04977.

    Args:
        in_shape: (B, F, H, W) of the factors.
        out_shape: (B, C, H, W) of the map to give back.
        norm: Batch norm after each convolution.
        slope: Of the leaky ReLUs.
    """

    def __init__(self, in_shape: Shape, out_shape: Shape, *, norm: bool = True, slope: float = 0.1):
        require_map(in_shape, adapter="FactorDecoder", argument="in_shape")
        channels = [in_shape[1], in_shape[1], out_shape[1], out_shape[1]]
        super().__init__(*_convolutions(nn.ConvTranspose2d, channels, norm=norm, slope=slope))


class VIDRegressor(nn.Sequential):
    """VID's prediction of the teacher's map: conv1x1-ReLU-conv1x1-ReLU-conv1x1, no bias.

    A larger source is average-pooled to the target's size first; a smaller one keeps its size, and
    `losses.VariationalInformation` pools the teacher's map instead.

    Ahn et al. 2019, https://arxiv.org/abs/1904.05835.

    Args:
        in_shape: (B, C, H, W) of the source.
        out_shape: (B, C', H', W') of the target.
        hidden_channels: Of the layers between; the target's channels if None, as in the authors' code.
    """

    def __init__(self, in_shape: Shape, out_shape: Shape, *, hidden_channels: int | None = None):
        require_map(in_shape, adapter="VIDRegressor", argument="in_shape")
        require_map(out_shape, adapter="VIDRegressor", argument="out_shape")
        size = [min(side, out_side) for side, out_side in zip(in_shape[2:], out_shape[2:], strict=True)]
        hidden = hidden_channels or out_shape[1]
        layers: list[nn.Module] = [] if size == list(in_shape[2:]) else [Resize(size)]
        for before, after in ((in_shape[1], hidden), (hidden, hidden), (hidden, out_shape[1])):
            layers += [nn.Conv2d(before, after, 1, bias=False), nn.ReLU(inplace=True)]
        super().__init__(*layers[:-1])


class AveragedMap(nn.Module):
    """The average over the positions of a map; it has no parameters.

    Args:
        in_shape: (B, C, H, W) of the source.

    Raises:
        ValueError: The source is not a map.
    """

    def __init__(self, in_shape: Shape):
        super().__init__()
        require_map(in_shape, adapter="AveragedMap", argument="in_shape")

    def forward(self, feature: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C)."""
        return feature.mean(dim=(2, 3))

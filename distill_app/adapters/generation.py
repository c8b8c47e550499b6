"""Adapters of MGD and OFD: a map generated from a masked one, and the margins of pre-activations."""

import math

import torch
from torch import Tensor, nn

from distill_app.adapters.maps import Resize
from distill_app.adapters.shapes import Shape, require_map, require_same_size
from distill_app.losses.numerics import full_precision, require_choice
from distill_app.world import common_number, mean_of_means, own_rows, sum_over_ranks


class MaskedGenerator(nn.Module):
    """MGD's generator: the teacher's map from the student's, of which a random share is masked.

    G(M * A(F)): A is a 1x1 convolution where channels differ, M sets a share of the positions, or of the channels, of
    each image to zero, and G is conv3x3, ReLU, conv3x3. All positions of what is generated are compared.

    Yang, Li, Shao, Shi, Yuan, Yuan 2022, https://arxiv.org/abs/2205.01529. The mask is drawn anew in every step; in
    eval mode nothing is masked. A map of another size than the target's is average-pooled or interpolated to it first.

    Args:
        in_shape: (B, C, H, W) of the source.
        out_shape: (B, C', H', W') of the target.
        masked: Share that is masked, in expectation: 0.65 of positions for detectors of one stage, 0.45 of two, 0.75
            for segmentation; 0.15 of channels for classification.
        mask: What is masked at a time, a "position" or a "channel".
        same_size: Refuses maps of other sizes, as levels of pyramids with other strides have.

    Raises:
        ValueError: Source or target is not a map, sizes differ that must not, or the share is none.
    """

    def __init__(
        self,
        in_shape: Shape,
        out_shape: Shape,
        *,
        masked: float = 0.65,
        mask: str = "position",
        same_size: bool = False,
    ):
        super().__init__()
        require_map(in_shape, adapter="MaskedGenerator", argument="in_shape")
        require_map(out_shape, adapter="MaskedGenerator", argument="out_shape")
        if same_size:
            require_same_size(in_shape, out_shape, adapter="MaskedGenerator")
        require_choice(mask, ("position", "channel"), argument="mask")
        if not 0 <= masked < 1:
            raise ValueError(f"masked={masked} must lie between 0 and 1: the share that is masked")
        self.masked, self.mask = masked, mask
        before, after = in_shape[1], out_shape[1]
        self.resize = Resize(out_shape[2:]) if tuple(in_shape[2:]) != tuple(out_shape[2:]) else nn.Identity()
        self.align = nn.Conv2d(before, after, 1) if before != after else nn.Identity()
        self.generation = nn.Sequential(
            nn.Conv2d(after, after, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(after, after, 3, padding=1)
        )

    def forward(self, feature: Tensor, noise: Tensor | None = None) -> Tensor:
        """(B, C, H, W) -> (B, C', H', W').

        Args:
            feature: The student's map.
            noise: Numbers in [0, 1), (B, 1, H', W') or (B, C', 1, 1), in the place of those that are drawn; masked is
                what lies above one minus the share.
        """
        aligned = self.align(self.resize(feature))
        if noise is None and not self.training:
            return self.generation(aligned)
        if noise is None:
            batch, channels, height, width = aligned.shape
            shape = (batch, 1, height, width) if self.mask == "position" else (batch, channels, 1, 1)
            noise = _drawn(shape, aligned.device)
        return self.generation(aligned * (noise <= 1 - self.masked))


class MaskedTokens(nn.Module):
    """ViTKD's generator: the teacher's patches from the student's, of which a share is replaced by one learnt token.

    conv3x3, ReLU, conv3x3 of the grid of patches, after a linear layer where widths differ; only the patches that were
    masked are compared.

    Yang, Li, Zeng, Li, Yuan, Li 2022, https://arxiv.org/abs/2209.02432. Of every image as many are masked, drawn anew
    in every step; in eval mode the first ones are.

    Args:
        in_shape: (B, C, H, W) of the student's patches, as a map.
        out_shape: (B, C', H, W) of the teacher's.
        masked: Share of the patches that is masked; 0.5 in the paper.

    Raises:
        ValueError: The grids differ, or the share is none.
    """

    def __init__(self, in_shape: Shape, out_shape: Shape, *, masked: float = 0.5):
        super().__init__()
        require_map(in_shape, adapter="MaskedTokens", argument="in_shape")
        require_map(out_shape, adapter="MaskedTokens", argument="out_shape")
        if tuple(in_shape[2:]) != tuple(out_shape[2:]):
            raise ValueError(
                f"MaskedTokens compares patch by patch, and the grids differ: {tuple(in_shape[2:])} of the student's, "
                f"{tuple(out_shape[2:])} of the teacher's; both networks need patches of one size"
            )
        if not 0 < masked <= 1:
            raise ValueError(f"masked={masked} must lie above 0 and up to 1: the share that is masked")
        before, after = in_shape[1], out_shape[1]
        self.masked = masked
        self.token = nn.Parameter(torch.zeros(1, after, 1, 1))
        self.align = nn.Conv2d(before, after, 1) if before != after else nn.Identity()
        self.generation = nn.Sequential(
            nn.Conv2d(after, after, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(after, after, 3, padding=1)
        )

    def forward(self, feature: Tensor, noise: Tensor | None = None) -> dict[str, Tensor]:
        """(B, C, H, W) -> `map` (B, C', H, W) and `mask` (B, 1, H, W), 1 where a patch was masked.

        Args:
            feature: The student's patches.
            noise: Numbers (B, H W) in the place of those that are drawn; patches with the smallest stay.
        """
        aligned = self.align(feature)
        batch, _, height, width = aligned.shape
        if noise is None:
            shape = (batch, height * width)
            noise = _drawn(shape, aligned.device) if self.training else _descending(shape, aligned)
        kept = noise.argsort(dim=1)[:, : int(height * width * (1 - self.masked))]
        mask = torch.ones_like(noise, dtype=aligned.dtype).scatter_(1, kept, 0.0).view(batch, 1, height, width)
        return {"map": self.generation(torch.where(mask.bool(), self.token.to(aligned.dtype), aligned)), "mask": mask}


def _descending(shape: tuple[int, int], like: Tensor) -> Tensor:
    return -torch.arange(shape[1], device=like.device, dtype=torch.float32).expand(shape)


def _drawn(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Numbers in [0, 1), of several ranks those that one process would draw for the whole batch."""
    generator, own = torch.Generator(device).manual_seed(common_number()), own_rows(shape[0])
    return torch.rand((own.stop, *shape[1:]), generator=generator, device=device)[own]


def negative_mean(mean: Tensor, deviation: Tensor) -> Tensor:
    """E[x | x < 0] of normal distributions, such as batch norm gives with its bias and the size of its weight.

    Where hardly anything lies below zero, less than a thousandth, it is three deviations below, as in OFD's code.
    """
    standard = -mean / deviation.clamp_min(torch.finfo(deviation.dtype).tiny)
    below = 0.5 * (1 + torch.erf(standard / math.sqrt(2)))
    density = torch.exp(-standard.square() / 2) / math.sqrt(2 * math.pi)
    return torch.where(below > 1e-3, mean - deviation * density / below.clamp_min(1e-3), -3 * deviation)


class NegativeMargin(nn.Module):
    """OFD's margins: what pre-activations of each channel of the teacher's are on average, where they are negative.

    Heo, Kim, Yun, Park, Kwak, Choi 2019, https://arxiv.org/abs/1904.01866. It is taken from each batch: with "mean" as
    the mean of the negative values, the paper's definition, with "normal" as that of a normal distribution of the
    batch's mean and deviation. The authors' code computes the latter from the parameters of the last batch norm; what a
    shortcut adds behind it is left out there.

    Args:
        in_shape: (B, C, H, W) of the teacher's pre-activations.
        estimate: "mean" or "normal".

    Raises:
        ValueError: The source is not a map.
    """

    def __init__(self, in_shape: Shape, *, estimate: str = "mean"):
        super().__init__()
        require_map(in_shape, adapter="NegativeMargin", argument="in_shape")
        require_choice(estimate, ("mean", "normal"), argument="estimate")
        self.estimate = estimate

    def forward(self, feature: Tensor) -> Tensor:
        """(B, C, H, W) -> (1, C, 1, 1), without gradient."""
        feature, dims = full_precision(feature).detach(), (0, 2, 3)
        if self.estimate == "normal":
            mean = mean_of_means(feature.mean(dim=dims, keepdim=True))
            variance = mean_of_means((feature - mean).square().mean(dim=dims, keepdim=True))
            return negative_mean(mean, variance.sqrt())
        negative = feature < 0
        sums = [(feature * negative).sum(dim=dims, keepdim=True), negative.sum(dim=dims, keepdim=True)]
        total, count = sum_over_ranks(sums)
        return total / (count + 1e-6)

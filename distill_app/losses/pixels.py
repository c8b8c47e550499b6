"""Losses over maps of class logits and over features of pixels, as semantic segmentation has them."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill_app.losses.numerics import (
    as_target,
    directions,
    full_precision,
    pool_to_smaller,
    require_maps,
    require_positive,
    require_same_channels,
)
from distill_app.words import unknown

AUXILIARY = 0.4  # the weight of an auxiliary head, of Zhao et al. 2017


def outputs_of(value: Any) -> Mapping[str, Tensor]:
    """What a segmenter returns, by name: a tensor alone is `out`.

    Raises:
        ValueError: Neither a tensor nor a mapping with `out`, or what is in it are no maps of logits.
    """
    found = {"out": value} if isinstance(value, Tensor) else value
    if not isinstance(found, Mapping) or "out" not in found:
        there = f" of {', '.join(map(str, found)) or 'nothing'}" if isinstance(found, Mapping) else ""
        kind = f"{type(value).__name__}{there}"
        raise ValueError(f"a tensor or a mapping with 'out' is needed of a segmenter, not a {kind}")
    for name, each in found.items():
        if not isinstance(each, Tensor) or each.dim() != 4:
            shape = tuple(each.shape) if isinstance(each, Tensor) else type(each).__name__
            raise ValueError(f"{name} of a segmenter is a map of logits (B, C, H, W), not {shape}")
    return found


def resized_logits(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Logits (B, C, h, w) as (B, C, *size), interpolated bilinearly; corners are not aligned, as in torchvision."""
    if tuple(logits.shape[-2:]) == size:
        return logits
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)


class PixelCrossEntropy(nn.Module):
    """Cross-entropy of every pixel that has a class, of a segmenter's output and of its auxiliary ones.

    L = sum over outputs k of w_k * mean over labelled pixels of CE(z_k, y), w_out = 1

    Logits that are smaller than the map of classes are interpolated to its size first, as in torchvision. A batch
    without a labelled pixel gives 0, with gradients of 0, where torch's own has NaN.

    Args:
        weights: Name of an output -> w_k, for networks that return several; None: 0.4 for `aux` where there is one
            (Zhao et al. 2017, https://arxiv.org/abs/1612.01105), and other outputs are not learnt.
        ignore_index: The class of pixels that are left out.

    Shapes: `input` (B, C, h, w), or a mapping of such with `out`; `target` int64 (B, H, W).
    """

    def __init__(self, weights: Mapping[str, float] | None = None, *, ignore_index: int = 255):
        super().__init__()
        self.weights = None if weights is None else dict(weights)
        self.ignore_index = ignore_index

    def forward(self, input: Tensor | Mapping[str, Tensor], target: Tensor) -> Tensor:
        """The loss, a scalar.

        Raises:
            ValueError: No maps of logits, a target that is no map of classes of this batch or names a class that there
                is not, or a weight for an output that the network does not give.
        """
        outputs = outputs_of(input)
        out = outputs["out"]
        if target.dim() != 3 or target.is_floating_point() or len(target) != len(out):
            raise ValueError(
                f"PixelCrossEntropy needs a map of classes for each image, ({len(out)}, H, W) integers, got "
                f"{tuple(target.shape)} of {target.dtype}: dataset.task has to be distill_app.tasks.Segmentation"
            )
        weights = {"aux": AUXILIARY} if self.weights is None else self.weights
        for name in self.weights or ():
            if name not in outputs:
                raise ValueError(f"weights: {unknown('output', name, outputs)}")
        target = target.long()
        wanted = {"out": 1.0} | {name: weight for name, weight in weights.items() if name in outputs}
        parts = [weight * self._one(outputs[name], target) for name, weight in wanted.items() if weight]
        return torch.stack(parts).sum() if parts else out.sum() * 0

    def _one(self, logits: Tensor, target: Tensor) -> Tensor:
        full = resized_logits(full_precision(logits), (target.shape[1], target.shape[2]))
        total = F.cross_entropy(full, target, ignore_index=self.ignore_index, reduction="sum")
        return total / (target != self.ignore_index).sum().clamp(min=1)


class PairwiseSimilarity(nn.Module):
    """Structured distillation, pair-wise part: how alike the regions of an image are to each other.

    L = 1 / (B P^2) * sum_b ||A_s - A_t||_F^2,  A = f^T f of an image's P regions, each scaled to length 1

    Liu, Chen, Liu, Qin, Luo, Wang 2019, https://arxiv.org/abs/1903.04197. Regions are the maxima of cells as large as
    `scale` of the map, the last ones cut off at its border. Maps (B, C, H, W); channels may differ; if sizes do, the
    larger is average-pooled first. As in the authors' code the length is a constant of the gradient; in CIRKD's copy
    it is learnt through. A map of one position gives 0.

    Args:
        scale: Of the sides of the map; 0.5 in the paper: four regions.
        length_gradient: Whether the gradient runs through the length.
    """

    def __init__(self, scale: float = 0.5, *, length_gradient: bool = False):
        super().__init__()
        if not 0 < scale <= 1:
            raise ValueError(f"scale={scale} must be above 0 and at most 1")
        self.scale, self.length_gradient = scale, length_gradient

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss, a scalar.

        Raises:
            ValueError: A tensor is no map, or the batches differ.
        """
        require_maps(student, teacher, loss="PairwiseSimilarity")
        student, teacher = pool_to_smaller(full_precision(student), as_target(teacher))
        return (self._similarity(student) - self._similarity(teacher)).square().mean()

    def _similarity(self, feature: Tensor) -> Tensor:
        height, width = (max(1, int(self.scale * side)) for side in feature.shape[-2:])
        regions = F.max_pool2d(feature, (height, width), (height, width), ceil_mode=True).flatten(2)
        if self.length_gradient:
            regions = directions(regions, dim=1)
        else:
            regions = regions / (torch.linalg.vector_norm(regions.detach(), dim=1, keepdim=True) + 1e-8)
        return regions.transpose(1, 2) @ regions


class PixelwiseCrossEntropy(nn.Module):
    """Structured distillation, pixel-wise part: cross-entropy with the teacher's classes at every position.

    L = -1 / (B HW) * sum over positions and classes of softmax(z_t) log softmax(z_s)

    Liu, Chen, Liu, Qin, Luo, Wang 2019, https://arxiv.org/abs/1903.04197. Its gradient is that of `ChannelwiseKL` over
    channels with a temperature of 1; the value has the teacher's entropy in it, as in the authors' code. Deliberately
    different: they sum over the batch, so that their weight of 10 grows with it. Logits (B, C, H, W); if sizes differ,
    the larger is average-pooled first.
    """

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss, a scalar.

        Raises:
            ValueError: A tensor is no map, or the classes differ.
        """
        require_same_channels(student, teacher, loss="PixelwiseCrossEntropy")
        student, teacher = pool_to_smaller(full_precision(student), as_target(teacher))
        return F.cross_entropy(student, F.softmax(teacher, dim=1))


class CrossImageRelations(nn.Module):
    """Cross-image relational distillation (CIRKD), mini-batch part: which pixels of all images a pixel is like.

    L = mean over i, j of 1/N sum over pixels m of i of KL(softmax(a_t / tau) || softmax(a_s / tau)),
    a = cosines of pixel m of image i with the pixels of image j

    Yang, Zhou, An, Jiang, Xu, Zhang 2022, https://arxiv.org/abs/2204.06986. All ordered pairs of the B images of a
    batch count, an image with itself too; there is no factor tau^2. Maps (B, C, H, W); channels may differ; if sizes
    do, the larger is average-pooled. Time and memory grow as (B H W)^2: maps whose sides are `largest` or more are
    average-pooled by 4 first, as by the authors, who do so from 256 on.

    Args:
        temperature: tau.
        largest: The sides of a map from which on it is pooled.
    """

    whole_batch = True

    def __init__(self, temperature: float = 0.1, *, largest: int = 256):
        super().__init__()
        require_positive(temperature, argument="temperature")
        require_positive(largest, argument="largest")
        self.temperature, self.largest = temperature, largest

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss, a scalar.

        Raises:
            ValueError: A tensor is no map, or the batches differ.
        """
        require_maps(student, teacher, loss="CrossImageRelations")
        student, teacher = pool_to_smaller(full_precision(student), as_target(teacher))
        ours, theirs = self._pixels(student), self._pixels(teacher)
        total = ours.new_zeros(())
        for mine, wanted in zip(ours, theirs, strict=True):  # one image's rows at a time, (B, N, N) of numbers
            log_student = F.log_softmax(self._like(mine, ours), dim=2)
            total = total + F.kl_div(log_student, F.softmax(self._like(wanted, theirs), dim=2), reduction="sum")
        return total / (len(ours) ** 2 * ours.shape[2])

    def _pixels(self, feature: Tensor) -> Tensor:
        """Of length 1, (B, C, N)."""
        if min(feature.shape[-2:]) >= self.largest:
            feature = F.avg_pool2d(feature, 4, ceil_mode=True)
        return directions(feature, dim=1).flatten(2)

    def _like(self, image: Tensor, others: Tensor) -> Tensor:
        """(C, N), (B, C, N) -> (B, N, N)."""
        return image.T.unsqueeze(0) @ others / self.temperature


class IntraClassVariation(nn.Module):
    """Intra-class feature variation distillation (IFVD): how like the mean of its class every pixel is.

    L = mean over pixels of (c_s - c_t)^2,  c = cosine of a pixel with the mean of the pixels of its class in its image

    Wang, Zhou, Jiang, Bai, Xu 2020, https://www.ecva.net/papers/eccv_2020/papers_ECCV/html/1126_ECCV_2020_paper.php. As
    in the authors' code classes are those of the labels, brought to the size of the map by their nearest pixel. Pixels
    without a class are their own mean. Maps (B, C, H, W), whose channels may differ; `target` int64 (B, H', W').

    Args:
        num_classes: How many classes there are; given by the program.
        eps: Added to the number of pixels of a class.
    """

    def __init__(self, *, num_classes: int, eps: float = 1e-6):
        super().__init__()
        self.num_classes, self.eps = num_classes, eps

    def forward(self, student: Tensor, teacher: Tensor, target: Tensor) -> Tensor:
        """The loss, a scalar.

        Raises:
            ValueError: A tensor is no map, or the batches differ.
        """
        require_maps(student, teacher, loss="IntraClassVariation")
        student, teacher = pool_to_smaller(full_precision(student), as_target(teacher))
        size = (student.shape[2], student.shape[3])
        labels = F.interpolate(target.unsqueeze(1).float(), size=size, mode="nearest").squeeze(1).long()
        return (self._cosines(student, labels) - self._cosines(teacher, labels)).square().mean()

    def _cosines(self, feature: Tensor, labels: Tensor) -> Tensor:
        centres = feature
        for label in range(self.num_classes):
            inside = (labels == label).unsqueeze(1).to(feature.dtype)
            mean = (feature * inside).sum(dim=(2, 3), keepdim=True) / (inside.sum(dim=(2, 3), keepdim=True) + self.eps)
            centres = (1 - inside) * centres + inside * mean
        return (directions(feature, dim=1) * directions(centres, dim=1)).sum(dim=1)

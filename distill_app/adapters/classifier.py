"""Adapters that work with a network's classifier: class maps of CAT-KD, regions of SDD, costs of WKD."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill_app.adapters.shapes import Shape, require_map
from distill_app.losses.numerics import full_precision, require_at_least


class _Classifier(nn.Module):
    """A network's last linear layer, at every position of the map that is averaged before it.

    Args:
        in_shape: Of the map, (B, C, H, W), and of the pooled features.
        borrowed: The linear layer. It stays the network's own, with its gradients and in its checkpoint.

    Raises:
        ValueError: It is no linear layer, or one of other features than the map has channels.
    """

    def __init__(self, in_shape: Sequence[Shape], *, borrowed: nn.Module):
        super().__init__()
        name = type(self).__name__
        if len(in_shape) != 2 or isinstance(in_shape[0], int):
            raise ValueError(f"{name} reads a map and what is pooled of it: source: [student.stage4, student.pooled]")
        require_map(in_shape[0], adapter=name, argument="in_shape")
        if not isinstance(borrowed, nn.Linear) or borrowed.in_features != in_shape[0][1]:
            raise ValueError(
                f"{name} needs a network whose classifier is one linear layer on the average of its last map, which "
                f"has {in_shape[0][1]} channels; this one ends in {borrowed}"
            )
        self._borrowed = [borrowed]  # in a list, so that its parameters are not the adapter's

    def _refuse_other_pooling(self, feature: Tensor, pooled: Tensor) -> None:
        """Tried in eval mode, as shapes are probed: a class token or a norm in between makes other features."""
        average, pooled = feature.mean(dim=(2, 3)), pooled.flatten(1)
        if average.shape != pooled.shape or not torch.allclose(average, pooled, rtol=1e-3, atol=1e-4):
            raise ValueError(
                f"{type(self).__name__} needs a network whose pooled features are the average of its last map; this "
                f"one makes them in another way (a class token, a norm or an activation in between)"
            )

    def _logits(self, features: Tensor) -> Tensor:
        """(..., C) -> (..., classes)."""
        return F.linear(features, self._borrowed[0].weight, self._borrowed[0].bias)


class ClassMaps(_Classifier):
    """CAT-KD's class activation maps: the logits that every position of the last map alone would give.

    Their average over positions is the network's logits.

    Guo, Yan, Li, Lin 2023, https://openaccess.thecvf.com/content/CVPR2023/html/Guo_Class_Attention_Transfer_Based_Knowledge_Distillation_CVPR_2023_paper.html.
    The authors rebuild the networks, with a convolution in the place of pooling and linear layer; here they stay as
    they are, and `borrows: student.pooled` names the linear layer.
    """

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """[(B, C, H, W), pooled features] -> (B, classes, H, W)."""
        feature, pooled = features
        if not self.training:
            self._refuse_other_pooling(feature, pooled)
        return self._logits(feature.movedim(1, 3)).movedim(3, 1)


class RegionLogits(_Classifier):
    """SDD's regions: the logits of the whole image and of its parts, 1x1, 2x2 and 4x4.

    The map is average-pooled to 4 x 4 cells; coarser regions are averages of these, grid after grid, row by row.

    Wei, Luo, Luo 2024, https://arxiv.org/abs/2403.13512. As in the authors' code, the region of the whole image differs
    from the network's own logits where the sides of the map are no multiples of 4.

    Args:
        in_shape: Of the map, (B, C, H, W), and of the pooled features.
        borrowed: The classifier, a linear layer.
        grids: Sides, the whole image first: [1, 2] or [1, 2, 4].
    """

    def __init__(self, in_shape: Sequence[Shape], *, borrowed: nn.Module, grids: Sequence[int] = (1, 2, 4)):
        super().__init__(in_shape, borrowed=borrowed)
        if not grids or grids[0] != 1 or not set(grids) <= {1, 2, 4} or len(set(grids)) < len(grids):
            raise ValueError(f"grids={list(grids)} must begin with 1, the whole image, and be of 1, 2 and 4, each once")
        self.grids = tuple(grids)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """[(B, C, H, W), pooled features] -> (B, classes, regions)."""
        feature, pooled = features
        if not self.training:
            self._refuse_other_pooling(feature, pooled)
        cells = F.adaptive_avg_pool2d(feature, 4)
        regions = [F.adaptive_avg_pool2d(cells, side).flatten(2) for side in self.grids]
        return self._logits(torch.cat(regions, dim=2).transpose(1, 2)).transpose(1, 2)


class ReadMap(_Classifier):
    """CA-MKD: what a teacher's classifier makes of the student's map, once this has the shape of the teacher's.

    Zhang, Chen, Wang 2022, https://arxiv.org/abs/2201.00007. The gradient flows through the classifier into the map.

    Args:
        in_shape: Of the student's projected map and the teacher's, (B, C, H, W), and of the teacher's pooled features.
        borrowed: The teacher's classifier, a linear layer.
    """

    def __init__(self, in_shape: Sequence[Shape], *, borrowed: nn.Module):
        if len(in_shape) != 3 or isinstance(in_shape[0], int):
            raise ValueError(
                "ReadMap reads the student's map, the teacher's, and what is pooled of that: source: [adapters.fit, "
                "teacher.stage4, teacher.pooled]"
            )
        super().__init__(in_shape[1:], borrowed=borrowed)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """[(B, C, H, W), (B, C, H, W), pooled features] -> (B, classes)."""
        projected, feature, pooled = features
        if not self.training:
            self._refuse_other_pooling(feature, pooled)
        return self._logits(projected.mean(dim=(2, 3)))


class ClassCosts(nn.Module):
    """WKD's costs: how unlike two classes are to a network, by the directions of their rows in its classifier.

    1 - cosine of the rows, sharpened to 1 - exp(-sharpen cost).

    Lv, Yang, Li 2024, https://arxiv.org/abs/2412.08139: the option `fc` of the authors' code. Theirs for the published
    figures compares the features of many images of each class instead, by centred kernel alignment, before training.

    Args:
        borrowed: The classifier, a linear layer; it stays the network's own.
        sharpen: How soon classes count as unlike, 1 or 2 in the paper; 0 leaves the cost as it is.

    Raises:
        ValueError: It is no linear layer, or `sharpen` is below 0.
    """

    def __init__(self, *, borrowed: nn.Module, sharpen: float = 1.0):
        super().__init__()
        require_at_least(sharpen, 0, argument="sharpen")
        if not isinstance(borrowed, nn.Linear):
            raise ValueError(f"ClassCosts needs a classifier that is one linear layer, got {borrowed}")
        self._borrowed, self.sharpen = [borrowed], sharpen

    def forward(self, source: Tensor) -> Tensor:
        """Anything -> the costs (C, C), without gradient."""
        weight = self._borrowed[0].weight.detach()
        with torch.autocast(weight.device.type, enabled=False):  # products near 1 would lose what sets classes apart
            rows = F.normalize(full_precision(weight), dim=1)
            cost = 1 - rows @ rows.T
        return 1 - torch.exp(-self.sharpen * cost) if self.sharpen else cost

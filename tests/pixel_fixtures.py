"""The losses of segmenters: how each is built and fed, and which reference cases it equals."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from feature_fixtures import maps, pair
from torch import Tensor, nn

from distill_app import losses

Compute = Callable[[SimpleNamespace], Tensor]
SEGMENTERS = {
    *(f"{head}_resnet{depth}" for head in ("deeplabv3", "fcn") for depth in (50, 101)),
    *(f"{head}_mobilenet_v3_large" for head in ("deeplabv3", "lraspp")),
    *("tiny_fpn_segmenter", "tiny_fpn_segmenter_8"),
}


class WithOutputs(nn.Module):
    """A network of a user's own: a mapping of outputs, coarser than its image, and an auxiliary one."""

    def __init__(self, num_classes: int):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, stride=4, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.head, self.other = nn.Conv2d(8, num_classes, 1), nn.Conv2d(8, num_classes, 1)

    def forward(self, images):
        found = self.body(images)
        return {"out": self.head(found), "aux": self.other(found)}


def features(loss: nn.Module, student: str = "s_feat") -> Compute:
    return pair(loss, student, "t_feat")


def logits(loss: nn.Module) -> Compute:
    return pair(loss, "s_logits", "t_logits")


def of_classes(g: SimpleNamespace) -> Tensor:
    return losses.IntraClassVariation(num_classes=4)(student=g.s_feat, teacher=g.t_feat, target=g.target)


GOLDENS: dict[str, list[tuple[list[str], Compute]]] = {
    "skds": [
        (["authors_pair_scale0.5", "formula_pair_scale0.5"], features(losses.PairwiseSimilarity())),
        (["authors_pair_scale0.25", "formula_pair_scale0.25"], features(losses.PairwiseSimilarity(0.25))),
        (
            ["formula_pair_scale0.5_norm_with_gradient"],
            features(losses.PairwiseSimilarity(length_gradient=True)),
        ),
        (
            ["formula_pair_scale0.25_norm_with_gradient", "cirkd_pair_patch2"],
            features(losses.PairwiseSimilarity(0.25, length_gradient=True)),
        ),
        (["authors_pixel_over_B"], logits(losses.PixelwiseCrossEntropy())),
        (["cirkd_pixel_kl_T1"], logits(losses.ChannelwiseKL(1.0, over="channels"))),
        (["cirkd_pixel_kl_T3"], logits(losses.ChannelwiseKL(3.0, over="channels"))),
        (["cirkd_ifvd"], of_classes),
    ],
    "cirkd": [
        (["authors_minibatch", "formula_minibatch"], features(losses.CrossImageRelations(), "s_feat_same")),
        (["authors_minibatch_other_channels"], features(losses.CrossImageRelations())),
    ],
}
# The sum over the batch, which makes a weight of its size.
QUIRKS = [("skds", "authors_pixel", logits(losses.PixelwiseCrossEntropy()))]
FILES = {
    "seg_kd": ["skds"],
    "seg_cwd": ["cwd"],
    "seg_kta": ["ktaad"],
    "ifvd": ["skds"],
}


def with_classes(batch: int) -> dict[str, Any]:
    """Two networks' features and a map of classes, some pixels of which have none."""
    target = torch.arange(batch * 64).view(batch, 8, 8) % 5
    target[:, :2] = 255
    return {**maps((4, 4, 4), (6, 4, 4))(batch), "target": target}


MAKE: dict[str, tuple[Callable[[], nn.Module], Callable[[int], dict[str, Any]]]] = {
    "skds_pair": (losses.PairwiseSimilarity, maps((4, 4, 4), (6, 8, 8))),
    "skds_pair_fine": (lambda: losses.PairwiseSimilarity(0.25, length_gradient=True), maps((4, 8, 8), (6, 8, 8))),
    "skds_pixel": (losses.PixelwiseCrossEntropy, maps((5, 4, 4), (5, 8, 8))),
    "cirkd": (losses.CrossImageRelations, maps((4, 4, 4), (6, 8, 8))),
    "ifvd": (lambda: losses.IntraClassVariation(num_classes=5), with_classes),
}

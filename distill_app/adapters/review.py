"""ReviewKD's fusion of a stage with what was made of the deeper ones."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill_app.adapters.shapes import Shape


def _is_shape(shape: Any) -> bool:
    return all(isinstance(side, int) for side in shape)


def _as_map_shape(shape: Shape, *, argument: str) -> tuple[int, int, int, int]:
    if len(shape) not in (2, 4):
        raise ValueError(
            f"ReviewFusion works on maps (B, C, H, W) and embeddings (B, C), got {argument}={tuple(shape)}: "
            f"name a stage, such as stage3, or pooled"
        )
    return (*shape[:2], *shape[2:]) if len(shape) == 4 else (*shape[:2], 1, 1)  # type: ignore[return-value]


class ReviewFusion(nn.Module):
    """ReviewKD's attention-based fusion: a stage of the student's, and what was made of the deeper ones, as one map.

    x = BN(conv1x1(F)); with a residual r from the deeper fusion, brought to the size of x by nearest neighbours,
    [a, b] = sigmoid(conv1x1([x, r])) and x = a x + b r; x goes on as the residual, and BN(conv3x3(x)) is compared with
    the teacher's stage. Where the teacher's map has another size, x is brought to it by nearest neighbours.

    Chen, Liu, Zhao, Jia 2021, https://arxiv.org/abs/2104.09044. Each fusion reads the residual of the one below it:
    `source: [student.stage3, adapters.review4.residual]`; the deepest reads its stage alone. An embedding (B, C) is a
    map of one position.

    Args:
        in_shape: Of the student's stage, or that and the residual's.
        out_shape: Of the teacher's stage.
        max_channels: Of the residual; it has as many as the deepest source, up to this. 512 in the authors' code.

    Raises:
        ValueError: A shape is of no map and no embedding, or there are more than two sources.
    """

    def __init__(self, in_shape: Shape | Sequence[Shape], out_shape: Shape, *, max_channels: int = 512):
        super().__init__()
        shapes: list[Shape] = [in_shape] if _is_shape(in_shape) else list(in_shape)  # type: ignore[list-item,arg-type]
        if len(shapes) > 2:
            raise ValueError(
                f"ReviewFusion fuses a stage and the residual of a deeper fusion, got {len(shapes)} sources: "
                f"source: [student.stage3, adapters.review4.residual]"
            )
        own, *deeper = [_as_map_shape(shape, argument="in_shape") for shape in shapes]
        target = _as_map_shape(out_shape, argument="out_shape")
        channels = deeper[0][1] if deeper else min(max_channels, own[1])
        self.size = target[2:]
        self.conv1 = nn.Sequential(nn.Conv2d(own[1], channels, 1, bias=False), nn.BatchNorm2d(channels))
        self.conv2 = nn.Sequential(nn.Conv2d(channels, target[1], 3, padding=1, bias=False), nn.BatchNorm2d(target[1]))
        self.attention = nn.Sequential(nn.Conv2d(2 * channels, 2, 1), nn.Sigmoid()) if deeper else None

    def forward(self, source: Tensor | Sequence[Tensor]) -> dict[str, Tensor]:
        """The stage, or [stage, residual] -> {feature: as the teacher's map, residual: for the next fusion}."""
        feature, *residual = [source] if isinstance(source, Tensor) else list(source)
        x = self.conv1(feature if feature.dim() == 4 else feature[:, :, None, None])
        if self.attention is not None:
            deeper = F.interpolate(residual[0], x.shape[2:], mode="nearest")
            shares = self.attention(torch.cat([x, deeper], dim=1))
            x = x * shares[:, :1] + deeper * shares[:, 1:]
        if tuple(x.shape[2:]) != tuple(self.size):
            x = F.interpolate(x, self.size, mode="nearest")
        return {"feature": self.conv2(x), "residual": x}

"""Branches that make logits of a stage: exits of BYOT, and those of OFA-KD for maps and for tokens."""

import re
from collections.abc import Sequence
from math import prod

import torch.nn.functional as F
from torch import Tensor, nn

from distill_app.adapters.shapes import Shape, require_map

STAGES = 4


def _depth(stage: str) -> int:
    """How many stages come behind one, by its name."""
    if not re.fullmatch(r"stage[1-4]", stage):
        raise ValueError(f"stage={stage!r} is none of stage1 to stage4: which of the student's stages the branch reads")
    return STAGES - int(stage[-1])


class ExitBranch(nn.Module):
    """BYOT's exit of a shallow stage: a feature as wide as the network's last one, and logits of it.

    conv1x1 to C / 4, a convolution that brings the map to the size of the last stage in one stride, conv1x1 to C, each
    with batch norm and ReLU between them, average over positions, and a linear layer.

    Zhang, Song, Gao, Chen, Bao, Ma 2019, https://arxiv.org/abs/1905.08094, as in the public code. Where the stage is no
    multiple of the last one in size, the kernel is the whole part of the ratio.

    Args:
        in_shape: (B, C', H', W') of the stage.
        out_shape: Of the network's last map, (B, C, H, W), and of its pooled features.
        num_classes: Of the logits.

    Raises:
        ValueError: The stage or the last one is no map.
    """

    def __init__(self, in_shape: Shape, out_shape: Sequence[Shape], *, num_classes: int):
        super().__init__()
        if len(out_shape) != 2 or isinstance(out_shape[0], int):
            raise ValueError(
                "ExitBranch needs the last map and what is pooled: target: [student.stage4, student.pooled]"
            )
        require_map(in_shape, adapter="ExitBranch", argument="in_shape")
        require_map(out_shape[0], adapter="ExitBranch", argument="out_shape")
        width = prod(out_shape[1][1:])
        narrow = max(width // 4, 1)
        kernel = tuple(max(side // last, 1) for side, last in zip(in_shape[2:], out_shape[0][2:], strict=True))
        self.reduce = nn.Sequential(
            nn.Conv2d(in_shape[1], narrow, 1),
            nn.BatchNorm2d(narrow),
            nn.ReLU(inplace=True),
            nn.Conv2d(narrow, narrow, kernel, stride=kernel),  # type: ignore[arg-type]
            nn.BatchNorm2d(narrow),
            nn.ReLU(inplace=True),
            nn.Conv2d(narrow, width, 1),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        )
        self.linear = nn.Linear(width, num_classes)

    def forward(self, feature: Tensor) -> dict[str, Tensor]:
        """(B, C', H', W') -> `feature` (B, C) and `logits` (B, classes)."""
        pooled = self.reduce(feature).mean(dim=(2, 3))
        return {"feature": pooled, "logits": self.linear(pooled)}


class _Separable(nn.Sequential):
    """Twice a depthwise 3x3 and a pointwise convolution, batch norm and ReLU; the first one halves the map."""

    def __init__(self, before: int, after: int):
        layers: list[nn.Module] = []
        for stride, width in ((2, before), (1, after)):
            layers += [
                nn.Conv2d(before, before, 3, stride=stride, padding=1, groups=before, bias=False),
                nn.Conv2d(before, width, 1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
            ]
        super().__init__(*layers)


class ConvBranch(nn.Module):
    """OFA-KD's branch of a map: what is left of the network in separable convolutions, pooled, and a linear layer.

    Behind stage k there are 4 - k blocks, each of which halves the map and doubles the channels; the last one goes to
    the wider of both networks' pooled features. Behind stage4 it is a 1x1 convolution.

    Hao, Guo, Han, Tang, Hu, Wang, Xu 2023, https://arxiv.org/abs/2310.19444.

    Args:
        in_shape: (B, C, H, W) of the stage.
        out_shape: Of the pooled features of the student and of the teacher.
        num_classes: Of the logits.
        stage: Which one it is, stage1 to stage4.

    Raises:
        ValueError: It is no map, or no such stage.
    """

    def __init__(self, in_shape: Shape, out_shape: Sequence[Shape], *, num_classes: int, stage: str):
        super().__init__()
        require_map(in_shape, adapter="ConvBranch", argument="in_shape")
        if isinstance(out_shape[0], int):
            raise ValueError("ConvBranch needs both pooled features: target: [student.pooled, teacher.pooled]")
        depth, channels = _depth(stage), in_shape[1]
        width = max(prod(shape[1:]) for shape in out_shape)
        widths = [*(channels * 2**block for block in range(depth)), width]
        blocks: list[nn.Module] = [_Separable(widths[block], widths[block + 1]) for block in range(depth)]
        self.blocks = nn.Sequential(*(blocks or [nn.Conv2d(channels, width, 1)]))
        self.linear = nn.Linear(width, num_classes)
        self.apply(_as_in_ofa)

    def forward(self, feature: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, classes)."""
        return self.linear(self.blocks(feature).mean(dim=(2, 3)))


class _TokenBlock(nn.Module):
    """A pre-norm transformer block with four heads."""

    def __init__(self, width: int, *, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.qkv, self.proj = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        query, key, value = self.qkv(self.norm1(tokens)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        tokens = tokens + self.proj(mixed)
        return tokens + self.fc2(F.gelu(self.fc1(self.norm2(tokens))))


class TokenBranch(nn.Module):
    """OFA-KD's branch of tokens: transformer blocks, the class token or the mean of the patches, and a linear layer.

    Behind stage k there are 4 - k blocks of four heads, and one behind stage4. A map is read as patches, larger ones
    pooled to 7 x 7 first, where the authors merge patches by a linear layer; of tokens the first is the class token.

    Hao, Guo, Han, Tang, Hu, Wang, Xu 2023, https://arxiv.org/abs/2310.19444.

    Args:
        in_shape: (B, C, H, W) of a map, or (B, N, C) of tokens, the class token first.
        num_classes: Of the logits.
        stage: Which one it is, stage1 to stage4.
        heads: Of every block; the width has to be a multiple.

    Raises:
        ValueError: It is neither, its width no multiple of the heads, or no such stage.
    """

    LARGEST = 7  # side of a grid of patches

    def __init__(self, in_shape: Shape, *, num_classes: int, stage: str, heads: int = 4):
        super().__init__()
        if len(in_shape) not in (3, 4):
            raise ValueError(f"TokenBranch reads a map (B, C, H, W) or tokens (B, N, C), got {tuple(in_shape)}")
        width = in_shape[1] if len(in_shape) == 4 else in_shape[2]
        if width % heads:
            raise ValueError(f"heads={heads} do not divide the {width} channels of what TokenBranch reads")
        self.blocks = nn.Sequential(*(_TokenBlock(width, heads=heads) for _ in range(max(_depth(stage), 1))))
        self.linear = nn.Linear(width, num_classes)
        self.apply(_as_in_ofa)

    def forward(self, source: Tensor) -> Tensor:
        """(B, C, H, W) or (B, N, C) -> (B, classes)."""
        if source.dim() == 3:
            return self.linear(self.blocks(source)[:, 0])
        if max(source.shape[2:]) > self.LARGEST:
            size = (min(source.shape[2], self.LARGEST), min(source.shape[3], self.LARGEST))
            source = F.adaptive_avg_pool2d(source, size)
        return self.linear(self.blocks(source.flatten(2).transpose(1, 2)).mean(dim=1))


def _as_in_ofa(module: nn.Module) -> None:
    """Convolutions by fan-out, linear layers by a narrow truncated normal, biases zero."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
    if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)

"""Adapters of embeddings, one row for each image."""

from math import prod

import torch.nn.functional as F
from torch import Tensor, nn

from distill_app.adapters.shapes import Shape


class LinearProjector(nn.Module):
    """A linear layer on a flattened activation: the embeddings of CRD and CCKD, projectors between widths.

    Args:
        in_shape: Of the source, (B, D) or (B, C, 1, 1) or any other; all but the batch is flattened.
        out_shape: Of the target, flattened likewise; not needed if out_features is given.
        out_features: Width of the output; it wins over out_shape. 128 for CRD and CCKD in their papers.
        normalize: L2-normalise the output.
        bias: Whether the layer has one.

    Raises:
        ValueError: Neither out_features nor out_shape.
    """

    def __init__(
        self,
        in_shape: Shape,
        out_shape: Shape | None = None,
        *,
        out_features: int | None = None,
        normalize: bool = False,
        bias: bool = True,
    ):
        super().__init__()
        if out_features is None and out_shape is None:
            raise ValueError("LinearProjector needs a width: set module.out_features=128, or a target for the adapter")
        width = out_features if out_features is not None else prod(out_shape[1:])  # type: ignore[index]
        self.linear = nn.Linear(prod(in_shape[1:]), width, bias=bias)
        self.normalize = normalize

    def forward(self, activation: Tensor) -> Tensor:
        """(B, ...) -> (B, out_features)."""
        projected = self.linear(activation.flatten(1))
        return F.normalize(projected, dim=1) if self.normalize else projected


class LogVarianceHead(nn.Sequential):
    """PAD's log-variance of every target dimension, from the student's embedding: linear layer, batch norm.

    Zhang et al. 2020, https://arxiv.org/abs/2008.01458. In train mode it needs more than one sample a batch.

    Args:
        in_shape: (B, D) or (B, D, 1, 1) of the student's embedding.
        out_shape: The same of the teacher's.
    """

    def __init__(self, in_shape: Shape, out_shape: Shape):
        width = prod(out_shape[1:])
        super().__init__(nn.Flatten(), nn.Linear(prod(in_shape[1:]), width), nn.BatchNorm1d(width))


class SelfSupervisedHead(nn.Sequential):
    """SSKD's head on the pooled features: linear layer, ReLU, linear layer.

    Xu et al. 2020, https://arxiv.org/abs/2006.07114.

    Args:
        in_shape: (B, D) or (B, D, 1, 1) of the source.
        out_features: Width of the output, and of the layer between; D if None, as in the authors' code.
    """

    def __init__(self, in_shape: Shape, *, out_features: int | None = None):
        width = prod(in_shape[1:])
        out = out_features or width
        super().__init__(nn.Flatten(), nn.Linear(width, out), nn.ReLU(inplace=True), nn.Linear(out, out))

"""Batch norm over the batch of all ranks. torch's own SyncBatchNorm needs GPUs, and is a class of another name."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from distill_app.world import is_shared


def normalise_together(module: nn.Module) -> list[_BatchNorm]:
    """Lets the batch norms of a module, in training, take mean and variance over the batch of all ranks.

    The modules stay what they are: their class, weights and names. `normalise_apart` gives them back their forward.

    Args:
        module: Trained by every rank on its part of a batch.

    Returns:
        The batch norms.
    """
    norms = [part for part in module.modules() if isinstance(part, _BatchNorm)]
    for norm in norms:
        norm.forward = partial(_forward, norm)  # type: ignore[method-assign]
    return norms


def normalise_apart(norms: list[_BatchNorm]) -> None:
    """Undoes `normalise_together`."""
    for norm in norms:
        vars(norm).pop("forward", None)


@contextmanager
def _full(x: Tensor) -> Iterator[Tensor]:
    with torch.autocast(x.device.type, enabled=False):
        yield x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _forward(norm: _BatchNorm, x: Tensor) -> Tensor:
    if not norm.training or not is_shared():
        return type(norm).forward(norm, x)
    norm._check_input_dim(x)
    with _full(x) as full:
        y, mean, variance, count = _WholeNorm.apply(full, norm.weight, norm.bias, norm.eps)
    if norm.track_running_stats and norm.running_mean is not None and norm.running_var is not None:
        assert norm.num_batches_tracked is not None
        norm.num_batches_tracked.add_(1)
        share = 1.0 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
        with torch.no_grad():
            norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), share)
            unbiased = variance * (count / (count - 1).clamp(min=1))
            norm.running_var.lerp_(unbiased.to(norm.running_var.dtype), share)
    result: Tensor = y.to(x.dtype)
    return result


class _WholeNorm(torch.autograd.Function):
    """Ioffe, Szegedy 2015, https://arxiv.org/abs/1502.03167, with the statistics of all ranks' rows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> tuple[Tensor, ...]:
        over = [0, *range(2, x.dim())]
        count = x.new_tensor([float(x.numel() // x.shape[1])], dtype=torch.float64)
        own = torch.cat([x.double().sum(over) if x.device.type == "cpu" else x.sum(over).double(), count])
        dist.all_reduce(own)
        total = own[-1]
        mean = (own[:-1] / total).to(x.dtype)
        centred = x - _along(mean, x)
        squares = centred.square().sum(over).double()
        dist.all_reduce(squares)
        variance = (squares / total).to(x.dtype)
        invstd = (variance + eps).rsqrt()
        normal = centred * _along(invstd, x)
        ctx.save_for_backward(normal, invstd, weight, total)
        y = normal if weight is None else normal * _along(weight, x)
        y = y if bias is None else y + _along(bias, x)
        ctx.mark_non_differentiable(mean, variance, total)
        return y, mean, variance, total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, None]:
        normal, invstd, weight, total = ctx.saved_tensors
        dy = gradients[0]
        over = [0, *range(2, dy.dim())]
        to_bias, to_weight = dy.sum(over), (dy * normal).sum(over)
        sums = torch.stack([to_bias, to_weight]).double()
        dist.all_reduce(sums)
        means = (sums / total).to(dy.dtype)
        dx = dy - _along(means[0], dy) - normal * _along(means[1], dy)
        dx = dx * _along(invstd if weight is None else invstd * weight, dy)
        return dx, None if weight is None else to_weight, None if weight is None else to_bias, None


def _along(values: Tensor, x: Tensor) -> Tensor:
    """Values of channels, in a shape that spreads over (B, C, ...)."""
    return values.view(1, -1, *[1] * (x.dim() - 2))

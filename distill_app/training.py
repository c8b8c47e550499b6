"""An epoch of training: the innermost loop."""

import time
from collections.abc import Mapping
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from distill_app.optimize import gradient_scale
from distill_app.stage import Stage
from distill_app.tracking import Tracker


class NonFiniteLoss(RuntimeError):
    """A loss that is NaN or infinite; the weights are those of the last good step."""


def train_epoch(stage: Stage, epoch: int, *, tracker: Tracker, log_every: int) -> dict[str, float]:
    """Trains one epoch.

    Args:
        stage: The stage.
        epoch: Counted from 0.
        tracker: Gets progress, and values at every `log_every`-th step.
        log_every: In steps. Whether the loss is finite is looked at in every step, which waits for a GPU.

    Returns:
        The mean over the epoch's batches of every term, unweighted, and of the weighted `total`.

    Raises:
        NonFiniteLoss: Before the optimiser has seen the gradient of it.
    """
    stage.begin_epoch(epoch)
    sizes, every = stage.batch_sizes, stage.plan.conf.accumulation_steps
    batches = len(sizes)
    sums: dict[str, Tensor] = {}
    images, since = 0, time.perf_counter()
    for number, raw in enumerate(islice(stage.data.train, batches)):
        batch = stage.task.prepare(raw, device=stage.device)
        given = stage.cache.given(raw, batch, stage.frozen, stage.task.call)
        stage.step.epoch = epoch + number / batches
        total, values = stage.step(batch, given)
        _require_finite(stage, epoch, number, total, values, batch)
        lr = stage.optimization.lr  # of this step, before a schedule that counts steps moves on
        (total * gradient_scale(number, sizes, every)).backward()
        if (number + 1) % every == 0 or number + 1 == batches:
            stage.optimization.step()
        for name, value in {"total": total, **values}.items():
            sums[name] = sums.get(name, 0.0) + value.detach()
        images += len(raw["index"])
        tracker.advance()
        if number % log_every == 0:
            now = time.perf_counter()
            tracker.step(
                epoch=epoch,
                step=number,
                losses={name: float(value.detach()) for name, value in values.items()},
                total=float(total.detach()),
                lr=lr,
                images_per_second=images / (now - since),
                batch_size=len(raw["index"]),
            )
            images, since = 0, now
    stage.optimization.end_epoch()
    return {name: float(value) / batches for name, value in sums.items()}


def _require_finite(
    stage: Stage,
    epoch: int,
    number: int,
    total: Tensor,
    values: Mapping[str, Tensor],
    batch: Mapping[str, Any],
) -> None:
    if torch.isfinite(total):
        return
    terms = ", ".join(f"{name} = {float(value.detach()):.6g}" for name, value in values.items())
    bad = [name for name, value in values.items() if not torch.isfinite(value)] or ["the weighted sum"]
    raise NonFiniteLoss(
        f"the loss is not finite in stage {stage.plan.name!r}, epoch {epoch + 1}, step {number + 1}: {', '.join(bad)} "
        f"({terms}); lr {stage.optimization.lr:.6g}, sample indices {batch['index'].tolist()}. The weights are those "
        f"before this step; a lower stage.lr or stage.clip_grad_norm=1.0 are the usual remedies"
    )

"""What watches over an epoch: losses that are not finite, and a device without work."""

import math
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from distill_app.errors import NonFiniteLoss
from distill_app.training.stage import Stage


class IdleTime:
    """The seconds for which a device had nothing to do until a batch was there.

    Args:
        device: On a GPU marks go into its queue, so that it is its own clock that counts, and the host waits for none.
    """

    def __init__(self, device: torch.device):
        self._on_gpu = device.type == "cuda"
        self._begun: Any = None
        self._gaps: list[tuple[Any, Any]] = []  # marks at begin and end

    def begins(self) -> None:
        """A step has been handed to the device, and the next batch is asked for."""
        self._begun = self._mark()

    def ends(self) -> None:
        """The batch is there."""
        self._gaps.append((self._begun, self._mark()))

    def _mark(self) -> Any:
        if not self._on_gpu:
            return time.perf_counter()
        mark = torch.cuda.Event(enable_timing=True)
        mark.record()
        return mark

    def seconds(self) -> float:
        """Since the last time; the device must have come past all marks."""
        gaps, self._gaps = self._gaps, []
        return sum(begin.elapsed_time(end) / 1000 if self._on_gpu else end - begin for begin, end in gaps)


class _Seen(NamedTuple):
    number: int
    losses: Mapping[str, Tensor]  # the total and every term
    indices: Tensor
    lr: float


class FiniteWatch:
    """Stops the training at a loss that is not finite, with the weights from before it.

    Fused optimisers take a flag on the device: from the first bad loss on they change nothing, and the host needs to
    look only now and then. With others it looks at every step.
    """

    def __init__(self, stage: Stage):
        self._stage = stage
        self._flag = torch.zeros((), device=stage.device)
        self._seen: list[_Seen] = []
        optimizer = stage.optimization.optimizer
        self._deferred = all(group.get("fused") for group in optimizer.param_groups)
        if self._deferred:
            optimizer.found_inf = self._flag  # type: ignore[attr-defined]

    def look(self, number: int, losses: Mapping[str, Tensor], indices: Tensor) -> None:
        """Notes the losses of a step, without their graphs, before its backward."""
        bad = losses["total"].mul(0.0).ne_(0.0)  # 0 x inf and 0 x nan are nan; isfinite takes four times as long
        torch.maximum(self._flag, bad.to(self._flag.dtype), out=self._flag)
        self._seen.append(_Seen(number, losses, indices, self._stage.optimization.lr))
        if not self._deferred:
            self.settle(int(self._stage.step.epoch))

    def carried_on(self, loss: Tensor) -> Tensor:
        """The loss, and NaN behind a bad one under fp16: its scaler has a flag of its own, of one step alone."""
        return loss * torch.where(self._flag > 0, torch.nan, 1.0) if self._stage.precision.scaled else loss

    def settle(self, epoch: int) -> None:
        """Looks at the steps since the last time.

        Raises:
            NonFiniteLoss: Of the first of them whose loss is not finite.
        """
        seen, self._seen = self._seen, []
        if not self._flag:
            return
        first = next(step for step in seen if not torch.isfinite(step.losses["total"]))
        values = {name: float(value) for name, value in first.losses.items() if name != "total"}
        terms = ", ".join(f"{name} = {value:.6g}" for name, value in values.items())
        bad = [name for name, value in values.items() if not math.isfinite(value)] or ["the weighted sum"]
        raise NonFiniteLoss(
            f"the loss is not finite in stage {self._stage.plan.name!r}, epoch {epoch + 1}, step {first.number + 1}: "
            f"{', '.join(bad)} ({terms}); lr {first.lr:.6g}, sample indices {first.indices.tolist()}. The weights are "
            f"those before this step; a lower stage.lr or stage.clip_grad_norm=1.0 are the usual remedies"
        )

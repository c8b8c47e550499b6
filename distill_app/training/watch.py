"""What watches over an epoch: losses that are not finite, a device without work, terms that pull too hard."""

import math
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from distill_app.data.resident import ResidentLoader
from distill_app.errors import NonFiniteLoss
from distill_app.networks.modes import untouched
from distill_app.training.optimize import Optimization
from distill_app.training.step import Step
from distill_app.world import ALONE, World, own_share, sum_over_ranks

WAITING, WAITED = 0.3, 1.0  # share of the time, and seconds, of waiting for data from which on the user is told


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


class DataWait:
    """Says once in a stage that the training waits for its data.

    Args:
        stage: Its name.
        loader: Of its training data; more workers help no loader that has none.
        workers: How many there are.
    """

    def __init__(self, stage: str, *, loader: Any, workers: int):
        self._stage, self._workers = stage, workers
        self._quiet = isinstance(loader, ResidentLoader)
        self.seconds = 0.0  # in the epochs that are over

    def hint(self, waited: float, *, of: float) -> str | None:
        """What to do about it; None when it is little, or has been told.

        Args:
            waited: Seconds in the epoch so far.
            of: Seconds that the epoch has taken so far.
        """
        if self._quiet or waited < WAITING * of or self.seconds + waited < WAITED:
            return None
        self._quiet = True
        more = f"runtime.num_workers={max(2, 2 * self._workers)} loads in more processes"
        return f"{100 * waited / of:.0f} % of the time of stage {self._stage} goes into waiting for data; {more}"


class GradientNorms:
    """What each loss term alone pulls with: the norm of its weighted gradient over all that the step trains.

    Args:
        step: The step.
        every: Batches; None: never.
        accumulation: Batches an optimiser step; after which of them it looks.
    """

    def __init__(self, step: Step, *, every: int | None, accumulation: int = 1):
        self._step, self.every, self._accumulation = step, every, accumulation
        self.latest: dict[str, Tensor] = {}

    def look(self, number: int, batch: Mapping[str, Any], activations: Mapping[str, Any]) -> None:
        """Runs the step once more on the batch, with the weights after it, and a backward for each term."""
        if not self.every or number % self.every >= self._accumulation:
            return
        parameters = [parameter for parameter in self._step.parameters() if parameter.requires_grad]
        with untouched(self._step), torch.enable_grad():
            _, values = self._step(batch, activations)
            self.latest = {name: _gradient_norm(value * own_share(), parameters) for name, value in values.items()}

    def take(self, weights: Mapping[str, float]) -> dict[str, float]:
        """Those of the last look, each times the weight of its term; nothing since the last time: none."""
        latest, self.latest = self.latest, {}
        return {name: abs(weights[name]) * float(norm) for name, norm in latest.items()}


def _gradient_norm(value: Tensor, parameters: list[Any]) -> Tensor:
    if not value.requires_grad:
        return torch.zeros(())
    gradients = torch.autograd.grad(value.float(), parameters, retain_graph=True, allow_unused=True)
    return torch.nn.utils.get_total_norm(sum_over_ranks([each for each in gradients if each is not None]))


class _Seen(NamedTuple):
    number: int
    losses: Mapping[str, Tensor]  # the total and every term
    rows: np.ndarray
    lr: float
    flag: Tensor | None = None  # as it was once the gradients were there


class FiniteWatch:
    """Stops the training at a loss or a gradient that is not finite, with the weights from before it.

    Fused optimisers take a flag on the device: from the first bad loss on they change nothing, and the host needs to
    look only now and then. With others it looks at every step.

    Args:
        optimization: Of the stage.
        stage: Its name.
        epoch: Counted from 0.
        device: Where the losses are.
        world: The ranks; what one of them sees stops all of them at the same step.
    """

    def __init__(
        self, optimization: Optimization, *, stage: str, epoch: int, device: torch.device, world: World = ALONE
    ):
        self._optimization, self._stage, self._epoch, self._world = optimization, stage, epoch, world
        self._flag = torch.zeros((), device=device, dtype=torch.float32)  # as optimisers and the check want it
        self._one = torch.ones_like(self._flag)
        self._seen: list[_Seen] = []
        optimizer = optimization.optimizer
        self._deferred = all(group.get("fused") for group in optimizer.param_groups)
        if self._deferred:
            optimizer.found_inf = self._flag  # type: ignore[attr-defined]

    def look(self, number: int, losses: Mapping[str, Tensor], rows: np.ndarray) -> None:
        """Notes the losses of a step, without their graphs, before its backward."""
        bad = losses["total"].mul(0.0).ne_(0.0)  # 0 x inf and 0 x nan are nan; isfinite takes four times as long
        torch.maximum(self._flag, bad.to(self._flag.dtype), out=self._flag)
        self._seen.append(_Seen(number, losses, rows, self._optimization.lr))
        if not self._deferred:
            self.settle()

    def look_at_gradients(self, norm: Tensor | None = None) -> None:
        """Notes those of a step before the optimiser takes it; under fp16 the scaler does, and lowers its factor.

        Args:
            norm: Of all of them, where it is known: what is clipped by a norm that is not finite is no gradient.
        """
        if self._optimization.precision.scaled:
            return
        if norm is not None:
            torch.maximum(self._flag, norm.mul(0.0).ne_(0.0).to(self._flag.dtype), out=self._flag)
        else:
            self._look_at_all()
        self._world.largest(self._flag)  # on no rank does the optimiser take what one of them has seen
        self._seen[-1:] = [seen._replace(flag=self._flag.clone()) for seen in self._seen[-1:]]
        if not self._deferred:
            self.settle()

    def _look_at_all(self) -> None:
        gradients: dict[Any, list[Tensor]] = {}
        for parameter in self._optimization.parameters:
            if (gradient := parameter.grad) is not None and not gradient.is_complex():
                values = gradient._values() if gradient.is_sparse else gradient
                gradients.setdefault((values.device, values.dtype), []).append(values)
        for of_a_kind in gradients.values():
            # One pass over all of them, which multiplies by one and sets the flag: what scalers use.
            torch._amp_foreach_non_finite_check_and_unscale_(of_a_kind, self._flag, self._one)

    def carried_on(self, loss: Tensor) -> Tensor:
        """The loss, and NaN behind a bad one under fp16: its scaler has a flag of its own, of one step alone."""
        return loss * torch.where(self._flag > 0, torch.nan, 1.0) if self._optimization.precision.scaled else loss

    def settle(self) -> None:
        """Looks at the steps since the last time.

        Raises:
            NonFiniteLoss: Of the first of them whose loss or gradient is not finite, or of fp16 that skips all steps.
        """
        seen = self._seen
        self._seen = [] if self._deferred else seen[-1:]  # whose gradients are to come
        self._optimization.precision.refuse_stuck(self._stage)
        self._world.largest(self._flag)
        if not self._flag:
            return
        # The rank whose loss it was says so: on the others only the gradients are wrong.
        raise NonFiniteLoss(min(self._world.gather(self._told(seen)))[-1])

    def _told(self, seen: Sequence[_Seen]) -> tuple[int, bool, str]:
        """Which step it was, whether its loss is finite, and the message."""
        bad_step = (step for step in seen if step.flag or not torch.isfinite(step.losses["total"]))
        if (first := next(bad_step, None)) is None:
            return sys.maxsize, True, ""  # another rank has seen it
        finite = bool(torch.isfinite(first.losses["total"]))
        values = {name: float(value) for name, value in first.losses.items() if name != "total"}
        terms = ", ".join(f"{name} = {value:.6g}" for name, value in values.items())
        bad = [name for name, value in values.items() if not math.isfinite(value)] or ["the weighted sum"]
        what, bad = ("gradient of the loss", ["the losses themselves are"]) if finite else ("loss", bad)
        where = f"stage {self._stage!r}, epoch {self._epoch + 1}, step {first.number + 1}"
        where += f" on rank {self._world.rank}" if self._world.size > 1 else ""
        text = (
            f"the {what} is not finite in {where}: "
            f"{', '.join(bad)} ({terms}); lr {first.lr:.6g}, sample indices {first.rows.tolist()}. The weights are "
            f"those before this step; a lower stage.lr or stage.clip_grad_norm=1.0 are the usual remedies"
        )
        return first.number, finite, text

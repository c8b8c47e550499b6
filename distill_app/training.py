"""An epoch of training: the innermost loop. Between two log points it need not wait for the device."""

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor

from distill_app.optimize import gradient_scale
from distill_app.stage import Stage
from distill_app.tracking import Tracker

LONG = 60.0  # seconds of an epoch after which the user need not wait for its end to be told that data are slow


class NonFiniteLoss(RuntimeError):
    """A loss that is NaN or infinite; the weights are those of the last good step."""


def train_epoch(stage: Stage, epoch: int, *, tracker: Tracker, log_every: int) -> "EpochTraining":
    """Trains one epoch; what came out of it stands in the result. Arguments and errors are those of the class."""
    training = EpochTraining(stage, epoch, tracker=tracker, log_every=log_every)
    for _ in training.steps():
        pass
    return training


class EpochTraining:
    """One epoch, step by step.

    Args:
        stage: The stage.
        epoch: Counted from 0.
        tracker: Gets progress, and values at every `log_every`-th step.
        log_every: In steps; at these, and at the end of the epoch, values are fetched from the device.
    """

    def __init__(self, stage: Stage, epoch: int, *, tracker: Tracker, log_every: int):
        self.stage, self.epoch, self.tracker, self.log_every = stage, epoch, tracker, log_every
        self.sums: dict[str, Tensor] = {}
        self.waited = 0.0  # seconds for which the loop stood still until a batch was there
        self.began, self.seconds = 0.0, 0.0
        self.idle = IdleTime(stage.device)
        self.watch = FiniteWatch(stage)

    @property
    def losses(self) -> dict[str, float]:
        """The mean over the epoch's batches of every term, unweighted, and of the weighted `total`."""
        return {name: float(value) / self.stage.batches_per_epoch for name, value in self.sums.items()}

    @property
    def data_wait(self) -> float:
        """The share of the epoch for which the loop waited for data."""
        return self.waited / self.seconds if self.seconds else 0.0

    def _hint(self, now: float) -> None:
        share, seconds = self.waited / (now - self.began), self.stage.waited + self.waited
        if hint := self.stage.data_wait_hint(share, seconds=seconds):
            self.tracker.info(hint)

    def steps(self) -> Iterator[None]:
        """Takes one step each time it is advanced.

        Raises:
            NonFiniteLoss: The optimiser has not taken the step.
        """
        stage, epoch = self.stage, self.epoch
        stage.begin_epoch(epoch)
        sizes, every = stage.batch_sizes, stage.plan.conf.accumulation_steps
        batches = len(sizes)
        self.began = time.perf_counter()
        since_log = _SinceLog(self.began)
        self.idle.begins()
        for number, raw in enumerate(islice(stage.data.train, batches)):
            self.idle.ends()
            batch = stage.task.prepare(raw, device=stage.device)
            given = stage.given(raw, batch)
            stage.step.epoch = epoch + number / batches
            total, values = stage.step(batch, given)
            losses = {name: value.detach() for name, value in {"total": total, **values}.items()}
            self.watch.look(number, losses, raw["index"])
            lr = stage.optimization.lr  # of this step, before a schedule that counts steps moves on
            share = gradient_scale(number, sizes, every)
            loss = self.watch.carried_on(total if share == 1.0 else total * share)
            stage.precision.scale(loss).backward()
            if (number + 1) % every == 0 or number + 1 == batches:
                stage.optimization.step()
            self.sums = {name: self.sums[name] + value for name, value in losses.items()} if number else losses
            since_log.images += len(raw["index"])
            self.tracker.advance()
            if number % self.log_every == 0:
                since_log = self._log(number, losses, lr=lr, batch_size=len(raw["index"]), since=since_log)
            yield
            self.idle.begins()
        self.watch.settle(epoch)
        self.waited += self.idle.seconds()
        stage.optimization.end_epoch()
        self.seconds = time.perf_counter() - self.began
        self._hint(self.began + self.seconds)
        stage.waited += self.waited

    def _log(
        self, number: int, losses: Mapping[str, Tensor], *, lr: float, batch_size: int, since: "_SinceLog"
    ) -> "_SinceLog":
        """Hands the values of a step to the tracker, which waits for the device, and starts counting anew."""
        self.watch.settle(self.epoch)
        now, waited = time.perf_counter(), self.idle.seconds()
        self.tracker.step(
            epoch=self.epoch,
            step=number,
            losses={name: float(value) for name, value in losses.items() if name != "total"},
            total=float(losses["total"]),
            lr=lr,
            images_per_second=since.images / (now - since.began),
            data_wait=waited / (now - since.began),
            batch_size=batch_size,
        )
        self.waited += waited
        if now - self.began > LONG:
            self._hint(now)
        return _SinceLog(now)


@dataclass
class _SinceLog:
    """What has been counted since the last log point."""

    began: float  # seconds
    images: int = 0


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

"""An epoch of training: the innermost loop. Between two log points it need not wait for the device."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

from torch import Tensor

from distill_app.runs.tracking import Tracker
from distill_app.training.optimize import gradient_scale
from distill_app.training.stage import Stage
from distill_app.training.watch import FiniteWatch, IdleTime

LONG = 60.0  # seconds of an epoch after which the user need not wait for its end to be told that data are slow


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

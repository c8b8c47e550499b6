"""An epoch of training: the innermost loop. Between two log points it need not wait for the device."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from torch import Tensor

from distill_app.machine.lookout import ELSEWHERE, STEPPING, WAITING
from distill_app.machine.process import lookout
from distill_app.runs.tracking import Tracker
from distill_app.training.optimize import gradient_scale
from distill_app.training.progress import Progress
from distill_app.training.stage import Stage
from distill_app.training.watch import FiniteWatch, IdleTime

FIRST_STEPS = 2  # of a stage, which may take long
LONG = 60.0  # seconds of an epoch after which the user need not wait for its end to be told that data are slow


class EpochTraining:
    """One epoch, step by step: what is left of it from where the progress is.

    Args:
        stage: The stage.
        progress: Says which epoch it is and which step comes next; goes on with every step.
        tracker: Gets progress, and values at every `log_every`-th step.
        log_every: In steps; at these, and at the end of the epoch, values are fetched from the device.

    Attributes:
        between_steps: Whether the optimiser has taken up all gradients: where a checkpoint holds all that there is.
    """

    def __init__(self, stage: Stage, progress: Progress, *, tracker: Tracker, log_every: int):
        self.stage, self.progress, self.tracker, self.log_every = stage, progress, tracker, log_every
        self.sizes: list[int] = []  # of the epoch's batches
        self.waited = 0.0  # seconds for which the loop stood still until a batch was there
        self.began, self.seconds = 0.0, 0.0
        self.between_steps = True
        self._lookout = lookout()
        self.idle = IdleTime(stage.device)
        self.watch = FiniteWatch(
            stage.optimization,
            stage=stage.plan.name,
            epoch=progress.epoch,
            device=stage.device,
            world=stage.world,
        )

    @property
    def losses(self) -> dict[str, float]:
        """The mean over the epoch's batches of every term, unweighted, and of the weighted `total`.

        All ranks ask for it together.
        """
        sums = self.stage.world.total(self.progress.sums)
        return {name: float(value) / len(self.sizes) for name, value in sums.items()}

    @property
    def data_wait(self) -> float:
        """The share of the epoch for which the loop waited for data."""
        return self.waited / self.seconds if self.seconds else 0.0

    def steps(self) -> Iterator[None]:
        """Takes one batch each time it is advanced.

        Raises:
            NonFiniteLoss: The optimiser has not taken the step.
        """
        stage, progress, epoch = self.stage, self.progress, self.progress.epoch
        stage.begin_epoch(epoch, batch=progress.step)
        self.sizes = sizes = stage.batch_sizes
        every = stage.plan.conf.accumulation_steps
        batches = len(sizes)
        self.began = time.perf_counter()
        since_log = _SinceLog(self.began)
        self._begins_to_wait()
        for raw in islice(stage.data.train, batches - progress.step):
            self._has_a_batch()
            number = progress.step
            stage.begin_step(epoch, number)
            self.between_steps = (number + 1) % every == 0 or number + 1 == batches
            with stage.parallel.sharing(sizes[number]), stage.parallel.accumulating(last=self.between_steps):
                losses, lr = self._step(raw, number)

            progress.add(losses)
            since_log.images += sizes[number]
            self.tracker.advance()
            if number % self.log_every == 0:
                since_log = self._log(number, losses, lr=lr, batch_size=sizes[number], since=since_log)
            if self.between_steps:
                stage.compare_ranks()
            yield
            self._begins_to_wait()
        self._lookout.at(ELSEWHERE)
        self.watch.settle()
        self.waited += self.idle.seconds()
        self.seconds = time.perf_counter() - self.began
        self._hint(self.seconds)
        stage.data_wait.seconds += self.waited

    def _begins_to_wait(self) -> None:
        self._lookout.at(WAITING)
        self.idle.begins()

    def _has_a_batch(self) -> None:
        self.idle.ends()
        stage, size = self.stage, self.sizes[self.progress.step]
        stage.steps_taken += 1
        stage.steps_by_size[size] += 1
        # The first steps with so many samples may compile, or try what is fastest.
        self._lookout.at(STEPPING if stage.steps_by_size[size] > FIRST_STEPS else ELSEWHERE)

    def _step(self, raw: Mapping[str, Any], number: int) -> tuple[dict[str, Tensor], float]:
        """Forward and backward of a batch and, behind the last one of an optimiser step, that step.

        Returns:
            The losses, as this rank's part of their mean over the whole batch, and the learning rate.
        """
        stage, progress, sizes = self.stage, self.progress, self.sizes

        # What is not trained says what it knows of the batch, and the rest is one module and one formula.
        batch = stage.prepare(raw)
        activations = stage.frozen.activations(batch)
        total, values = stage.parallel.forward(batch, activations, epoch=progress.epoch + number / len(sizes))
        losses = {name: value.detach() for name, value in {"total": total, **values}.items()}

        # Before the backward, so that no weight changes by a loss that is not finite.
        self.watch.look(number, losses, batch["rows"])
        lr = stage.optimization.lr  # of this step, before a schedule that counts steps moves on
        own, ranks = len(batch["rows"]), stage.world.size
        share = gradient_scale(number, sizes, stage.plan.conf.accumulation_steps, own=own, ranks=ranks)
        loss = self.watch.carried_on(total if share == 1.0 else total * share)
        stage.precision.scale(loss).backward()
        if self.between_steps:
            self.watch.look_at_gradients(stage.optimization.clip())
            stage.optimization.step()
            for after_step in stage.after_step:
                after_step(number, batch, activations)
        if ranks > 1:
            losses = {name: value * (own / sizes[number]) for name, value in losses.items()}
        return losses, lr

    def _log(
        self, number: int, losses: Mapping[str, Tensor], *, lr: float, batch_size: int, since: "_SinceLog"
    ) -> "_SinceLog":
        """Hands the values of a step to the tracker, which waits for the device, and starts counting anew."""
        self.watch.settle()
        losses = self.stage.world.total(losses)
        now, waited = time.perf_counter(), self.idle.seconds()
        weights = self.stage.step.weights_at(self.progress.epoch + number / len(self.sizes))
        self.tracker.step(
            epoch=self.progress.epoch,
            step=number,
            losses={name: float(value) for name, value in losses.items() if name != "total"},
            total=float(losses["total"]),
            lr=lr,
            gradient_norms=self.stage.gradient_norms.take(weights),
            images_per_second=since.images / (now - since.began),
            data_wait=waited / (now - since.began),
            batch_size=batch_size,
        )
        self.waited += waited
        if now - self.began > LONG:
            self._hint(now - self.began)
        return _SinceLog(now)

    def _hint(self, seconds: float) -> None:
        if hint := self.stage.data_wait.hint(self.waited, of=seconds):
            self.tracker.info(hint)


@dataclass
class _SinceLog:
    """What has been counted since the last log point."""

    began: float  # seconds
    images: int = 0

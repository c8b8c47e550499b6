"""How far a run is: what comes next, what the stage under way has reached, and what lies behind."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from torch import Tensor

from distill_app.config.plan import StagePlan
from distill_app.errors import CheckpointError


@dataclass(frozen=True, order=True)
class Position:
    """A place in a run; the later one is the larger.

    Attributes:
        stage: Its place in the schedule, counted from 0.
        epoch: Counted from 0.
        step: Of the epoch, counted from 0; infinite for what comes after its steps.
    """

    stage: int
    epoch: int
    step: float = math.inf

    @classmethod
    def of(cls, record: Mapping[str, Any], schedule: Sequence[str]) -> "Position | None":
        """The place of a record of `metrics.jsonl`; None for one of no stage, as those of the test are."""
        stage, epoch, step = record.get("stage"), record.get("epoch"), record.get("step", math.inf)
        if stage not in schedule or not isinstance(epoch, int) or not isinstance(step, int | float):
            return None
        return cls(schedule.index(stage), epoch, step)


@dataclass
class Progress:
    """Where a run is; all of it but tensors of weights and of the optimiser that a checkpoint needs.

    Attributes:
        stage: The stage under way; None before the first one and between two.
        epoch: The epoch that comes next or is under way, counted from 0.
        step: The step of that epoch that comes next, counted from 0.
        sums: The losses of the epoch under way, summed over its steps: of every term, unweighted, and the weighted
            total; scalars on the training's device.
        best: The best value so far of what selects epochs, larger is better; None where no epoch has been judged.
        best_epoch: The epoch that reached it.
        last: The value of the last epoch that was judged.
        seconds: What the stage has taken.
        done: Stages that are over -> what they took and reached.
    """

    stage: str | None = None
    epoch: int = 0
    step: int = 0
    sums: dict[str, Tensor] = field(default_factory=dict)
    best: float | None = None
    best_epoch: int | None = None
    last: float | None = None
    seconds: float = 0.0
    done: dict[str, dict[str, Any]] = field(default_factory=dict)

    def position(self, schedule: Sequence[str]) -> Position:
        """The place of what comes next, among stages by name."""
        return Position(schedule.index(self.stage) if self.stage in schedule else -1, self.epoch, self.step)

    @property
    def checkpoint(self) -> str:
        """The name of a checkpoint of here: `distill/epoch_0003` behind that epoch, and in it with the next step."""
        if not self.step:
            return f"{self.stage}/epoch_{self.epoch - 1:04d}"
        return f"{self.stage}/epoch_{self.epoch:04d}_step_{self.step:07d}"

    def __str__(self) -> str:
        done = f"step {self.step} of epoch {self.epoch + 1}" if self.step else f"epoch {self.epoch}"
        return f"{done} of stage {self.stage}"

    def begin(self, stage: str) -> None:
        """Goes to the first step of a stage."""
        vars(self).update(vars(Progress(stage, done=self.done)))

    def add(self, losses: Mapping[str, Tensor]) -> None:
        """Takes up the losses of a step and goes on to the next one."""
        self.sums = {name: self.sums[name] + value for name, value in losses.items()} if self.sums else dict(losses)
        self.step += 1

    def judges(self, plan: StagePlan) -> bool:
        """Whether the epoch under way is judged when its steps are over: every so many, and the last in any case."""
        number, conf = self.epoch + 1, plan.conf
        ends = self.best_epoch is not None and conf.patience is not None and number - self.best_epoch > conf.patience
        return number % (conf.judge_every or 1) == 0 or number >= conf.epochs or ends

    def end_epoch(self, value: float | None) -> None:
        """Takes up what the epoch reached, and goes on to the first step of the next one.

        Args:
            value: Larger is better; None of an epoch that was not judged.
        """
        if value is not None:
            self.last = value
            if self.best is None or value > self.best:
                self.best, self.best_epoch = value, self.epoch
        self.epoch, self.step, self.sums = self.epoch + 1, 0, {}

    def end(self, plan: StagePlan) -> None:
        """Puts the stage behind."""
        reached = {"seconds": self.seconds, "best": self.best, "last": self.last}
        self.done[plan.name] = {**reached, "trained": plan.trained, "epochs": self.epoch}
        vars(self).update(vars(Progress(done=self.done)))

    def has_ended(self, plan: StagePlan) -> bool:
        """Whether nothing is left to train in a stage: it is behind, all epochs are, or it has stopped improving."""
        if plan.name in self.done:
            return True
        return self.stage == plan.name and (self.epoch >= plan.conf.epochs or self.stalls(plan))

    def stalls(self, plan: StagePlan) -> bool:
        """Whether `patience` epochs in a row of the stage under way have brought nothing better."""
        patience = plan.conf.patience
        return patience is not None and self.best_epoch is not None and self.epoch - self.best_epoch > patience

    @property
    def epoch_is_best(self) -> bool:
        """Whether the epoch that ended last is the best of its stage."""
        return self.best_epoch is not None and self.best_epoch == self.epoch - 1

    def state(self) -> dict[str, Any]:
        """What a checkpoint stores."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> "Progress":
        """What `state` returned.

        Raises:
            CheckpointError: A checkpoint of another version of the program.
        """
        names = {each.name for each in fields(cls)}
        if state.keys() != names:
            raise CheckpointError(
                "the checkpoint was written by another version of this program, which cannot be gone on with; start "
                "the run anew in another folder"
            )
        return cls(**state)

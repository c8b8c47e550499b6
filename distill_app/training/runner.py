"""The stage runner: for every stage of the schedule build, train, evaluate, checkpoint; at the end test and report."""

import time
from collections.abc import Mapping, Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

from distill_app.config.plan import StagePlan
from distill_app.data.loading import deaths_told
from distill_app.errors import WorkerDied
from distill_app.machine.lookout import ELSEWHERE
from distill_app.machine.process import lookout
from distill_app.networks.network import parameter_count, start_from
from distill_app.runs.checkpoint import Checkpoints
from distill_app.runs.saver import Saver
from distill_app.runs.stop import Interrupted, Stop
from distill_app.runs.tracking import Tracker
from distill_app.training.answers import answers_of
from distill_app.training.describe import stage_text
from distill_app.training.ending import Ending
from distill_app.training.experiment import Experiment
from distill_app.training.loop import EpochTraining
from distill_app.training.outcome import reasons_of, test_rows, write_results
from distill_app.training.preflight import refuse_what_does_not_fit, revive
from distill_app.training.progress import Position, Progress
from distill_app.training.saving import SavingPolicy
from distill_app.training.shared import SharedPrelude
from distill_app.training.stage import Stage


class StageRunner:
    """Walks through the stages; networks, adapters and learnt losses live as long as the experiment.

    Args:
        experiment: The experiment, its config checked.
        folder: The run's folder.
        tracker: Where it reports to.
        stop: Whether somebody wants it to end.
        shared: Where the points of a sweep keep preludes for each other.
    """

    def __init__(
        self,
        experiment: Experiment,
        *,
        folder: Path,
        tracker: Tracker,
        stop: Stop | None = None,
        shared: str | None = None,
    ):
        self.experiment, self.folder, self.tracker, self.stop = experiment, folder, tracker, stop or Stop()
        self.world = experiment.world
        self.plans = experiment.plans
        self.checkpoints = Checkpoints(folder / "checkpoints", keep=experiment.app.checkpoint.keep)
        self.saver = Saver(self.checkpoints, note=lambda text: tracker.note(text, level="INFO"))
        self.policy = SavingPolicy(experiment.app.checkpoint)
        self.shared = SharedPrelude(Path(shared), experiment) if shared is not None else None
        self.progress = Progress()
        self.ending = Ending(self.stop, self.world)
        self._clock = time.perf_counter()

    def run(self) -> dict[str, Any]:
        """Runs what is left of the schedule and tests what came out of it."""
        # One rank alone cannot end, or the others would wait for it: signals are heeded where all ranks look.
        together = self.stop.held() if self.world.size > 1 else nullcontext()
        with closing(self.saver), deaths_told(self.experiment.app.runtime.num_workers), together:
            self.run_stages()
            self.ending.heed()
            return self.conclude()

    def run_stages(self) -> None:
        """Trains what is left of the schedule."""
        for name, network in self.experiment.build_networks().items():
            self.tracker.info(f"{name}: {parameter_count(network.module):,} parameters, {network.origin}")
            if network.origin.warning:
                self.tracker.warning(network.origin.warning)
        state = self.restore()
        # What a later stage would not accept is told now, and not when the stages before it have been trained.
        if not self.experiment.assembled:
            refuse_what_does_not_fit(self.experiment, self.left())
        shared = self.shared
        self.ending.heed()
        if shared is not None and shared.can_be_shared and not all(self.is_over(plan) for plan in shared.plans):
            with shared.turn(self.tracker, look=self.ending.heed):
                if state is not None or not shared.take(self.progress, self.tracker):
                    state = self.run_plans(shared.plans, state)
                    shared.keep(self.progress, self.folder)
        self.run_plans(self.plans, state)

    def run_plans(self, plans: Sequence[StagePlan], state: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        """Trains what is left of some stages.

        Args:
            plans: The stages.
            state: Of the checkpoint to go on from.

        Returns:
            The same state, None once a stage has taken it up.
        """
        for plan in plans:
            if plan.name in self.progress.done:
                continue
            if self.experiment.is_skipped(plan):
                self.tracker.info(f"stage {plan.name}: skipped, {', '.join(plan.trained)} came with weights")
                continue
            if not self.progress.has_ended(plan):
                with closing(Stage(plan, self.experiment)) as stage:
                    self.begin(stage, state)
                    self.train(stage)
            self.saver.finish()
            self.end(plan)
            self.ending.heed()
            state = None
        return state

    def is_over(self, plan: StagePlan) -> bool:
        """Whether there is nothing to do in a stage."""
        return plan.name in self.progress.done or self.experiment.is_skipped(plan)

    def left(self) -> list[StagePlan]:
        """The stages in which something is left to train."""
        return [plan for plan in self.plans if not self.progress.has_ended(plan)]

    def restore(self) -> Mapping[str, Any] | None:
        """Goes back to the last checkpoint, if there is one.

        Returns:
            Its state: what the stage under way needs of it can be restored only when that has been built.
        """
        if not self.world.from_main(lambda: self.checkpoints.has("last")):
            self.tracker.rewind(lambda record: False)  # a first epoch that broke off left steps
            return None
        state = self._load("last")
        self.progress = Progress.of(state["progress"])
        self.tracker.info(f"going on after {self.progress}")
        self.tracker.rewind(self._has_happened, expected=state["records"])
        revive(self.experiment, over=[plan for plan in self.plans if plan not in self.left()], ahead=self.left())
        self.experiment.parts.load(state["parts"])
        return state

    def _load(self, mark: str) -> dict[str, Any]:
        """A checkpoint, as the first rank reads it: the others may not see its disk."""
        if self.world.size == 1:
            return self.checkpoints.load(mark, map_location=self.experiment.device)
        return self.world.from_main(lambda: self.checkpoints.load(mark))

    def _has_happened(self, record: Mapping[str, Any]) -> bool:
        """Whether a record is of before the point to go on from."""
        schedule = [plan.name for plan in self.plans]
        there = Position.of(record, schedule)
        return record.get("kind") != "test" and there is not None and there < self.progress.position(schedule)

    def begin(self, stage: Stage, state: Mapping[str, Any] | None) -> None:
        """Begins a stage, or goes on with it where a checkpoint was saved within it."""
        if state is not None:
            self.experiment.parts.load(state["parts"])
        if state is not None and self.progress.stage == stage.plan.name:
            stage.optimization.load(state["optimization"])
            stage.gradient_norms.latest = dict(state["gradient_norms"])
            stage.load_own(state["ranks"], self.progress)
        else:
            self.progress.begin(stage.plan.name)
            for role, source in stage.plan.conf.init_from.items():
                network = self.experiment.network(stage.plan.network(role))
                self.tracker.info(start_from(network, self.experiment.network(source)))
        self.tracker.info(stage_text(stage))
        for text in stage.warnings:
            self.tracker.warning(f"stage {stage.plan.name}: {text}")
        for note in stage.frozen.cache.open():
            self.tracker.info(note)
        self.tracker.samples(stage.plan.name, stage.data.sample_images)
        self.tracker.start_stage(
            stage.plan.name,
            epochs=stage.plan.conf.epochs,
            steps_per_epoch=len(stage.batch_sizes),
            first_epoch=self.progress.epoch,
            first_step=self.progress.step,
            metrics=stage.task.metrics,
        )

    def train(self, stage: Stage) -> None:
        """Trains and judges epoch by epoch, until all epochs are over or the stage has stopped improving."""
        progress, self._clock = self.progress, time.perf_counter()
        while not progress.has_ended(stage.plan):
            training = EpochTraining(
                stage, progress, tracker=self.tracker, log_every=self.experiment.app.runtime.log_every
            )
            try:
                self.train_epoch(stage, training)
            except Interrupted:
                # Whenever it came: steps that have been taken are saved, as an epoch that has not been judged.
                if progress.step and training.between_steps and not self.stop.saved:
                    with self.stop.held():
                        training.watch.settle()
                        self.save(stage)
                elif progress.epoch and not progress.step:
                    self.stop.saved = progress.checkpoint  # at the end of an epoch, before the signal was seen
                raise
        for note in stage.task.notes():
            self.tracker.info(f"stage {stage.plan.name}: {note}")
        if progress.stalls(stage.plan):
            best = (progress.best_epoch or 0) + 1
            self.tracker.info(f"stage {stage.plan.name}: ends after epoch {progress.epoch}, no better one since {best}")

    def train_epoch(self, stage: Stage, training: EpochTraining) -> None:
        """Trains what is left of an epoch, judges it where that is due, and saves what it came to."""
        progress, before, epoch = self.progress, self.progress.seconds, self.progress.epoch
        self.take_steps(stage, training)
        judged = progress.judges(stage.plan)
        if judged:
            self._settle_before_forks(stage.data.judge)
        losses = {f"loss_{name}": value for name, value in training.losses.items()}
        metrics = losses | (stage.judge() if judged else {})
        with self.stop.held():
            own: Any = metrics.get(f"{stage.data.judged_on}_loss", metrics["loss_total"])
            value, loss = self.world.from_main(lambda: (stage.value_of(metrics) if judged else None, own))
            progress.end_epoch(value)
            stage.optimization.end_epoch(value=value, loss=loss)
            self._count_seconds()
            timing = {"seconds": progress.seconds - before, "data_wait": training.data_wait}
            self.tracker.epoch(stage=stage.plan.name, epoch=epoch, metrics=metrics, timing=timing)
            self.ending.agreed()
            self.save(stage)
        self.ending.heed()

    def take_steps(self, stage: Stage, training: EpochTraining) -> None:
        """Trains what is left of the epoch; saves where that is due, and where the run shall end."""
        self._settle_before_forks(stage.data.train)
        self.policy.saved(self.progress.step)
        with self.stop.held():
            try:
                for _ in training.steps():
                    if training.between_steps and self.ending.agreed(due=self.is_due(training)):
                        training.watch.settle()
                        self.save(stage)
                        self.ending.look()
            except WorkerDied:
                # A signal to the whole group ends the processes that load: here it waits for the step all the same.
                if self.stop.requested and training.between_steps and self.world.size == 1:
                    training.watch.settle()
                    self.save(stage)
                self.stop.look()
                raise

    def is_due(self, training: EpochTraining) -> bool:
        """Whether to save within the epoch; at its end that is done once it has been judged."""
        step = self.progress.step
        return self.policy.is_due(step) and step < len(training.sizes)

    def save(self, stage: Stage) -> None:
        """A checkpoint of here, marked as the last, and as the best of its stage where it is of such an epoch."""
        progress, name, asked = self.progress, stage.plan.name, self.ending.asked
        lookout().at(ELSEWHERE)  # the others wait for the one that writes, however long its disk takes
        marks = ["last", f"{name}/last"]
        marks += [f"{name}/best"] if not progress.step and progress.epoch_is_best else []
        if asked is not None:
            self.tracker.saving(f"{asked.name} after {progress}")
        self._count_seconds()
        self.tracker.sync()  # the records that the checkpoint counts
        sums, ranks = self.world.total(progress.sums), self.world.gather(stage.own_state(progress))
        if self.world.main:
            state = {
                "progress": {**progress.state(), "sums": sums},
                "ranks": ranks if self.world.size > 1 else [],
                "parts": self.experiment.parts.state(frozen=self.experiment.frozen),
                "optimization": stage.optimization.state(),
                "gradient_norms": stage.gradient_norms.latest,
                "records": self.tracker.count,
            }
            self.saver.save(state, name=progress.checkpoint, mark=tuple(marks), wait=asked is not None)
        if asked is not None:
            self.world.wait()  # who leaves earlier would take the others along
        self.policy.saved(progress.step)
        self.stop.saved = progress.checkpoint if asked is not None else ""

    def _count_seconds(self) -> None:
        """What the stage has taken until now; what a run that was killed took since it was saved is not known."""
        now = time.perf_counter()
        self.progress.seconds += now - self._clock
        self._clock = now

    def _settle_before_forks(self, loader: Any) -> None:
        """Lets no process that loads data be forked while a checkpoint is written by a thread."""
        if getattr(loader, "will_fork", False):
            self.saver.finish()

    def end(self, plan: StagePlan) -> None:
        """Ends a stage with the weights that it hands on, and keeps of it what a later one reads."""
        parts = self.experiment.parts
        if plan.conf.select == "best" and self.progress.best_epoch is not None:
            best = self._load(f"{plan.name}/best")
            parts.load(best["parts"])
            if (epoch := best["progress"]["epoch"] - 1) != self.progress.best_epoch:
                self.tracker.warning(f"stage {plan.name}: its best epoch is lost; it ends with epoch {epoch + 1}")
                self.progress.best = None  # the value is that of other weights
        if self.world.main:
            self.tracker.answers(plan.name, lambda count: answers_of(self.experiment, plan, count=count))
        self.progress.end(plan)
        parts.forget(plans=self.left())

    def conclude(self) -> dict[str, Any]:
        """The test set, once; then weights, summary, table and plot."""
        rows = test_rows(self.experiment, self.progress.done)
        for reason in reasons_of(rows):
            self.tracker.warning(reason)
        experiment, done, tracker = self.experiment, self.progress.done, self.tracker
        leads_on = self.shared is None
        return self.world.from_main(
            lambda: write_results(experiment, done, rows=rows, tracker=tracker, leads_on=leads_on)
        )

    def data_identity(self) -> dict[str, Any]:
        """What data each stage sees, for the records."""
        return {plan.name: self.experiment.data.stage(plan).identity for plan in self.plans}

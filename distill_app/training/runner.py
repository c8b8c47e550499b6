"""The stage runner: for every stage of the schedule build, train, evaluate, checkpoint; at the end test and report.

`run_experiment` is what a launcher calls. It looks into the run's folder first: a run that was finished returns its
summary, one that was interrupted goes on after its last complete epoch, and else the run starts.
"""

import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from distill_app.config.plan import StagePlan
from distill_app.networks.network import parameter_count, start_from
from distill_app.runs.checkpoint import Checkpoints
from distill_app.runs.files import write_json
from distill_app.runs.lifecycle import recorded, run_folder
from distill_app.runs.records import refuse_other_classes, write_records
from distill_app.runs.report import final_plot, results_of
from distill_app.runs.statefile import save_weights
from distill_app.runs.tracking import Tracker
from distill_app.training.describe import stage_text
from distill_app.training.experiment import Experiment
from distill_app.training.loop import train_epoch
from distill_app.training.outcome import reasons_of, summarize, test_rows
from distill_app.training.preflight import refuse_what_does_not_fit, revive
from distill_app.training.progress import Progress
from distill_app.training.stage import Stage


def run_experiment(
    config: Mapping[str, Any], *, output_dir: str, command: list[str], experiment: Experiment | None = None
) -> dict[str, Any]:
    """Runs, resumes, or finds finished the experiment of a resolved config.

    Args:
        config: The resolved config as plain containers.
        output_dir: The run's folder.
        command: The command line, for the records.
        experiment: That of the config where it is open already.

    Returns:
        The summary, as in `summary.json`.
    """
    folder = Path(output_dir)
    with run_folder(folder, config) as finished:
        if finished is not None:
            return finished
        experiment = experiment or Experiment.of(config)
        with (
            experiment,
            Tracker(folder, tensorboard=experiment.app.runtime.tensorboard) as tracker,
            recorded(folder, tracker=tracker, config=config),
        ):
            runner = StageRunner(experiment, folder=folder, tracker=tracker)
            data = runner.data_identity()
            if runner.checkpoints.has("last"):
                refuse_other_classes(folder, data)
            write_records(folder, cfg=OmegaConf.create(dict(config)), command=command, data=data)
            for note in experiment.data_notes():
                tracker.warning(note)
            return runner.run()


class StageRunner:
    """Walks through the stages; networks, adapters and learnt losses live as long as the experiment.

    Args:
        experiment: The experiment, its config checked.
        folder: The run's folder.
        tracker: Where it reports to.
    """

    def __init__(self, experiment: Experiment, *, folder: Path, tracker: Tracker):
        self.experiment, self.folder, self.tracker = experiment, folder, tracker
        self.plans = experiment.plans
        self.checkpoints = Checkpoints(folder / "checkpoints", keep=experiment.app.runtime.keep_checkpoints)
        self.progress = Progress()

    def run(self) -> dict[str, Any]:
        """Runs what is left of the schedule and tests what came out of it."""
        for name, network in self.experiment.build_networks().items():
            self.tracker.info(f"{name}: {parameter_count(network.module):,} parameters, {network.origin}")
            if network.origin.warning:
                self.tracker.warning(network.origin.warning)
        state = self.restore()
        # What a later stage would not accept is told now, and not when the stages before it have been trained.
        if not self.experiment.assembled:
            refuse_what_does_not_fit(self.experiment, self.left())
        for plan in self.plans:
            if plan.name in self.progress.done:
                continue
            if self.experiment.is_skipped(plan):
                self.tracker.info(f"stage {plan.name}: skipped, {', '.join(plan.trained)} came with weights")
                continue
            if not self.progress.has_ended(plan):
                with closing(Stage(plan, self.experiment)) as stage:
                    self.begin(stage, state)
                    self.train(stage)
            self.end(plan)
            state = None
        return self.conclude()

    def left(self) -> list[StagePlan]:
        """The stages in which something is left to train."""
        return [plan for plan in self.plans if not self.progress.has_ended(plan)]

    def restore(self) -> dict[str, Any] | None:
        """Goes back to the last checkpoint, if there is one.

        Returns:
            Its state: what the stage under way needs of it can be restored only when that has been built.
        """
        if not self.checkpoints.has("last"):
            self.tracker.rewind(lambda record: False)  # a first epoch that broke off left steps
            return None
        state = self.checkpoints.load("last", map_location=self.experiment.device)
        self.progress = Progress.of(state["progress"])
        self.tracker.info(f"going on after epoch {self.progress.epoch} of stage {self.progress.stage}")
        self.tracker.rewind(self._has_happened)
        revive(self.experiment, over=[plan for plan in self.plans if plan not in self.left()], ahead=self.left())
        self.experiment.parts.load(state["parts"])
        return state

    def _has_happened(self, record: Mapping[str, Any]) -> bool:
        """Whether a record is of before the point to go on from."""
        order = [plan.name for plan in self.plans]
        if record.get("kind") == "test" or record.get("stage") not in order:
            return False
        step = record.get("step", float("inf"))  # the record of an epoch comes after those of its steps
        here = (order.index(str(self.progress.stage)), self.progress.epoch, self.progress.step)
        return (order.index(record["stage"]), record.get("epoch", 0), step) < here

    def begin(self, stage: Stage, state: Mapping[str, Any] | None) -> None:
        """Begins a stage, or goes on with it where a checkpoint was saved within it."""
        if state is not None:
            self.experiment.parts.load(state["parts"])
        if state is not None and self.progress.stage == stage.plan.name:
            stage.optimization.load(state["optimization"])
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
        self.tracker.start_stage(
            stage.plan.name,
            epochs=stage.plan.conf.epochs,
            steps_per_epoch=len(stage.batch_sizes),
            first_epoch=self.progress.epoch,
            metrics=stage.task.metrics,
        )

    def train(self, stage: Stage) -> None:
        """Trains and judges epoch by epoch, until all epochs are over or the stage has stopped improving."""
        progress = self.progress
        while not progress.has_ended(stage.plan):
            began, epoch = time.perf_counter(), progress.epoch
            trained = train_epoch(
                stage, progress, tracker=self.tracker, log_every=self.experiment.app.runtime.log_every
            )
            metrics = {**{f"loss_{name}": value for name, value in trained.losses.items()}, **stage.judge()}
            seconds = time.perf_counter() - began
            progress.seconds += seconds
            value, loss = stage.value_of(metrics), metrics.get(f"{stage.data.judged_on}_loss", metrics["loss_total"])
            progress.end_epoch(value)
            stage.optimization.take_up(value=value, loss=loss)
            timing = {"seconds": seconds, "data_wait": trained.data_wait}
            self.tracker.epoch(stage=stage.plan.name, epoch=epoch, metrics=metrics, timing=timing)
            self.save(stage)
        if progress.stalls(stage.plan):
            best = (progress.best_epoch or 0) + 1
            self.tracker.info(f"stage {stage.plan.name}: ends after epoch {progress.epoch}, no better one since {best}")

    def save(self, stage: Stage) -> None:
        """One checkpoint per epoch, marked as the last, and as the best of its stage where it is."""
        name = stage.plan.name
        marks = ["last", f"{name}/last", *([f"{name}/best"] if self.progress.epoch_is_best else [])]
        state = {
            "progress": self.progress.state(),
            "parts": self.experiment.parts.state(frozen=self.experiment.frozen),
            "optimization": stage.optimization.state(),
        }
        self.checkpoints.save(state, name=f"{name}/epoch_{self.progress.epoch - 1:04d}", mark=tuple(marks))

    def end(self, plan: StagePlan) -> None:
        """Ends a stage with the weights that it hands on, and keeps of it what a later one reads."""
        parts = self.experiment.parts
        if plan.conf.select == "best" and self.progress.best_epoch is not None:
            best = self.checkpoints.load(f"{plan.name}/best", map_location=self.experiment.device)
            parts.load(best["parts"])
        self.progress.end(plan)
        parts.forget(plans=self.left())

    def conclude(self) -> dict[str, Any]:
        """The test set, once; then weights, summary, table and plot."""
        experiment, done = self.experiment, self.progress.done
        rows = test_rows(experiment, done)
        for reason in reasons_of(rows):
            self.tracker.warning(reason)
        self.tracker.final(rows)
        trained = {name: experiment.network(name).module for plan in self.plans for name in plan.trained}
        averages = {f"{name}_ema": average for name, average in experiment.parts.averages.items()}
        files = {name: f"{name}.pt" for name in (*trained, *averages)}
        for name, module in {**trained, **averages}.items():
            save_weights(module, self.folder / files[name])
        summary = summarize(experiment, done, rows=rows, files=files)
        write_json(self.folder / "summary.json", summary)
        self.tracker.info("\n" + results_of(summary))
        plot = final_plot(self.folder)
        self.tracker.info(f"\nplot: {plot}\nrun:  {self.folder}")
        return summary

    def data_identity(self) -> dict[str, Any]:
        """What data each stage sees, for the records."""
        return {plan.name: self.experiment.data.stage(plan).identity for plan in self.plans}

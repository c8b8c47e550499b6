"""The stage runner: for every stage of the schedule build, train, evaluate, checkpoint; at the end test and report.

`run_experiment` is what a launcher calls. It looks into the run's folder first: a run that was finished returns its
summary, one that was interrupted goes on after its last complete epoch, and else the run starts.
"""

import json
import time
from collections.abc import Collection, Container, Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from distill_app.cache.replay import StageCache
from distill_app.config.build import Builder
from distill_app.config.cached import cached_taps
from distill_app.config.plan import StagePlan, plan_stages
from distill_app.config.schema import AppConf
from distill_app.data.stage_data import DataSource
from distill_app.errors import ConfigError
from distill_app.machine.device import choose_device, set_up
from distill_app.networks.network import build_network, networks_read, parameter_count, start_from
from distill_app.runs.checkpoint import Checkpoints
from distill_app.runs.files import write_json
from distill_app.runs.records import write_records
from distill_app.runs.report import final_plot, summary_table
from distill_app.runs.statefile import save_weights
from distill_app.runs.status import Status, run_lock
from distill_app.runs.tracking import Tracker
from distill_app.training.assemble import example_namespace
from distill_app.training.describe import stage_text
from distill_app.training.experiment import Run, to_app
from distill_app.training.loop import train_epoch
from distill_app.training.outcome import COLUMNS, summarize, test_rows
from distill_app.training.stage import Stage


def run_experiment(config: Mapping[str, Any], *, output_dir: str, command: list[str]) -> dict[str, Any]:
    """Runs, resumes, or finds finished the experiment of a resolved config.

    Args:
        config: The resolved config as plain containers.
        output_dir: The run's folder.
        command: The command line, for the records.

    Returns:
        The summary, as in `summary.json`.
    """
    folder = Path(output_dir)
    status = Status(folder)
    with run_lock(folder):
        if status.read().get("state") == "done":
            return json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        status.set("running")
        app = to_app(config)
        with Tracker(folder, tensorboard=app.runtime.tensorboard) as tracker:
            try:
                runner = StageRunner(app, output_dir=folder, tracker=tracker)
                write_records(folder, cfg=OmegaConf.create(dict(config)), command=command, data=runner.data_identity())
                summary = runner.run()
            except KeyboardInterrupt:
                status.set("failed", reason="interrupted")
                raise
            except Exception as error:
                tracker.warning(f"failed: {error}")
                status.set("failed", reason=f"{type(error).__name__}: {error}")
                raise
        status.set("done")
    return summary


class StageRunner:
    """Walks through the stages; networks, adapters and learnt losses live as long as it does.

    Args:
        app: The config, checked.
        output_dir: The run's folder.
        tracker: Where it reports to.
    """

    def __init__(self, app: AppConf, *, output_dir: Path, tracker: Tracker):
        self.app, self.folder, self.tracker = app, output_dir, tracker
        plans, errors = plan_stages(app)
        if errors:
            raise ConfigError(errors)
        set_up(app.runtime)
        device, builder = choose_device(app.runtime), Builder(app.runtime.allow)
        data = DataSource(builder=builder, runtime=app.runtime, device=device, seed=app.seed, cache=app.cache)
        self.shared = Run(app, plans, device, builder, data)
        self.plans, self.networks = plans, self.shared.parts.networks
        self.checkpoints = Checkpoints(output_dir / "checkpoints", keep=app.runtime.keep_checkpoints)
        self.done: dict[str, dict[str, Any]] = {}  # stage -> what it took and reached

    def run(self) -> dict[str, Any]:
        """Runs what is left of the schedule and tests what came out of it."""
        self.build_networks()
        state = self.last_state()
        self.refuse_caches(done=state["done"] if state is not None else ())
        for plan in self.plans:
            if self.skipped(plan):
                continue
            stage = Stage(plan, self.shared)
            if state is not None and plan.name in state["done"]:
                stage.close()
                continue
            first_epoch = self.restore(stage, state) if state is not None else self.start(stage)
            state = None
            self.run_stage(stage, first_epoch)
            stage.close()
        return self.conclude()

    def build_networks(self) -> None:
        """Every network that some stage reads or trains, with its weights; says where those came from."""
        for name in networks_read(self.plans):
            network = build_network(self.app, name, builder=self.shared.builder, device=self.shared.device)
            self.networks[name] = network
            self.tracker.info(f"{name}: {parameter_count(network.module):,} parameters, {network.origin}")

    def refuse_caches(self, *, done: Container[str] = ()) -> None:
        """Too large a teacher cache, or one that cannot be reused, is told before the first stage trains.

        Args:
            done: Stages that a resumed run has behind it.
        """
        changed: set[str] = set()  # networks that will have other weights by then
        for plan in self.plans:
            if not self._came_trained(plan):
                changed |= {plan.network(role) for role in plan.conf.init_from}
                if plan.name not in done:
                    self._refuse_cache(plan, unknown=changed)
                changed |= set(plan.trained)

    def _refuse_cache(self, plan: StagePlan, *, unknown: Collection[str]) -> None:
        """Raises CacheError for more bytes than `cache.max_gb`, and for a `cache.reuse` of something else."""
        if not cached_taps(plan, self.app.cache):
            return
        builder, device = self.shared.builder, self.shared.device
        data, task = self.shared.data.stage(plan), Stage.task_of(plan, builder)
        batch = data.example_batch(task, device=device)
        examples = example_namespace(plan, self.networks, batch, task.call, builder=builder)
        cache = StageCache(plan, app=self.app, networks=self.networks, examples=examples, data=data, device=device)
        cache.refuse_reuse(unknown=unknown)
        data.train.close()

    def _came_trained(self, plan: StagePlan) -> bool:
        trained = [self.networks[name] for name in plan.trained]
        return plan.conf.skip_if_loaded and bool(trained) and all(network.loaded for network in trained)

    def skipped(self, plan: StagePlan) -> bool:
        """Whether the stage would train only what already came trained."""
        if self._came_trained(plan):
            self.tracker.info(f"stage {plan.name}: skipped, {', '.join(plan.trained)} came with weights")
            return True
        return False

    def start(self, stage: Stage) -> int:
        """What happens once at the beginning of a stage, not after a resume."""
        for role, source in stage.plan.conf.init_from.items():
            network = self.networks[stage.plan.network(role)]
            self.tracker.info(start_from(network, self.networks[source]))
        return 0

    def run_stage(self, stage: Stage, first_epoch: int) -> None:
        """Trains and judges epoch by epoch; ends with the weights that the stage hands on."""
        plan, epochs = stage.plan, stage.plan.conf.epochs
        self.tracker.info(stage_text(stage))
        for note in stage.cache.open():
            self.tracker.info(note)
        self.tracker.start_stage(
            plan.name, epochs=epochs, steps_per_epoch=stage.batches_per_epoch, first_epoch=first_epoch
        )
        for epoch in range(first_epoch, epochs):
            began = time.perf_counter()
            trained = train_epoch(stage, epoch, tracker=self.tracker, log_every=self.app.runtime.log_every)
            metrics = {**{f"loss_{name}": value for name, value in trained.losses.items()}, **stage.judge()}
            stage.seconds += time.perf_counter() - began
            timing = {"seconds": time.perf_counter() - began, "data_wait": trained.data_wait}
            self.tracker.epoch(stage=plan.name, epoch=epoch, metrics=metrics, timing=timing)
            self.save(stage, epoch, metrics)
        if plan.conf.select == "best" and stage.best_epoch is not None:
            self.shared.parts.load(self.checkpoints.load(f"{plan.name}/best", map_location=self.shared.device)["parts"])
        self.done[plan.name] = {
            "seconds": stage.seconds,
            "best": stage.best,
            "last": stage.last,
            "trained": plan.trained,
            "epochs": epochs,
        }

    def save(self, stage: Stage, epoch: int, metrics: Mapping[str, float]) -> None:
        """One checkpoint per epoch, marked as the last, and as the best of its stage where it is."""
        name = stage.plan.name
        marks = ["last", f"{name}/last"]
        if stage.is_best(epoch, metrics):
            marks.append(f"{name}/best")
        state = {
            "stage": name,
            "epoch": epoch,
            "done": self.done,
            "parts": self.shared.parts.state(),
            **stage.state(),
        }
        self.checkpoints.save(state, name=f"{name}/epoch_{epoch:04d}", mark=tuple(marks))

    def last_state(self) -> dict[str, Any] | None:
        """The checkpoint to go on from, if there is one."""
        if not self.checkpoints.has("last"):
            self.tracker.rewind(lambda record: False)  # a first epoch that broke off left steps
            return None
        state = self.checkpoints.load("last", map_location=self.shared.device)
        self.done = dict(state["done"])
        self.tracker.info(f"going on after epoch {state['epoch'] + 1} of stage {state['stage']}")
        order = {plan.name: position for position, plan in enumerate(self.plans)}

        def happened(record: dict[str, Any]) -> bool:
            at = (order.get(record.get("stage", ""), len(order)), record.get("epoch", 0))
            return record.get("kind") != "test" and at <= (order[state["stage"]], state["epoch"])

        self.tracker.rewind(happened)
        return state

    def restore(self, stage: Stage, state: Mapping[str, Any]) -> int:
        """Puts everything back as it was after the checkpoint's epoch."""
        self.shared.parts.load(state["parts"])
        if state["stage"] != stage.plan.name:  # the stage before had ended, this one had not begun
            return self.start(stage)
        stage.load(state)
        return state["epoch"] + 1

    def conclude(self) -> dict[str, Any]:
        """The test set, once; then weights, summary, table and plot."""
        rows = test_rows(self.shared, self.done)
        self.shared.data.close()
        self.tracker.final(rows)
        files = {name: f"{name}.pt" for plan in self.plans for name in plan.trained}
        for name, file in files.items():
            save_weights(self.networks[name].module, self.folder / file)
        summary = summarize(self.shared, self.done, rows=rows, files=files)
        write_json(self.folder / "summary.json", summary)
        self.tracker.info("\n" + summary_table(rows, COLUMNS))
        plot = final_plot(self.folder)
        self.tracker.info(f"\nplot: {plot}\nrun:  {self.folder}")
        return summary

    def data_identity(self) -> dict[str, Any]:
        """What data each stage sees, for the records."""
        return {plan.name: self.shared.data.stage(plan).identity for plan in self.plans}

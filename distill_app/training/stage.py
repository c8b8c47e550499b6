"""One stage, built: its data, the networks it runs with hooks up to the last tap read, its step and its optimiser."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from distill_app.cache.replay import StageCache
from distill_app.config.build import Builder
from distill_app.config.plan import StagePlan, adapter_confs
from distill_app.data.resident import ResidentLoader
from distill_app.data.stage_data import StageData
from distill_app.errors import SettingError
from distill_app.networks.folding import FrozenForm
from distill_app.networks.hooks import TappedModel
from distill_app.networks.modes import evaluating, untouched
from distill_app.networks.run import run_frozen
from distill_app.networks.taps import first_rows
from distill_app.seeds import stable_hash
from distill_app.training.assemble import Context, assemble, example_namespace, redesign_of
from distill_app.training.experiment import Run
from distill_app.training.frozen import OnDemand
from distill_app.training.optimize import Optimization, optimization, optimizer_steps
from distill_app.training.precision import Precision
from distill_app.training.step import Step
from distill_app.training.trainable import frozen_modules, set_trainable

WAITING, WAITED = 0.3, 1.0  # share of the time, and seconds, of waiting for data from which on the user is told


class Stage:
    """A plan, built around the networks, adapters and losses of the run.

    Args:
        plan: The stage.
        run: Where the networks, data and device are.

    Raises:
        ConfigError: Parts do not fit each other.
        ValueError: The data cannot give what the stage asks for.
    """

    def __init__(self, plan: StagePlan, run: Run):
        self.plan, self.device, self.seed = plan, run.device, run.app.seed
        self.best: float | None = None
        self.last: float | None = None
        self.best_epoch: int | None = None
        self.seconds = 0.0
        self.waited = 0.0  # seconds for data, in the epochs that are over
        self._hinted = False
        self._runtime = run.app.runtime
        self.networks = run.parts.networks
        self.data: StageData = run.data.stage(plan)
        self.task: Any = self.task_of(plan, run.builder)
        set_trainable(self.networks, plan)
        self.examples = example_namespace(
            plan, self.networks, self.example_batch(), self.task.call, builder=run.builder
        )
        self.redesigns = {name: redesign_of(plan, name, run.builder) for name in plan.taps}
        self.tapped = {name: self._tapped(name) for name in plan.taps}
        self.precision = Precision(run.app.runtime.precision, run.device)
        frozen = [name for name in self.tapped if name not in plan.trained]
        self.forms = {name: self._form(name) for name in frozen}
        self.frozen = OnDemand(frozen, self._ready)
        self.cache = StageCache(
            plan, app=run.app, networks=self.networks, examples=self.examples, data=self.data, device=run.device
        )
        context = Context(run.builder, run.device, run.app.seed, self.data.arguments(num_classes=plan.data.num_classes))
        confs = adapter_confs(run.plans, plan)
        self.step: Step = assemble(
            plan, confs, self.tapped, self.examples, run.parts, context, self.task.call, self.precision
        )
        self.unused = self._freeze()
        self._refuse_single_sample()
        if run.app.runtime.compile:
            torch.compiler.reset()  # stages share code objects, of which only a few versions are kept
            for name in plan.trained:
                self._compile(self.tapped[name])
        self.optimization: Optimization = optimization(
            self.step,
            plan,
            builder=run.builder,
            steps_per_epoch=self.optimizer_steps_per_epoch,
            precision=self.precision,
        )

    @staticmethod
    def task_of(plan: StagePlan, builder: Builder) -> Any:
        """The task that the data of a stage is for."""
        data = plan.data
        return builder.build(
            data.task, key=f"{plan.data_key}.task", normalize=data.normalize, num_classes=data.num_classes
        )

    @property
    def batches_per_epoch(self) -> int:
        """How many batches an epoch has."""
        limit = self._runtime.max_steps_per_epoch
        return min(len(self.data.order), limit) if limit else len(self.data.order)

    @property
    def batch_sizes(self) -> list[int]:
        """How many samples each batch of an epoch has; the last one may be smaller."""
        size, total = self.plan.conf.batch_size, self.data.order.num_samples
        return [min(size, total - start * size) for start in range(self.batches_per_epoch)]

    @property
    def optimizer_steps_per_epoch(self) -> int:
        """How many times the optimiser steps in an epoch."""
        return optimizer_steps(self.batches_per_epoch, self.plan.conf.accumulation_steps)

    def example_batch(self, count: int = 2) -> dict[str, Any]:
        """The first samples of the training data, prepared."""
        return self.data.example_batch(self.task, device=self.device, count=count)

    def _freeze(self) -> list[str]:
        """Takes out of training what the config freezes, and what no loss term depends on; returns the latter."""
        self.step.held = frozen_modules(self.networks, self.plan)
        for module in self.step.held:
            module.requires_grad_(False)
        for name, adapter in self.step.adapters.items():
            adapter.requires_grad_(name in self.plan.trained_adapters)
        unused = self._dry_backward(self.example_batch())
        for name, parameter in self.step.named_parameters():
            if name in unused:
                parameter.requires_grad_(False)
        return unused

    def _tapped(self, name: str, module: nn.Module | None = None) -> TappedModel:
        """A network with its hooks, or another form of it."""
        return self.networks[name].tapped(
            self.plan.taps[name], stage=self.plan.name, redesign=self.redesigns[name], module=module
        )

    def _form(self, name: str) -> FrozenForm:
        """How a frozen network will run; made when its weights are known."""
        network, runs = self.networks[name], self.redesigns[name] != []

        def run(module: nn.Module) -> dict[str, Any]:
            with self._tapped(name, module) as tapped:
                return self.task.call(tapped, self.examples["batch"])

        def own() -> dict[str, Any]:
            with evaluating(self.tapped[name]):
                return self.task.call(self.tapped[name], self.examples["batch"])

        paths, fold = network.paths(self.plan.taps[name]), self._runtime.fold_batch_norm and runs
        if fold:
            with untouched(network.module), torch.no_grad():
                own()  # learns where to stop
        return FrozenForm(network.module, paths, run=run, fold=fold, dtype=self.precision.dtype, own=own)

    def _ready(self, name: str) -> TappedModel:
        """A frozen network as it runs in training; its weights must be those of the training by now."""
        self.tapped[name].close()
        network = self._tapped(name, self.forms[name].build()).eval()
        if self.redesigns[name] != []:
            with self.precision.forward(), untouched(network), torch.no_grad():
                self.task.call(network, self.examples["batch"])  # learns where to stop
        self.tapped[name] = network
        self._compile(network)
        return network

    def _compile(self, network: TappedModel) -> None:
        """Compiles a network in place, once it has learned where to stop."""
        if self._runtime.compile:
            network.compile(backend=self._runtime.compile_backend)

    def given(self, raw: Mapping[str, Any], batch: Mapping[str, Any]) -> dict[str, Any]:
        """What the networks that are not trained say of a batch, from the cache or computed.

        Args:
            raw: As loaded, with the indices on the host.
            batch: The same, prepared.
        """
        with self.precision.forward():
            return self.cache.given(raw, batch, self.frozen, self.task.call)

    def _dry_backward(self, batch: dict[str, Any]) -> list[str]:
        self.enter_training()
        running = {name: self.tapped[name] for name in self.frozen if self.redesigns[name] != []}
        given = run_frozen(running, batch, self.task.call)
        count, of = len(batch["index"]), len(self.examples["batch"]["index"])
        stored = {name: self.examples[name] for name in self.frozen if name not in running}
        given |= first_rows(stored, count, of=of)
        return self.step.unused_parameters(batch, given)

    def enter_training(self) -> None:
        """Train mode for the step, eval mode for every network outside of it."""
        self.step.train()
        for name in self.frozen:
            self.tapped[name].eval()

    def _refuse_single_sample(self) -> None:
        """A batch of one, where batch norm has one value per channel, fails here and not after an epoch."""
        if 1 not in self.batch_sizes:
            return
        try:
            self._dry_backward(self.example_batch(1))
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            count, size = self.data.order.num_samples, self.plan.conf.batch_size
            remedy = "set stage.drop_last=true or another stage.batch_size" if size > 1 else "set stage.batch_size=32"
            raise SettingError(
                f"{self.plan.key}.batch_size: {count} samples in batches of {size} leave a batch of one sample, which "
                f"batch norm cannot normalise while training; {remedy}"
            ) from error

    def begin_epoch(self, epoch: int) -> None:
        """Order, augmentation and random state of the epoch, all functions of (seed, stage, epoch)."""
        self.cache.open()
        self.data.order.set_epoch(epoch)
        torch.manual_seed(stable_hash(self.seed, "epoch", self.plan.name, epoch) % 2**63)
        self.enter_training()

    def data_wait_hint(self, share: float, *, seconds: float) -> str | None:
        """What to do about waiting for data; None when it is little, or has been told.

        Args:
            share: Of the time of the epoch.
            seconds: In the stage so far.
        """
        little = share < WAITING or seconds < WAITED
        if little or self._hinted or isinstance(self.data.train, ResidentLoader):
            return None
        self._hinted, workers = True, self._runtime.num_workers
        more = f"runtime.num_workers={max(2, 2 * workers)} loads in more processes"
        return f"{100 * share:.0f} % of the time of stage {self.plan.name} goes into waiting for data; {more}"

    def judge(self) -> dict[str, float]:
        """Metrics of the first network that the stage trains, on the split that epochs are judged on."""
        if not self.plan.trained:
            return {}
        module = self.networks[self.plan.trained[0]].module
        metrics = self.task.evaluate(module, self.data.judge, device=self.device)
        return {f"{self.data.judged_on}_{name}": value for name, value in metrics.items()}

    def is_best(self, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Whether the epoch is the best of the stage so far: by the task's metric, else by the total loss."""
        value = metrics.get(f"{self.data.judged_on}_{self.task.metric}", -metrics["loss_total"])
        self.last = value
        if self.best is not None and value <= self.best:
            return False
        self.best, self.best_epoch = value, epoch
        return True

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs beside the weights."""
        return {
            "optimization": self.optimization.state(),
            "best": self.best,
            "last": self.last,
            "best_epoch": self.best_epoch,
            "seconds": self.seconds,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Restores what `state` returned."""
        self.optimization.load(state["optimization"])
        self.best, self.best_epoch, self.last = state["best"], state["best_epoch"], state["last"]
        self.seconds = state["seconds"]

    def close(self) -> None:
        """Takes the hooks out and ends the processes that load."""
        self.cache.close()
        self.data.train.close()
        for network in self.tapped.values():
            network.close()

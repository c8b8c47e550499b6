"""One stage, built: its data, the networks it runs with hooks up to the last tap read, its step and its optimiser."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import default_collate

from distill_app.assemble import Context, assemble, example_namespace
from distill_app.build import Builder
from distill_app.data.order import stable_hash
from distill_app.data.stage_data import StageData
from distill_app.hooks import TappedModel
from distill_app.networks import Network, frozen_modules, parameter_count
from distill_app.optimize import Optimization, optimization, optimizer_steps
from distill_app.step import Step, run_frozen
from distill_app.wiring import StagePlan

if TYPE_CHECKING:
    from distill_app.runner import StageRunner


class Stage:
    """What `prepare` built for a plan; see its attributes."""

    plan: StagePlan
    data: StageData
    task: Any
    step: Step
    frozen: dict[str, TappedModel]  # run without gradient, by name
    optimization: Optimization
    device: torch.device
    seed: int
    unused: list[str]  # parameters that no loss term depends on
    best: float | None = None
    best_epoch: int | None = None
    seconds: float = 0.0

    @classmethod
    def prepare(cls, plan: StagePlan, runner: "StageRunner") -> "Stage":
        """Builds a stage around the networks, adapters and losses of the run.

        Raises:
            ConfigError: Parts do not fit each other.
            ValueError: The data cannot give what the stage asks for.
        """
        stage = cls()
        stage.plan, stage.device, stage.seed = plan, runner.device, runner.app.seed
        stage.data = runner.data.stage(plan)
        stage.task = cls.task_of(plan, runner.builder)
        stage._runtime = runner.app.runtime
        networks = runner.parts.networks
        stage._networks = networks
        set_trainable(networks, plan)
        examples = example_namespace(plan, networks, stage.example_batch(), stage.task.call)
        tapped = {name: networks[name].tapped(taps, stage=plan.name) for name, taps in plan.taps.items()}
        stage.frozen = {name: network for name, network in tapped.items() if name not in plan.trained}
        arguments = stage.data.arguments(num_classes=plan.data.num_classes)
        context = Context(runner.builder, runner.device, runner.app.seed, arguments)
        confs = adapter_confs(runner.plans, plan)
        stage.step = assemble(plan, confs, tapped, examples, runner.parts, context, stage.task.call)
        stage._freeze(networks)
        stage._refuse_single_sample()
        stage.optimization = optimization(
            stage.step, plan, builder=runner.builder, steps_per_epoch=stage.optimizer_steps_per_epoch
        )
        return stage

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
    def optimizer_steps_per_epoch(self) -> int:
        """How many times the optimiser steps in an epoch."""
        return optimizer_steps(self.batches_per_epoch, self.plan.conf.accumulation_steps)

    def example_batch(self, count: int = 2) -> dict[str, Any]:
        """The first samples of the training data, prepared."""
        samples = self.data.train.dataset
        keys = [(position % len(samples), 0) for position in range(count)]  # type: ignore[arg-type]
        return self.task.prepare(default_collate(samples.__getitems__(keys)), device=self.device)  # type: ignore[attr-defined]

    def _freeze(self, networks: Mapping[str, Network]) -> None:
        """Takes out of training what the config freezes and what no loss term depends on."""
        self.step.held = frozen_modules(networks, self.plan)
        for module in self.step.held:
            module.requires_grad_(False)
        for name, adapter in self.step.adapters.items():
            adapter.requires_grad_(name in self.plan.trained_adapters)
        self.enter_training()
        batch = self.example_batch()
        unused = set(self.step.unused_parameters(batch, run_frozen(self.frozen, batch, self.task.call)))
        for name, parameter in self.step.named_parameters():
            if name in unused:
                parameter.requires_grad_(False)
        self.unused = sorted(unused)

    def enter_training(self) -> None:
        """Train mode for the step, eval mode for every network outside of it."""
        self.step.train()
        for network in self.frozen.values():
            network.eval()

    def _refuse_single_sample(self) -> None:
        """A last batch of one, where batch norm has one value per channel, fails here and not after an epoch."""
        order, conf = self.data.order, self.plan.conf
        if conf.drop_last or order.num_samples % conf.batch_size != 1:
            return
        batch = self.example_batch(1)
        try:
            self.step.unused_parameters(batch, run_frozen(self.frozen, batch, self.task.call))
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise ValueError(
                f"{self.plan.key}.batch_size: {order.num_samples} samples in batches of {conf.batch_size} leave a last "
                f"batch of one, which batch norm cannot normalise; set stage.drop_last=true or another batch size"
            ) from error

    def begin_epoch(self, epoch: int) -> None:
        """Order, augmentation and random state of the epoch, all functions of (seed, stage, epoch)."""
        self.data.order.set_epoch(epoch)
        torch.manual_seed(stable_hash(self.seed, "epoch", self.plan.name, epoch) % 2**63)
        self.enter_training()

    def judge(self) -> dict[str, float]:
        """Metrics of the first network that the stage trains, on the split that epochs are judged on."""
        if not self.plan.trained:
            return {}
        module = self._networks[self.plan.trained[0]].module
        metrics = self.task.evaluate(module, self.data.judge, device=self.device)
        return {f"{self.data.judged_on}_{name}": value for name, value in metrics.items()}

    def is_best(self, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Whether the epoch is the best of the stage so far: by the task's metric, else by the total loss."""
        value = metrics.get(f"{self.data.judged_on}_{self.task.metric}", -metrics["loss_total"])
        if self.best is not None and value <= self.best:
            return False
        self.best, self.best_epoch = value, epoch
        return True

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs beside the weights."""
        return {
            "optimization": self.optimization.state(),
            "best": self.best,
            "best_epoch": self.best_epoch,
            "seconds": self.seconds,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Restores what `state` returned."""
        self.optimization.load(state["optimization"])
        self.best, self.best_epoch, self.seconds = state["best"], state["best_epoch"], state["seconds"]

    def describe(self) -> str:
        """What the stage trains, what it runs and how far, and its terms, in a few lines."""
        lines = [
            f"\nstage {self.plan.name} on {self.data.identity['dataset']}: {len(self.data.indices)} images"
        ]
        for name, network in {**self.step.networks, **self.frozen}.items():
            stop = network.stops_at  # type: ignore[union-attr]
            mode = "trained" if name in self.plan.trained else "frozen"
            lines.append(f"  {name:<10} {mode}, {'runs up to ' + stop if stop else 'runs to its end'}")
        for name in self.plan.adapters:
            mode = "trained" if name in self.plan.trained_adapters else "frozen"
            lines.append(
                f"  adapter {name}: {mode}, {parameter_count(self.step.adapters[name]):,} parameters"
            )
        count = sum(parameter.numel() for parameter in self.optimization.parameters)
        unused = f"; {len(self.unused)} tensors that nothing reads stay as they are" if self.unused else ""
        lines.append(f"  trains {count:,} parameters{unused}")
        return "\n".join(lines)

    def close(self) -> None:
        """Takes the hooks out."""
        for network in [*self.step.networks.values(), *self.frozen.values()]:
            network.close()  # type: ignore[operator, union-attr]


def set_trainable(networks: Mapping[str, Network], plan: StagePlan) -> None:
    """Gradients for the networks that the stage trains, and for no other."""
    for name, network in networks.items():
        network.module.requires_grad_(name in plan.trained)
        network.module.train(name in plan.trained)


def adapter_confs(plans: list[StagePlan], upto: StagePlan) -> dict[str, Any]:
    """The adapters that are known in a stage: its own and those of the stages before."""
    confs: dict[str, Any] = {}
    for plan in plans:
        confs.update({name: plan.conf.adapters[name] for name in plan.declared})
        if plan is upto:
            break
    return confs

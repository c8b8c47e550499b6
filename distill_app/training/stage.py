"""One stage, built: its data, the networks it runs with hooks up to the last tap read, its step and its optimiser."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch

from distill_app.cache.replay import StageCache
from distill_app.config.plan import AVERAGE, StagePlan, adapter_confs
from distill_app.data.stage_data import prepared
from distill_app.machine.parallel import Parallel
from distill_app.networks.hooks import TappedModel
from distill_app.networks.whole_norm import normalise_apart, normalise_together
from distill_app.seeds import seed_all
from distill_app.tasks.evaluation import evaluate, score
from distill_app.training.assemble import Context, build_slots, build_terms, example_namespace, redesign_of
from distill_app.training.average import WeightAverage
from distill_app.training.experiment import Experiment
from distill_app.training.frozen import FrozenNetworks, compile_network
from distill_app.training.optimize import Optimization, optimization, optimizer_steps
from distill_app.training.precision import Precision
from distill_app.training.progress import Progress
from distill_app.training.step import Step
from distill_app.training.trainable import freeze, frozen_modules, refuse_single_sample, set_trainable
from distill_app.training.warn import idle_terms, scales_apart
from distill_app.training.watch import DataWait, GradientNorms

AfterStep = Callable[[int, Mapping[str, Any], Mapping[str, Any]], None]


class Stage:
    """A plan, built around the networks, adapters and losses of an experiment.

    Args:
        plan: The stage.
        experiment: Where the networks, data and device are.

    Raises:
        ConfigError: Parts do not fit each other.
        ValueError: The data cannot give what the stage asks for.
    """

    def __init__(self, plan: StagePlan, experiment: Experiment):
        app, builder, device = experiment.app, experiment.builder, experiment.device
        self.plan, self.device, self.world, self._seed = plan, device, experiment.world, app.seed
        self.networks = experiment.build_networks()
        self.data = experiment.data.stage(plan)
        self.task = experiment.task(plan)
        self._limit = app.runtime.max_steps_per_epoch
        self.origins = {name: experiment.origin(name, plan) for name in plan.taps}

        # Which networks train comes first: everything below looks at what wants a gradient.
        set_trainable(self.networks, plan)

        # Copies of networks, for averages of their weights, are made before there are hooks that would be copied along.
        averaged = plan.trained if plan.conf.ema.decay is not None else []
        self.averages = {
            name: WeightAverage.of(name, plan, experiment.parts, start=experiment.start_of_average(name, plan))
            for name in averaged
        }
        call = self.task.call

        # One forward of example images: from here on shapes are known, and nobody has to type any.
        self.examples = example_namespace(plan, self.networks, self.example_batch(), call, builder=builder)
        self.redesigns = {name: redesign_of(plan, name, builder) for name in plan.taps}
        self.precision = Precision(app.runtime.precision, device)

        # Networks that are trained run with hooks inside of the step; those that are not are asked from outside.
        self._trained: dict[str, TappedModel] = {
            name: self.networks[name].tapped(plan.taps[name], stage=plan.name, redesign=self.redesigns[name])
            for name in plan.trained
        }
        cache = StageCache(plan, app=app, networks=self.networks, examples=self.examples, data=self.data, device=device)
        self.frozen = FrozenNetworks(
            plan,
            networks=self.networks,
            examples=self.examples,
            redesigns=self.redesigns,
            call=call,
            precision=self.precision,
            runtime=app.runtime,
            cache=cache,
            world=self.world,
            device=device,
            averages={name: self.averages[name].module for name in plan.average_taps},
        )

        # The step is the one module that is trained: networks, adapters, terms.
        context = Context(builder, device, app.seed, self.data.arguments(num_classes=plan.data.num_classes))
        confs = adapter_confs(experiment.plans, plan)
        self.step = Step(
            networks=self._trained,
            adapters=build_slots(plan, confs, self.examples, experiment.parts, context),
            terms=build_terms(plan, self.examples, experiment.parts, context),
            call=call,
            precision=self.precision,
            eval_only=frozen_modules(self.networks, plan),
        )

        # A trial of the step says what no term reads, and what is wrong or of no use, before the first batch does.
        on_examples = self.frozen.on_examples
        cache.refuse_varying(lambda: self.frozen.of_frozen(self.example_batch(1)))
        self.unread = freeze(self.step, plan, self.examples["batch"], on_examples(self.examples["batch"]))
        self.together = self.world.size > 1 and bool(app.runtime.sync_batch_norm)
        teaching = (self.averages[name].module for name in plan.average_taps)
        whole = (self.step, *teaching) if self.together else ()
        self._norms = [norm for each in whole for norm in normalise_together(each)]
        least = self.batch_sizes if self.together else [size // self.world.size for size in self.batch_sizes]
        refuse_single_sample(self.step, plan, least, example=self.example_batch, activations=on_examples)
        more = all(self.redesigns[name] != [] for name in self.frozen.names)
        idle = idle_terms(
            self.step,
            self.examples,
            example=self.example_batch,
            activations=on_examples,
            more=more,
            sparing=[name for name in plan.terms if plan.reads_average(name)],
        )
        self.warnings = [*idle, *scales_apart({name: self.networks[name] for name in plan.trained}, self.data)]

        # Only what has run knows where to stop, and only what is left to train goes to the optimiser.
        if app.runtime.compile:
            torch.compiler.reset()  # stages share code objects, of which only a few versions are kept
            for network in self._trained.values():
                compile_network(network, app.runtime)
        steps = optimizer_steps(len(self.batch_sizes), plan.conf.accumulation_steps)
        self.optimization: Optimization = optimization(
            self.step,
            plan,
            networks=self.networks,
            builder=builder,
            steps_per_epoch=steps,
            precision=self.precision,
        )

        # What is done after every step of the optimiser, in this order: (number of the batch, batch, activations).
        self.after_step: list[AfterStep] = [average.update for average in self.averages.values()]
        self.data_wait = DataWait(plan.name, loader=self.data.train, workers=app.runtime.num_workers)
        self.gradient_norms = GradientNorms(
            self.step, every=app.runtime.gradient_norms_every, accumulation=plan.conf.accumulation_steps
        )
        self.steps_taken = self._compared = 0  # batches, of this process since it began with the stage
        self.steps_by_size: Counter[int] = Counter()  # the same, by how many samples they had
        self._compare_every = app.runtime.compare_ranks_every
        if self.gradient_norms.every:
            self.after_step.append(self.gradient_norms.look)

    @property
    def tapped(self) -> dict[str, TappedModel]:
        """All networks that it runs, with their hooks."""
        both = {**self._trained, **self.frozen.tapped}
        return {name: both[name] for name in self.plan.taps}

    @cached_property
    def parallel(self) -> Parallel:
        """What is called in training: the step as its ranks run it together. It is wrapped when all else is done."""
        counted = [self.step, *(average.model for average in self.averages.values())]
        return Parallel(self.step, self.world, counted=counted)

    @property
    def batch_sizes(self) -> list[int]:
        """How many samples each batch of the epoch has over all ranks; a batch sampler may make others in the next."""
        return self.data.order.sizes[: self._limit or None]

    def example_batch(self, count: int = 2) -> dict[str, Any]:
        """The first samples of the training data, prepared."""
        return self.data.example_batch(self.task, device=self.device, count=count)

    def prepare(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """A batch of the loader, on the device."""
        return prepared(batch, self.task, device=self.device)

    def begin_epoch(self, epoch: int, *, batch: int = 0) -> None:
        """Order and augmentation of the epoch from a batch on, functions of (seed, stage, epoch); and the modes."""
        self.frozen.cache.open()
        self.data.order.set_epoch(epoch)
        self.data.order.set_position(batch)
        if not batch:
            self.gradient_norms.latest = {}
        self.step.train()
        self.frozen.eval()

    def begin_step(self, epoch: int, step: int) -> None:
        """Random numbers of a step are a function of where it is, so that a checkpoint stores no random state."""
        rank = (self.world.rank,) if self.world.rank else ()
        seed_all(self._seed, "step", self.plan.name, epoch, step, *rank)

    def compare_ranks(self) -> None:
        """Now and then, makes sure that all ranks have the same weights.

        Raises:
            RankFailed: They do not.
        """
        every = self._compare_every
        if every is not None and self.steps_taken - self._compared >= every:
            self._compared = self.steps_taken
            self.parallel.refuse_divergence(where=f"by batch {self.steps_taken} of stage {self.plan.name!r}")

    def own_state(self, progress: Progress) -> dict[str, Any]:
        """What each of several ranks has of its own in the middle of an epoch, on the host."""
        if self.world.size == 1:
            return {}
        sums = {name: value.to("cpu", copy=True) for name, value in progress.sums.items()}
        return {"sums": sums, "statistics": self.parallel.statistics()}

    def load_own(self, ranks: Sequence[Mapping[str, Any]], progress: Progress) -> None:
        """Goes on from what `own_state` gave.

        Args:
            ranks: Of each rank; if there were others in number, sums are those of all, and statistics their mean.
            progress: Has the sums of all of them.
        """
        sums = progress.sums if self.world.main else {name: value * 0 for name, value in progress.sums.items()}
        if len(ranks) == self.world.size:
            sums = ranks[self.world.rank]["sums"]
        progress.sums = {name: value.to(self.device) for name, value in sums.items()}
        self.parallel.restore([each["statistics"] for each in ranks])

    def judge(self) -> dict[str, Any]:
        """Metrics of all that the stage trains, on the split that epochs are judged on.

        Returns:
            `<split>_<metric>` of the first network; those of others and of averages begin with their names.
        """
        seed_all(self._seed, "judge", self.plan.name)
        self.parallel.mean_statistics()
        networks = {name: self.networks[name] for name in self.plan.trained}
        networks |= {
            f"{name}{AVERAGE}": replace(self.networks[name], module=average.module)
            for name, average in self.averages.items()
        }
        metrics: dict[str, Any] = {}
        for name, network in networks.items():
            prefix = "" if name == self.plan.trained[0] else f"{name}_"
            found = evaluate(self.task, network, self.data.judge, device=self.device, world=self.world).figures
            metrics |= {f"{prefix}{self.data.judged_on}_{metric}": value for metric, value in found.items()}
        return metrics

    def value_of(self, metrics: Mapping[str, Any]) -> float:
        """What epochs are selected by, larger is better: the first network's leading metric, else the total loss.

        Where the network learns from the average of its weights, it is that one's metric.
        """
        first = self.plan.trained[0] if self.plan.trained else ""
        prefix = f"{first}{AVERAGE}_" if first in self.plan.average_taps else ""
        return score(self.task, metrics, split=f"{prefix}{self.data.judged_on}")

    def close(self) -> None:
        """Takes the hooks out and ends the processes that load."""
        self.frozen.close()
        self.data.train.close()
        normalise_apart(self._norms)
        for network in self._trained.values():
            network.close()

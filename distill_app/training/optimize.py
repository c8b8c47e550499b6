"""Optimiser and learning-rate schedule of a stage: parameter groups, warm-up, and what the config leaves open."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LinearLR, LRScheduler, OneCycleLR, ReduceLROnPlateau, SequentialLR

from distill_app.config.build import Builder
from distill_app.config.plan import StagePlan
from distill_app.config.schema import StageConf
from distill_app.errors import ConfigError, TapError
from distill_app.networks.network import Network
from distill_app.networks.taps import resolve
from distill_app.training.precision import Precision
from distill_app.training.step import Step
from distill_app.words import unknown

NORMS = (
    nn.modules.batchnorm._NormBase,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.RMSNorm,
    nn.LocalResponseNorm,
)


@dataclass
class Optimization:
    """The optimiser of a stage and its schedule, which counts epochs or optimiser steps."""

    optimizer: Optimizer
    scheduler: LRScheduler | None
    interval: str
    clip_grad_norm: float | None
    parameters: list[nn.Parameter] = field(default_factory=list)
    precision: Precision = field(default_factory=Precision)

    @property
    def lr(self) -> float:
        """The learning rate of the first group."""
        return float(self.optimizer.param_groups[0]["lr"])

    def clip(self) -> Tensor | None:
        """Clips the gradients where that is asked for, and returns the norm that they had."""
        if self.clip_grad_norm is None:
            return None
        self.precision.unscale(self.optimizer)
        return nn.utils.clip_grad_norm_(self.parameters, self.clip_grad_norm)

    def step(self) -> None:
        """Steps, and advances a schedule that counts steps."""
        self.precision.step(self.optimizer)
        self.optimizer.zero_grad(set_to_none=True)
        if self.scheduler is not None and self.interval == "step":
            self.scheduler.step()

    def end_epoch(self, *, value: float | None, loss: float) -> None:
        """Advances a schedule that counts epochs, or one that looks at what an epoch reached.

        Args:
            value: What epochs are selected by, for mode=max; None of an epoch that was not judged.
            loss: For mode=min.
        """
        if isinstance(self.scheduler, ReduceLROnPlateau):
            if value is not None:  # it counts the epochs that were judged
                self.scheduler.step(value if self.scheduler.mode == "max" else loss)
        elif self.scheduler is not None and self.interval == "epoch":
            self.scheduler.step()

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs."""
        scheduler = self.scheduler.state_dict() if self.scheduler is not None else None
        return {
            "optimizer": self.optimizer.state_dict(),
            "scheduler": _without_objects(scheduler),
            "scaler": self.precision.state(),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Restores what `state` returned."""
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        self.precision.load(state["scaler"])


def _without_objects(state: Any) -> Any:
    """Scheduler states hold callables and counters beside numbers; plain types are all that a checkpoint takes."""
    if isinstance(state, Mapping):
        return {key: _without_objects(item) for key, item in state.items() if not callable(item)}
    if isinstance(state, list | tuple):
        return [_without_objects(item) for item in state]
    return state


def optimization(
    step: Step,
    plan: StagePlan,
    *,
    networks: Mapping[str, Network],
    builder: Builder,
    steps_per_epoch: int,
    precision: Precision,
) -> Optimization:
    """Builds the optimiser over what the step trains, and the schedule in front of it.

    Args:
        step: The step; its parameters with requires_grad are trained.
        plan: The stage.
        networks: By name, for what `lr_scales` names.
        builder: Builds from config.
        steps_per_epoch: Optimiser steps, after accumulation.
        precision: What scales gradients and takes steps.

    Raises:
        ConfigError: Nothing to train, or an entry of `lr_scales` that names nothing.
    """
    conf = plan.conf
    lr = scaled_lr(conf)
    groups = parameter_groups(step, plan, networks=networks, lr=lr)
    parameters = [parameter for group in groups for parameter in group["params"]]
    optimizer = builder.build(
        plan.optimizer, groups, key=plan.optimizer_key, lr=lr, **_fused(plan.optimizer, parameters)
    )
    _start_momentum(optimizer)
    units = steps_per_epoch if plan.scheduler.interval == "step" else 1
    scheduler = schedule(optimizer, plan, builder=builder, units=units)
    return Optimization(optimizer, scheduler, plan.scheduler.interval, conf.clip_grad_norm, parameters, precision)


def _fused(conf: Mapping[str, Any], parameters: Sequence[nn.Parameter]) -> dict[str, bool]:
    """Asks for the fused form of an optimiser that has one, unless the config says which form it wants.

    One kernel updates all parameters, which is the fastest form on GPUs and on CPUs, and the one that can leave out a
    step without the host having looked at the loss.
    """
    chosen = {"fused", "foreach", "differentiable"} & conf.keys() or conf.get("dampening")
    able = all(parameter.device.type in ("cpu", "cuda") and parameter.is_floating_point() for parameter in parameters)
    return {"fused": True} if able and not chosen else {}


def _start_momentum(optimizer: Optimizer) -> None:
    """Momentum of zeros for fused SGD, from which its first step is the gradient, as it is without.

    Its own buffers are memory as it was found until a step writes them. A step that is left out would make that the
    momentum, and parameters whose first gradient comes later would be an error.
    """
    for group in optimizer.param_groups if isinstance(optimizer, SGD) else []:
        if group.get("fused") and group["momentum"] and not group["dampening"]:
            for parameter in group["params"]:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def scaled_lr(conf: StageConf) -> float:
    """The linear scaling rule of Goyal et al. 2017: lr x batch over all ranks / reference batch, if one is given."""
    if conf.reference_batch_size is None:
        return conf.lr
    return conf.lr * conf.batch_size * conf.accumulation_steps / conf.reference_batch_size


def parameter_groups(
    step: Step, plan: StagePlan, *, networks: Mapping[str, Network], lr: float
) -> list[dict[str, Any]]:
    """Groups by learning-rate factor and by whether weight decay applies.

    Raises:
        ConfigError: Nothing to train, or an entry of `lr_scales` that names nothing.
    """
    undecayed = set() if plan.conf.decay_norm_and_bias else _norm_and_bias(step)
    factors = _factors(step, plan, networks=networks)
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for parameter in step.parameters():
        if parameter.requires_grad:
            groups.setdefault((factors.get(parameter, 1.0), parameter in undecayed), []).append(parameter)
    if not groups:
        raise ConfigError([f"{plan.key}: nothing to train; see its train, freeze and losses"])
    return [
        {"params": parameters, "lr": lr * factor, **({"weight_decay": 0.0} if plain else {})}
        for (factor, plain), parameters in groups.items()
    ]


def _factors(step: Step, plan: StagePlan, *, networks: Mapping[str, Network]) -> dict[nn.Parameter, float]:
    """The factor on the learning rate of each parameter that an entry of `lr_scales` reaches: the narrowest one's."""
    trained = {parameter for parameter in step.parameters() if parameter.requires_grad}
    reach, unmatched = [], []
    for entry, factor in plan.conf.lr_scales.items():
        found = _named(entry, step, plan, networks=networks) & trained
        reach.append((len(found), found, factor))
        unmatched += [] if found else [entry]
    if unmatched:
        raise ConfigError([f"{plan.key}.lr_scales: nothing that is trained is called {sorted(unmatched)}"])
    wide_first = sorted(reach, key=lambda item: -item[0])
    return {parameter: factor for _, found, factor in wide_first for parameter in found}


def _named(entry: str, step: Step, plan: StagePlan, *, networks: Mapping[str, Network]) -> set[nn.Parameter]:
    """The parameters of a module by its path or tap, or one parameter: `student.stage1`, `adapters.fit`."""
    space, _, path = entry.partition(".")
    network = networks.get(plan.network(space))
    root = network.module if network is not None else getattr(step, space, None)
    if not isinstance(root, nn.Module):
        return set()
    if path in (parameters := dict(root.named_parameters())):
        return {parameters[path]}
    try:
        module = resolve(root, path) if network is None else network.part(path)
    except TapError:
        return set()
    return set(module.parameters())


def _norm_and_bias(step: Step) -> set[nn.Parameter]:
    norms = {p for module in step.modules() if isinstance(module, NORMS) for p in module.parameters(recurse=False)}
    return norms | {parameter for name, parameter in step.named_parameters() if name.rsplit(".", 1)[-1] == "bias"}


def schedule(optimizer: Optimizer, plan: StagePlan, *, builder: Builder, units: int) -> LRScheduler | None:
    """The schedule of the stage, with linear warm-up in front: the schedule proper starts when the warm-up ends.

    Args:
        optimizer: What it drives; its groups are at their peak learning rates.
        plan: The stage.
        builder: Builds from config.
        units: How many times the schedule advances in an epoch.

    Raises:
        ConfigError: An interval that does not exist.
    """
    conf, warmup = plan.scheduler, plan.conf.warmup_epochs * units
    if conf.interval not in ("epoch", "step"):
        raise ConfigError([f"stage.scheduler.interval: {unknown('interval', conf.interval, ('epoch', 'step'))}"])
    left = max(1, plan.conf.epochs * units - warmup)
    main = None
    if conf.schedule is not None:
        # Lengths and peaks follow from the stage where the config leaves them open.
        peaks = [group["lr"] for group in optimizer.param_groups]
        lengths = {"T_max": left, "total_steps": left, "total_iters": left, "max_lr": peaks}
        main = _built(plan, optimizer, builder=builder, left=left, lengths=lengths)
    if not warmup:
        return main
    if isinstance(main, ReduceLROnPlateau):
        raise ConfigError(
            [f"{plan.key}.warmup_epochs: ReduceLROnPlateau cannot follow a warm-up; set {plan.key}.warmup_epochs=0"]
        )
    ramp = LinearLR(optimizer, start_factor=plan.conf.warmup_start_factor, total_iters=warmup)
    if main is None:
        return ramp
    return SequentialLR(optimizer, [ramp, main], milestones=[warmup])


def _built(
    plan: StagePlan, optimizer: Optimizer, *, builder: Builder, left: int, lengths: Mapping[str, Any]
) -> LRScheduler:
    """The schedule proper; one that does not fit the length of the stage is refused, and not found in its midst."""
    conf, key, counted = plan.scheduler, f"{plan.scheduler_key}.schedule", f"{plan.scheduler.interval}s"
    there = f"stage {plan.name!r} has {left} {counted} for it, with {plan.key}.epochs={plan.conf.epochs}"
    try:
        main = builder.build(conf.schedule, optimizer, key=key, **lengths)
    except ConfigError as error:
        if not any("ZeroDivisionError" in text for text in error.errors):
            raise
        remedy = "give it more epochs, or type scheduler@stage.scheduler=constant"
        raise ConfigError([f"{key}: {there}, too few for {conf.schedule['_target_']}; {remedy}"]) from error
    if isinstance(main, OneCycleLR) and main.total_steps < left:
        raise ConfigError([f"{key}.total_steps: {main.total_steps} {counted} are fewer than there are: {there}"])
    if isinstance(main, ReduceLROnPlateau) and conf.interval == "step":
        raise ConfigError([f"{plan.scheduler_key}.interval: ReduceLROnPlateau looks at epochs; set it to epoch"])
    return main


def optimizer_steps(batches: int, accumulation_steps: int) -> int:
    """Optimiser steps in an epoch; a last, smaller group of batches still makes one."""
    return math.ceil(batches / accumulation_steps)


def gradient_scale(
    batch: int, sizes: Sequence[int], accumulation_steps: int, *, own: int | None = None, ranks: int = 1
) -> float:
    """What the loss of a batch, a mean, is multiplied with, so that an optimiser step averages over all its samples.

    Args:
        batch: Counted from 0 in the epoch.
        sizes: Samples in each batch of the epoch; the last batch may be smaller, and the last group shorter.
        accumulation_steps: Batches an optimiser step.
        own: Samples of the batch on this rank; None: all.
        ranks: Over how many the gradients are averaged.
    """
    start = batch - batch % accumulation_steps
    count = sizes[batch] if own is None else own * ranks
    return count / sum(sizes[start : start + accumulation_steps])

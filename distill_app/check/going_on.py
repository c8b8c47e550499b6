"""With which changes an interrupted run may go on: other epochs, where what is over would have been the same.

Whether a learning-rate schedule allows it is found by playing it: as it would have been with the new length from the
start, and as it will be, the old one up to now and from its state the new one.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from distill_app.config.build import Builder
from distill_app.config.plan import StagePlan
from distill_app.errors import ConfigError, OtherExperiment
from distill_app.runs.settings import Change, listed, settings_of
from distill_app.training.experiment import Experiment
from distill_app.training.optimize import Optimization, optimizer_steps, scaled_lr, schedule
from distill_app.training.progress import Progress

_EPOCHS = re.compile(r"stage\.epochs|(prelude|method)\.(stages\.[^.]+|params)\.epochs")
_KINDS = {
    "OneCycleLR": "one-cycle",
    "CosineAnnealingLR": "cosine",
    "PolynomialLR": "polynomial",
    "LinearLR": "linear",
    "ConstantLR": "two-step",
}


def refuse_changes(folder: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Refuses settings other than epochs in which a run would go on.

    Args:
        folder: Of the run.
        old: The resolved config that it has had so far.
        new: The one with which it shall go on.

    Returns:
        Whether any number of epochs is another one.

    Raises:
        OtherExperiment: Another setting differs.
    """
    before, after = settings_of(old), settings_of(new)
    keys = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    others = [key for key in keys if not _EPOCHS.fullmatch(key)]
    if others:
        changes = [Change(key, before.get(key, "null"), after.get(key, "null")) for key in others]
        count = "1 setting differs" if len(others) == 1 else f"{len(others)} settings differ"
        raise OtherExperiment(
            f"{folder} goes on with the settings that it began with; {count}, there -> here:\n{listed(changes)}\n"
            f"epochs may be others, and workers, device, log and checkpoints kept, which are no settings; for the rest "
            f"use continue (from the weights of a finished run) or rerun (from the start)"
        )
    return bool(keys)


def refuse_lengths(old: Mapping[str, Any], new: Mapping[str, Any], *, state: Mapping[str, Any] | None) -> None:
    """Refuses numbers of epochs with which what is over would have been another training.

    Args:
        old: The resolved config that the run has had so far.
        new: The same with other epochs.
        state: The run's last checkpoint; None where no epoch is over.

    Raises:
        ConfigError: All that does not fit.
    """
    if state is None:
        return
    progress = Progress.of(state["progress"])
    with Experiment.of(old) as before, Experiment.of(new) as after:
        plans = {plan.name: plan for plan in before.plans}
        pairs = [(plans[plan.name], plan) for plan in after.plans if plan.name in plans]
        texts = [_problem(was, now, progress, state, after) for was, now in pairs if was.conf.epochs != now.conf.epochs]
    if errors := [text for text in texts if text]:
        raise ConfigError(errors)


def _problem(
    was: StagePlan, now: StagePlan, progress: Progress, state: Mapping[str, Any], experiment: Experiment
) -> str:
    """Why a stage cannot have another number of epochs; empty where it can."""
    change = f"{now.key}.epochs: {was.conf.epochs} -> {now.conf.epochs}"
    if now.name in progress.done:
        return f"{change}: stage {now.name!r} is over; name a stage that is not, 'method.stages.NAME.epochs=...'"
    if now.name != progress.stage:
        return ""
    begun = progress.epoch + bool(progress.step)
    if now.conf.epochs < begun:
        return f"{change}: {begun} epochs are over or under way, which is more"
    over = ((state.get("optimization") or {}).get("scheduler") or {}).get("last_epoch")
    if over is None:  # a constant rate
        return ""
    units = _units(now, experiment)
    differs = _first_difference(was, now, builder=experiment.builder, units=units, over=int(over))
    return "" if differs is None else f"{change}: {_cannot(now, differs, units=units, over=int(over))}"


def _units(plan: StagePlan, experiment: Experiment) -> int:
    """How many times its schedule advances in an epoch."""
    if plan.scheduler.interval != "step":
        return 1
    sizes = experiment.data.stage(plan).order.sizes[: experiment.app.runtime.max_steps_per_epoch or None]
    return optimizer_steps(len(sizes), plan.conf.accumulation_steps)


def _cannot(plan: StagePlan, differs: int, *, units: int, over: int) -> str:
    name = str((plan.scheduler.schedule or {}).get("_target_", "")).rpartition(".")[2]
    kind = _KINDS.get(name, name or "warm-up")
    when = "in an epoch that is over" if differs < over else "from now on, since it has noted its old length"
    return (
        f"a {kind} schedule cannot be lengthened: with the new length from the start its learning rate in epoch "
        f"{differs // units + 1} would have been another one ({when}); use continue from the finished run, or rerun"
    )


def _first_difference(was: StagePlan, now: StagePlan, *, builder: Builder, units: int, over: int) -> int | None:
    """The first of the schedule's units whose rates are not those of a run that had the new length from the start."""
    so_far, anew = (_played(plan, builder=builder, units=units) for plan in (was, now))
    for unit in range(now.conf.epochs * units):
        if unit == over:
            state, so_far = so_far.state(), _played(now, builder=builder, units=units)
            so_far.load(state)
        if not _alike(so_far, anew):
            return unit
        _advance(anew)
        try:
            _advance(so_far)
        except ValueError:  # a schedule that refuses to go past the length it has noted
            return unit + 1
    return None


def _played(plan: StagePlan, *, builder: Builder, units: int) -> Optimization:
    """The optimiser and the schedule of a stage over one number for each factor on the learning rate."""
    lr = scaled_lr(plan.conf)
    factors = sorted({1.0, *plan.conf.lr_scales.values()})
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr * factor} for factor in factors]
    optimizer = builder.build(plan.optimizer, groups, key=plan.optimizer_key, lr=lr)
    scheduler = schedule(optimizer, plan, builder=builder, units=units)
    return Optimization(optimizer, scheduler, plan.scheduler.interval, None)


def _advance(played: Optimization) -> None:
    """One unit of the schedule: without gradients the optimiser changes nothing."""
    played.step()
    played.end_epoch(value=0.0, loss=0.0)


def _alike(one: Optimization, other: Optimization) -> bool:
    """Whether rates and momenta are the same."""
    pairs = zip(one.optimizer.param_groups, other.optimizer.param_groups, strict=True)
    return all(
        math.isclose(a, b, rel_tol=1e-9)
        for mine, theirs in pairs
        for a, b in zip(_rates(mine), _rates(theirs), strict=True)
    )


def _rates(group: Mapping[str, Any]) -> list[float]:
    return [float(group["lr"]), float(group.get("momentum") or 0), *map(float, group.get("betas") or ())]

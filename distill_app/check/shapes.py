"""The slow part of the check: targets and their arguments, then networks, data and every stage as they will be."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from distill_app.check.data import data_errors
from distill_app.check.inputs import unfit_images
from distill_app.check.recipes import recipe_notes
from distill_app.check.seen import seen_notes
from distill_app.check.share import tail_errors
from distill_app.config.build import Builder
from distill_app.config.plan import ROLES, StagePlan, networks_read
from distill_app.config.schema import AppConf
from distill_app.config.start import start_of
from distill_app.data.sampling import sampling_problems
from distill_app.errors import ConfigError, DistillError
from distill_app.machine.device import choose_device
from distill_app.tasks.build import task_problems
from distill_app.trackers.build import outlet_problems
from distill_app.training.chance import random_errors
from distill_app.training.experiment import Experiment
from distill_app.training.preflight import Look, refuse_what_does_not_fit
from distill_app.words import unknown, warn
from distill_app.world import ALONE, World


def opened(
    app: AppConf,
    plans: list[StagePlan],
    *,
    told: Sequence[str] = (),
    look: Look | None = None,
    world: World = ALONE,
) -> Experiment:
    """Opens an experiment: its networks and data sets are built, and every stage has been assembled on trial.

    Args:
        app: The typed config.
        plans: Its stages.
        told: Errors that are known already. A stage with one, and those after it, are not assembled: what they read
            may not be there.
        look: Is shown each stage, or None in the place of one that is skipped.
        world: The processes that carry it out; this is one of them.

    Raises:
        ConfigError: All that was known and that binding, building and assembling find.
    """
    builder = Builder(app.runtime.allow)
    runtime = _runtime(app, world)
    found = list(dict.fromkeys([*_targets(app, plans, builder), *runtime]))
    if runtime:  # networks can be wrong all the same
        app = replace(app, runtime=replace(app.runtime, device="cpu"))
    experiment = Experiment(app, plans, world=world)
    found += _network_errors(experiment)
    if not any(text.startswith("cache.") for text in told):  # it has a say in what is shown of the images
        found += data_errors(plans, source=experiment.data, task_of=experiment.task, told=[*told, *found])
        found += tail_errors(app, plans, source=experiment.data) if not found else ()
    if not found:
        sound = _before_the_first_error(plans, told)
        found += random_errors(experiment) if len(sound) == len(plans) else []
        for text in (*recipe_notes(app, plans), *seen_notes(app, plans)):
            warn(text)
        found += unfit_images(experiment) if len(sound) == len(plans) else []
        found += _misfits(experiment, sound, look=look)
    if told or found:
        experiment.close()
        raise ConfigError(list(dict.fromkeys([*told, *found])))
    return experiment


def _before_the_first_error(plans: list[StagePlan], told: Sequence[str]) -> list[StagePlan]:
    # What is said of the machine or of the cache, every stage would say again; without its taps no network can be read.
    shared = ("runtime.", "cache.", *(text for text in told if text.partition(": ")[0].endswith(".taps")))
    wrong = (any(text.startswith((f"{plan.key}.", f"{plan.data_key}.", *shared)) for text in told) for plan in plans)
    return plans[: next((number for number, is_wrong in enumerate(wrong) if is_wrong), len(plans))]


def _misfits(experiment: Experiment, plans: list[StagePlan], *, look: Look | None) -> list[str]:
    try:
        refuse_what_does_not_fit(experiment, plans, look=look)
    except ConfigError as error:
        return error.errors
    return []


def _runtime(app: AppConf, world: World) -> list[str]:
    try:
        choose_device(app.runtime, world)
    except ValueError as error:
        return [str(error)]
    if app.runtime.compile:
        backend = app.runtime.compile_backend
        if backend not in torch.compiler.list_backends(exclude_tags=()):
            return [f"runtime.compile_backend: {unknown('backend', backend, torch.compiler.list_backends())}"]
    return []


def _targets(app: AppConf, plans: list[StagePlan], builder: Builder) -> Iterator[str]:
    """Everything with a `_target_` but the networks, which are built."""
    yield from _construction(app.launcher, key="launcher", builder=builder)
    yield from outlet_problems(app.tracker, builder)
    shapes = ("in_shape", "out_shape")
    data_arguments = ("num_classes", "num_samples", "labels", "sample_indices")
    for plan in plans:
        data, key = plan.data, plan.data_key
        for part in ("train", "test"):
            yield from builder.problems(getattr(data, part), key=f"{key}.{part}")
        for part in ("train_transform", "eval_transform"):
            for position, transform in enumerate(getattr(data, part)):
                yield from _construction(transform, key=f"{key}.{part}[{position}]", builder=builder)
        for wrapper, where in plan.wrappers.values():
            yield from builder.problems(wrapper, key=where, positional=1, context=("num_classes",))
        yield from task_problems(plan, builder)
        yield from sampling_problems(data, key=key, builder=builder)
        yield from builder.problems(plan.optimizer, key=plan.optimizer_key, positional=1, context=("params", "lr"))
        if plan.scheduler.schedule is not None:
            filled = ("T_max", "total_steps", "total_iters", "max_lr")
            yield from builder.problems(
                plan.scheduler.schedule, key=f"{plan.scheduler_key}.schedule", positional=1, context=filled
            )
        for name in plan.declared:
            adapter = plan.conf.adapters[name]
            if adapter.module is None:  # type: ignore[union-attr]
                continue
            given = shapes if adapter.target is not None else shapes[:1]  # type: ignore[union-attr]
            given = given if adapter.borrows is None else (*given, "borrowed")  # type: ignore[union-attr]
            where = f"{plan.key}.adapters.{name}.module"
            yield from builder.problems(adapter.module, key=where, context=(*given, *data_arguments))  # type: ignore[union-attr]
        for name, term in plan.terms.items():
            where = f"{plan.key}.losses.{name}"
            yield from builder.problems(term.loss, key=f"{where}.loss", context=("input_shapes", *data_arguments))
            if isinstance(term.weight, Mapping):
                yield from builder.problems(term.weight, key=f"{where}.weight")


def _construction(conf: Any, *, key: str, builder: Builder) -> list[str]:
    """The errors of what costs nothing to build."""
    try:
        builder.build(conf, key=key)
    except ConfigError as error:
        return error.errors
    return []


def _network_errors(experiment: Experiment) -> list[str]:
    """Builds all networks; what is wrong with any of them."""
    failed: list[Any] = []
    errors: list[str] = []
    # The roles first: a network that is configured as one of them has the same errors, told once.
    for name in sorted(networks_read(experiment.plans), key=lambda name: name not in ROLES):
        start: Any = None
        try:
            start = replace(start_of(experiment.app, name), starts_like=None)
            if start not in failed:
                experiment.network(name)
        except ConfigError as error:
            failed.append(start)
            errors += error.errors
        except DistillError as error:
            failed.append(start)
            errors.append(str(error))
    return errors

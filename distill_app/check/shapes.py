"""The slow part of the check: targets and arguments, and a dry assembly of every stage on shapes alone.

Networks are built on torch's meta device, which has shapes and no storage; adapters and losses, which may look at
values, are built for real and tried on noise of the shapes that the networks gave.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

from distill_app.config.build import Builder
from distill_app.config.plan import ROLES, StagePlan, adapter_confs, models_of
from distill_app.config.schema import AppConf
from distill_app.data.samples import SampleWrapper
from distill_app.errors import ConfigError, TapError
from distill_app.machine.device import choose_device
from distill_app.networks.network import Network, build_network, fitting_weights, networks_read
from distill_app.networks.taps import map_tensors
from distill_app.training.assemble import Context, assemble, example_namespace
from distill_app.training.experiment import Parts
from distill_app.training.optimize import optimization
from distill_app.training.precision import Precision
from distill_app.training.stage import Stage
from distill_app.training.trainable import frozen_modules, set_trainable
from distill_app.words import unknown


def probe_errors(app: AppConf, plans: list[StagePlan], *, told: Sequence[str]) -> Iterator[str]:
    """Yields what binding and probing find.

    Args:
        app: The typed config.
        plans: Its stages.
        told: What the quick part found. A stage with an error, and those after it, are not assembled: what they
            read may not be there.
    """
    builder = Builder(app.runtime.allow)
    networks, network_errors = _networks(app, plans, builder)  # first: a user's package may register a backend
    errors = [*_runtime(app), *_targets(app, plans, builder), *network_errors]
    yield from dict.fromkeys(errors)
    if errors:
        return
    parts = Parts(networks=networks)
    for plan in plans:
        if any(error.startswith(f"{plan.key}.") for error in told):
            return
        yield from _stage(plan, plans, parts, builder)


def _runtime(app: AppConf) -> list[str]:
    try:
        choose_device(app.runtime)
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
        yield from builder.problems(data.task, key=f"{key}.task", context=("normalize", "num_classes"))
        yield from builder.problems(plan.optimizer, key=plan.optimizer_key, positional=1, context=("params", "lr"))
        if plan.scheduler.schedule is not None:
            filled = ("T_max", "total_steps", "total_iters", "max_lr")
            yield from builder.problems(
                plan.scheduler.schedule, key=f"{plan.scheduler_key}.schedule", positional=1, context=filled
            )
        for name in plan.declared:
            adapter = plan.conf.adapters[name]
            given = shapes if adapter.target is not None else shapes[:1]  # type: ignore[union-attr]
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


def _networks(app: AppConf, plans: list[StagePlan], builder: Builder) -> tuple[dict[str, Network], list[str]]:
    networks, errors = {}, []
    failed: list[Any] = []
    # The roles first: a network that is configured as one of them has the same errors, told once.
    for name in sorted(networks_read(plans), key=lambda name: name not in ROLES):
        conf = models_of(app)[name].net
        try:
            if conf not in failed:
                networks[name] = build_network(app, name, builder=builder, device="meta")
        except ConfigError as error:
            failed.append(conf)
            errors += error.errors
    return networks, errors


def _stage(plan: StagePlan, plans: list[StagePlan], parts: Parts, builder: Builder) -> list[str]:
    try:
        task = Stage.task_of(plan, builder)
        batch = _example(plan, task, builder)
        frozen_modules(parts.networks, plan)
        for role, source in plan.conf.init_from.items():
            fitting_weights(parts.networks[plan.network(role)], parts.networks[source])
        shapes = example_namespace(plan, parts.networks, _on_meta(batch), task.call, builder=builder)
        examples = map_tensors(shapes, _random_like)
        examples["batch"] = batch
        labels = np.arange(max(8, 2 * plan.data.num_classes)) % plan.data.num_classes
        arguments = {
            "num_classes": plan.data.num_classes,
            "num_samples": len(labels),
            "labels": labels,
            "sample_indices": np.arange(len(labels)),
        }
        context = Context(builder, torch.device("cpu"), 0, arguments)
        set_trainable(parts.networks, plan)
        tapped = {name: parts.networks[name].tapped(plan.taps[name], stage=plan.name) for name in plan.trained}
        confs, precision = adapter_confs(plans, plan), Precision()
        step = assemble(plan, confs, tapped, examples, parts, context, task.call, precision)
        for network in tapped.values():
            network.close()
        optimization(step, plan, builder=builder, steps_per_epoch=1, precision=precision)
    except ConfigError as error:
        return error.errors
    except (TapError, ValueError) as error:
        return [str(error) if str(error).startswith(plan.key) else f"{plan.key}: {error}"]
    except Exception as error:
        return [
            f"{plan.key}: a network of this stage cannot run on images of {plan.data.image_size} px "
            f"({plan.data_key}.image_size): {type(error).__name__}: {str(error).splitlines()[0]}"
        ]
    return []


class _Noise(SampleWrapper):
    """Two samples of noise, for wrappers to extend."""

    def __init__(self, batch: dict[str, Tensor]):
        self.batch = batch

    def load(self, key: Any) -> dict[str, Any]:
        return {name: value[key[0]] for name, value in self.batch.items()}

    @property
    def indices(self) -> np.ndarray:
        return np.arange(2)

    def __len__(self) -> int:
        return 2


def _example(plan: StagePlan, task: Any, builder: Builder) -> dict[str, Any]:
    """A prepared batch of noise, with what the wrappers of the data set and of the stage add."""
    samples: Any = _Noise(task.example(image_size=plan.data.image_size))
    for wrapper, where in plan.wrappers.values():
        samples = builder.build(wrapper, samples, key=where, num_classes=plan.data.num_classes)
    return task.prepare(default_collate(samples.__getitems__([(0, 0), (1, 0)])), device=torch.device("cpu"))


def _on_meta(batch: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value.to("meta") if isinstance(value, Tensor) else value for name, value in batch.items()}


def _random_like(tensor: Tensor) -> Tensor:
    """Values in the place of a tensor that has none."""
    return torch.randn(tensor.shape) if tensor.is_floating_point() else torch.zeros(tensor.shape, dtype=tensor.dtype)

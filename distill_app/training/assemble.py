"""From a plan and example activations to adapters and loss terms, built from the shapes that are there."""

import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from distill_app.config.addresses import bind, fetch
from distill_app.config.binding import accepts
from distill_app.config.build import Builder
from distill_app.config.parts import Part, parts_of
from distill_app.config.plan import AVERAGE, StagePlan
from distill_app.config.schema import AdapterConf, LossTermConf
from distill_app.errors import ConfigError, TapError
from distill_app.networks.modes import evaluating, untouched
from distill_app.networks.network import Network
from distill_app.networks.part import NetworkPart
from distill_app.networks.run import Call, Namespace
from distill_app.networks.taps import shapes_in, tensors_in
from distill_app.seeds import seeded
from distill_app.training.experiment import Parts
from distill_app.training.remedy import remedy
from distill_app.training.step import Slot, Term


@dataclass
class Context:
    """What constructors may ask for by name, and where their modules go."""

    builder: Builder
    device: torch.device
    seed: int
    arguments: dict[str, Any]  # num_classes, num_samples, labels, sample_indices


def example_namespace(
    plan: StagePlan, networks: Mapping[str, Network], batch: Mapping[str, Any], call: Call, *, builder: Builder
) -> Namespace:
    """One forward of every network that the stage reads, for the shapes: {network: {tap: activation}, batch: ...}.

    Those that are trained run in train mode, since some give other things in it: auxiliary logits, losses. They keep
    their buffers.
    """
    namespace: Namespace = {"batch": dict(batch)}
    for name in dict.fromkeys([*plan.taps, *plan.shape_taps]):
        wanted = dict.fromkeys([*plan.taps.get(name, []), *plan.shape_taps.get(name, [])])
        redesign = redesign_of(plan, name, builder) or None  # where nothing runs, the shapes are still the network's
        tapped = networks[name].tapped(wanted, stage=plan.name, redesign=redesign)
        with tapped, _training(tapped) if name in plan.trained else evaluating(tapped), torch.no_grad():
            try:
                namespace[name] = call(tapped, batch, name=name)
            except (RuntimeError, TypeError) as error:
                if redesign is None or isinstance(error, TapError | torch.OutOfMemoryError):
                    raise
                raise ConfigError([f"{plan.key}.redesign: {_no_chain(name, error)}"]) from error
    for name, taps in plan.average_taps.items():  # where the network begins
        tapped = networks[name].tapped(taps, stage=plan.name)
        with tapped, evaluating(tapped), torch.no_grad():
            namespace[f"{name}{AVERAGE}"] = call(tapped, batch, name=name)
    return namespace


# Dropout of torch, DropPath and DropBlock of timm, StochasticDepth of torchvision.
_DROPS = re.compile(r"Drop|StochasticDepth")


@contextmanager
def _training(module: nn.Module) -> Iterator[None]:
    """Train mode for the time of the block, which leaves no trace; nothing is dropped, so that taps agree."""
    with untouched(module), evaluating(module):  # which gives every mode back
        module.train()
        for part in module.modules():
            if _DROPS.search(type(part).__name__):
                part.eval()
        yield


def _no_chain(network: str, error: Exception) -> str:
    reason = next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")
    return (
        f"the modules listed for {network!r} do not run one after the other: {reason}. What the network does in code "
        f"between them has to be listed too, such as {{_target_: torch.nn.Flatten}}"
    )


def redesign_of(plan: StagePlan, network: str, builder: Builder) -> list[str | nn.Module] | None:
    """What the plan lets run in the place of a network, its modules built.

    Raises:
        ConfigError: A module that cannot be built.
    """
    entries, key = plan.redesign(network), f"{plan.key}.redesign"
    if entries is None:
        return None
    return [builder.build(entry, key=key) if isinstance(entry, Mapping) else str(entry) for entry in entries]


def build_slots(
    plan: StagePlan, confs: Mapping[str, Any], examples: Namespace, parts: Parts, context: Context
) -> dict[str, Slot]:
    """Adapters in order, each built from the shapes of its source and target unless an earlier stage built it."""
    slots: dict[str, Slot] = {}
    errors: list[str] = []
    outputs = examples.setdefault("adapters", {})
    for name in plan.adapters:
        conf: AdapterConf = confs[name]
        key = f"{plan.key}.adapters.{name}"
        try:
            source = fetch(bind(conf.source, plan.roles), examples)
            if conf.part is not None:
                module: nn.Module = _part(conf, key, plan, parts)
            else:
                module = _adapter(name, conf, source, plan, examples, parts, context)
            slots[name] = Slot(module, bind(conf.source, plan.roles), name in plan.trained_adapters, conf.fills)
            with evaluating(module), torch.no_grad():
                outputs[name] = module(source)
            if conf.fills is not None:
                examples["batch"].setdefault(conf.fills, outputs[name])
        except ConfigError as error:
            errors += error.errors
        except KeyError as error:
            errors.append(f"{key}: {error.args[0]}")
        except Exception as error:
            errors.append(f"{key}: cannot take {shapes_in(fetch(bind(conf.source, plan.roles), examples))}: {error}")
    if errors:
        raise ConfigError(errors)
    return slots


def _part(conf: AdapterConf, key: str, plan: StagePlan, parts: Parts) -> NetworkPart:
    """Modules of a network that run as they are.

    Raises:
        ConfigError: Some are not there.
    """
    chain, modules, errors = parts_of(conf, plan.roles), [], []
    for each in chain:
        try:
            modules.append((_module_of(each, f"{key}.part", parts), each.every_item))
        except ConfigError as error:
            errors += error.errors
    if errors:
        raise ConfigError(errors)
    several = isinstance(conf.source, Mapping | list | tuple)
    return NetworkPart(modules, several=several, title=" -> ".join(map(str, chain)))


def _module_of(part: Part, key: str, parts: Parts) -> nn.Module:
    """The very module of a network.

    Raises:
        ConfigError: Nothing is there.
    """
    try:
        return parts.networks[part.network].part(part.path)
    except TapError as error:
        raise ConfigError([f"{key}: {error}"]) from None


def _adapter(
    name: str,
    conf: AdapterConf,
    source: Any,
    plan: StagePlan,
    examples: Namespace,
    parts: Parts,
    context: Context,
) -> nn.Module:
    """The adapter of an earlier stage, unless this one declares another."""
    kept = parts.adapters.get(name)
    if kept is not None and not (name in plan.declared and parts.confs.get(f"adapters.{name}") != conf.module):
        return kept
    module = _build_adapter(conf, f"{plan.key}.adapters.{name}", source, plan, examples, parts, context)
    parts.adapters[name], parts.confs[f"adapters.{name}"] = module, conf.module
    return module


def _build_adapter(
    conf: AdapterConf,
    key: str,
    source: Any,
    plan: StagePlan,
    examples: Namespace,
    parts: Parts,
    context: Context,
) -> nn.Module:
    given = {"in_shape": shapes_in(source)}
    if conf.target is not None:
        given["out_shape"] = shapes_in(fetch(bind(conf.target, plan.roles), examples))
    if conf.borrows is not None:
        given["borrowed"] = _borrowed(conf, key, plan, parts, context)
    with seeded(context.seed, key.rsplit(".", 1)[-1]):
        return context.builder.build(conf.module, key=f"{key}.module", **given, **context.arguments).to(context.device)


def _borrowed(conf: AdapterConf, key: str, plan: StagePlan, parts: Parts, context: Context) -> nn.Module:
    """The module of a network that an adapter works with.

    Raises:
        ConfigError: Nothing is there, or the adapter has no use for it.
    """
    target = conf.module["_target_"]
    if not accepts(context.builder.locate(target, key=f"{key}.module"), "borrowed"):
        raise ConfigError([f"{key}.borrows: {target} takes no module of a network; leave it out"])
    return _module_of(Part.parse(str(conf.borrows), plan.roles), f"{key}.borrows", parts)


def build_terms(plan: StagePlan, examples: Namespace, parts: Parts, context: Context) -> dict[str, Term]:
    """Loss terms, each tried on the example activations so that what it cannot take is known before the first batch."""
    terms: dict[str, Term] = {}
    errors: list[str] = []
    for name, conf in plan.terms.items():
        key = f"{plan.key}.losses.{name}"
        try:
            inputs = bind(conf.inputs, plan.roles)
            values = fetch(inputs, examples)
            terms[name] = Term(_loss(name, conf, key, values, parts, context), inputs, _weight(conf, key, context))
        except ConfigError as error:
            errors += error.errors
            continue
        except KeyError as error:
            errors.append(f"{key}.inputs: {error.args[0]}")
            continue
        errors += _try_loss(terms[name].loss, conf, key, values, partial(remedy, conf, values, plan, examples))
    if errors:
        raise ConfigError(errors)
    return terms


def _loss(name: str, conf: LossTermConf, key: str, values: Any, parts: Parts, context: Context) -> nn.Module:
    kept = parts.losses.get(name)
    if kept is not None and parts.confs[f"losses.{name}"] == conf.loss:
        return kept
    with seeded(context.seed, name):
        shapes = {"input_shapes": shapes_in(values)}
        loss = context.builder.build(conf.loss, key=f"{key}.loss", **shapes, **context.arguments).to(context.device)
    parts.losses[name], parts.confs[f"losses.{name}"] = loss, conf.loss
    return loss


def _weight(conf: LossTermConf, key: str, context: Context) -> Any:
    if isinstance(conf.weight, Mapping):
        return context.builder.build(conf.weight, key=f"{key}.weight")
    return float(conf.weight)


def _try_loss(loss: nn.Module, conf: LossTermConf, key: str, values: Any, more: Callable[[], str]) -> list[str]:
    shapes = ", ".join(f"{argument} {shapes_in(value)}" for argument, value in values.items())
    try:
        with untouched(loss), torch.no_grad(), warnings.catch_warnings():
            # torch's losses broadcast shapes that differ, with a warning: no criterion means that.
            warnings.filterwarnings("error", message="Using a target size")
            value = loss(**values)
    except Exception as error:
        return [f"{key}: {type(loss).__name__} cannot take {shapes}: {error}{more()}"]
    if not isinstance(value, Tensor) or value.dim() != 0:
        return [f"{key}: {type(loss).__name__} must return a scalar tensor, got {shapes_in(value) or value!r}"]
    warned = [argument for argument, item in values.items() if not tensors_in(item)]
    if warned:
        return [f"{key}.inputs.{argument}: the address gives no tensor" for argument in warned]
    return [] if bool(value.isfinite()) else [_not_finite(loss, conf, key, values, float(value))]


def _not_finite(loss: nn.Module, conf: LossTermConf, key: str, values: Mapping[str, Any], value: float) -> str:
    """A loss that is infinite or no number before anything was trained, of itself or by what it reads."""
    bad = [name for name, item in values.items() if not all(bool(each.isfinite().all()) for each in tensors_in(item))]
    if bad:
        sources = ", ".join(str(conf.inputs[argument]) for argument in bad)
        return f"{key}: {type(loss).__name__} is {value} on the first images, since {sources} is not finite there"
    arguments = ", ".join(f"{name}={given}" for name, given in conf.loss.items() if not name.startswith("_"))
    told = f"look at its arguments: {arguments}" if arguments else "it takes other numbers"
    return f"{key}.loss: {type(loss).__name__} is {value} on the first images; {told}"

"""Which parameters a stage trains: not those that are frozen, and none that no loss term reads."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from distill_app.config.plan import StagePlan
from distill_app.errors import ConfigError, SettingError, TapError
from distill_app.networks.network import Network
from distill_app.training.step import NoGradient, Step
from distill_app.words import first_line


def frozen_modules(networks: Mapping[str, Network], plan: StagePlan) -> list[nn.Module]:
    """The modules that `freeze` names.

    An entry is `network`, `network.path`, or `network.tap` where no module has that name; `:package.Class` behind it
    means the modules of a class in there, `:after` all that is defined behind it.

    Raises:
        SettingError: An entry that names nothing.
    """
    found: list[nn.Module] = []
    for entry in plan.conf.freeze or ():
        place, _, kind = entry.partition(":")
        role, _, path = place.partition(".")
        network = networks.get(plan.network(role))
        if network is None:
            raise SettingError(f"{plan.key}.freeze: {entry!r} names no network of this stage ({', '.join(networks)})")
        try:
            scope = network.part(path)
        except TapError as error:
            raise SettingError(f"{plan.key}.freeze: {entry!r}: {error}") from None
        if not kind:
            found.append(scope)
            continue
        if kind == "after":
            found += _after(network.module, scope)
            continue
        named = [module for module in scope.modules() if kind in (type(module).__name__, _path_of(module))]
        if not named:
            raise SettingError(f"{plan.key}.freeze: no module of class {kind!r} in {place}")
        found += named
    return found


def _after(net: nn.Module, scope: nn.Module) -> list[nn.Module]:
    """The modules that are defined behind another one and outside of it, which is the order in which they run."""
    modules, inside = list(net.modules()), set(scope.modules())
    last = max(position for position, module in enumerate(modules) if module in inside)
    return modules[last + 1 :]


def _path_of(module: nn.Module) -> str:
    """The dotted path of a module's class as users write it, without torch's private folders."""
    cls = type(module)
    return f"torch.nn.{cls.__name__}" if cls.__module__.startswith("torch.nn.") else f"{cls.__module__}.{cls.__name__}"


def set_trainable(networks: Mapping[str, Network], plan: StagePlan) -> None:
    """Gradients for the networks that the stage trains, and for no other."""
    for name, network in networks.items():
        network.module.requires_grad_(name in plan.trained)
        network.module.train(name in plan.trained)


def freeze(step: Step, plan: StagePlan, batch: Mapping[str, Any], activations: Mapping[str, Any]) -> list[str]:
    """Takes out of training what the config freezes, and the parameters on which no loss term depends.

    Args:
        step: Its `eval_only` modules are the frozen ones.
        plan: The stage.
        batch: An example.
        activations: What networks outside of the step say of it.

    Returns:
        The names of the parameters on which no loss term depends.

    Raises:
        ConfigError: A term has no gradient that can be computed.
    """
    for module in step.eval_only:
        module.requires_grad_(False)
    for name, adapter in step.adapters.items():
        adapter.requires_grad_(name in plan.trained_adapters)
    step.train()
    try:
        unread = step.unread_parameters(batch, activations)
    except NoGradient as error:
        failing = step.without_gradient(batch, activations)
        places = {f"{plan.key}.losses.{name}": found for name, found in failing.items()}
        raise ConfigError(
            [
                f"{place}: its gradient cannot be computed: {first_line(found)}"
                for place, found in (places or {plan.key: error}).items()
            ]
        ) from error
    for name, parameter in step.named_parameters():
        if name in unread:
            parameter.requires_grad_(False)
    return unread


def refuse_single_sample(
    step: Step,
    plan: StagePlan,
    batch_sizes: Sequence[int],
    *,
    example: Callable[[int], Mapping[str, Any]],
    activations: Callable[[Mapping[str, Any]], Mapping[str, Any]],
) -> None:
    """A batch of one, where batch norm has one value per channel, fails before the first batch and not after an epoch.

    Args:
        step: The step, in train mode.
        plan: The stage.
        batch_sizes: Of an epoch.
        example: Makes a prepared batch of so many samples.
        activations: What networks outside of the step say of it.

    Raises:
        SettingError: There is such a batch, and a norm that cannot take it.
    """
    if 1 not in batch_sizes:
        return
    batch = example(1)
    try:
        step.unread_parameters(batch, activations(batch))
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        count, size = sum(batch_sizes), plan.conf.batch_size
        remedy = "set stage.drop_last=true or another stage.batch_size" if size > 1 else "set stage.batch_size=32"
        raise SettingError(
            f"{plan.key}.batch_size: {count} samples in batches of {size} leave a batch of one sample, which "
            f"batch norm cannot normalise while training; {remedy}"
        ) from error

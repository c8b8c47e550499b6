"""Which parameters a stage trains."""

from collections.abc import Mapping

from torch import nn

from distill_app.config.plan import StagePlan
from distill_app.errors import SettingError, TapError
from distill_app.networks.network import Network
from distill_app.networks.taps import Tap, resolve


def frozen_modules(networks: Mapping[str, Network], plan: StagePlan) -> list[nn.Module]:
    """The modules that `freeze` names.

    An entry is `network`, `network.path`, or `network.tap` where no module has that name; `:package.Class` behind it
    means the modules of a class in there, `:after` all that is defined behind it.

    Raises:
        SettingError: An entry that names nothing.
    """
    found: list[nn.Module] = []
    for entry in plan.conf.freeze:
        place, _, kind = entry.partition(":")
        role, _, path = place.partition(".")
        network = networks.get(plan.network(role))
        if network is None:
            raise SettingError(f"{plan.key}.freeze: {entry!r} names no network of this stage ({', '.join(networks)})")
        try:
            scope = _place(network, path)
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


def _place(network: Network, path: str) -> nn.Module:
    """The module at a path, or else the one that a tap of this name reads."""
    try:
        return resolve(network.module, path)
    except TapError as error:
        if path in network.taps:
            return resolve(network.module, Tap.parse(path, network.taps[path]).path)
        raise TapError(f"{error}; taps: {', '.join(network.taps)}") from None


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

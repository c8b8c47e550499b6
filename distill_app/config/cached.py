"""What of a plan the teacher cache covers. Imports no torch."""

from collections.abc import Mapping
from typing import Any

from distill_app.config.addresses import Address, addresses
from distill_app.config.plan import StagePlan
from distill_app.config.schema import CacheConf

# In the place of the stage's name: stages and methods see the same views, whatever they are called.
AUGMENTATION = "cache"


def cached_taps(plan: StagePlan, conf: CacheConf) -> dict[str, list[str]]:
    """The networks whose outputs a stage takes from the cache, with the taps that it reads of them.

    A network is replayed as a whole: where it has a tap that is not to be cached, it runs anyway.
    """
    if not conf.enabled:
        return {}
    frozen = {name: taps for name, taps in plan.taps.items() if name not in plan.trained}
    if conf.taps is None:
        return frozen
    chosen = {(address.space, address.name) for address in (Address.parse(text, plan.roles) for text in conf.taps)}
    return {name: taps for name, taps in frozen.items() if all((name, tap) in chosen for tap in taps)}


def temperature_of(plan: StagePlan, network: str, tap: str) -> float:
    """The temperature of the terms that read a tap, if all that have one have the same; else 1."""
    temperatures = {_temperature(plan.terms[name].loss) for name in _readers(plan, network, tap)} - {None}
    return next((value for value in temperatures if value and len(temperatures) == 1), 1.0)


def _temperature(loss: Any) -> float | None:
    """Of a loss as configured; None where it has none."""
    value = loss.get("temperature") if isinstance(loss, Mapping) else None
    return float(value) if isinstance(value, int | float) and value > 0 else None


def _readers(plan: StagePlan, network: str, tap: str) -> list[str]:
    """The terms that read a tap directly."""
    return [name for name, term in plan.terms.items() if _reads(term.inputs, plan, network, tap)]


def _reads(inputs: Any, plan: StagePlan, network: str, tap: str) -> bool:
    parsed = [Address.parse(text, plan.roles) for text in addresses(inputs)]
    return any((address.space, address.name) == (network, tap) for address in parsed)


def views_of(plan: StagePlan, conf: CacheConf) -> int | None:
    """How many views of each image a stage goes through; None, a new one in each epoch, where nothing is cached."""
    return (conf.views or 1) if cached_taps(plan, conf) else None

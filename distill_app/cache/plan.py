"""What of a plan the teacher cache covers, and what is wrong with the `cache` part of a config. Imports no torch."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from distill_app.config import AppConf, CacheConf
from distill_app.wiring import Address, StagePlan, addresses, models_of, unknown

# In the place of the stage's name: stages and methods see the same views, whatever they are called.
AUGMENTATION = "cache"
LOGITS = ("logits", "output")  # taps that cache.top_k is for


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


def cache_notes(plan: StagePlan, conf: CacheConf, *, sources: Mapping[str, Any]) -> list[str]:
    """What of `cache.taps` and `cache.top_k` does nothing in a stage, or not quite what one might think.

    Args:
        plan: The stage.
        conf: The cache.
        sources: What every adapter of the experiment reads, by its name.
    """
    if not conf.enabled:
        return []
    cached = cached_taps(plan, conf)
    notes = [_left_out(plan, name, conf) for name in plan.taps if name not in plan.trained and name not in cached]
    if conf.top_k is None or not cached:
        return notes
    logits = [(network, tap) for network, taps in cached.items() for tap in taps if tap in LOGITS]
    notes += [note for network, tap in logits if (note := _made_up(plan, network, tap, sources))]
    return notes if logits else [*notes, "cache.top_k: does nothing here, since no logits are read"]


def _left_out(plan: StagePlan, network: str, conf: CacheConf) -> str:
    chosen = [Address.parse(text, plan.roles) for text in conf.taps or []]
    names = {address.name for address in chosen if address.space == network}
    left = ", ".join(tap for tap in plan.taps[network] if tap not in names)
    return f"cache: {network} runs in every epoch, since cache.taps leaves out {left} of it"


def _made_up(plan: StagePlan, network: str, tap: str, sources: Mapping[str, Any]) -> str | None:
    """What terms see that read a cache of the largest logits at another temperature than it was made for."""
    common = temperature_of(plan, network, tap)
    terms = [name for name in _readers(plan, network, tap) if _temperature(plan.terms[name].loss) != common]
    adapters = [name for name in plan.adapters if _reads(sources.get(name), plan, network, tap)]
    if not terms and not adapters:
        return None
    who = ", ".join([*(f"term {name}" for name in terms), *(f"adapter {name}" for name in adapters)])
    return (
        f"cache.top_k: {network}.{tap} has the right probabilities at temperature {common:g}; {who} reads it "
        f"otherwise, and sees one made-up value for all classes but the largest (a temperature that is not written in "
        f"the config of a loss is not known here)"
    )


def views_of(plan: StagePlan, conf: CacheConf) -> int | None:
    """How many views of each image a stage goes through; None, a new one in each epoch, where nothing is cached."""
    return (conf.views or 1) if cached_taps(plan, conf) else None


def cache_errors(app: AppConf, plans: list[StagePlan]) -> Iterator[str]:
    """Yields what is wrong with the `cache` part of a config."""
    conf = app.cache
    if not conf.enabled:
        for plan in plans:
            yield from _redesign_errors(plan, conf)
        return
    for name in ("views", "top_k"):
        value = getattr(conf, name)
        if value is not None and value < 1:
            yield f"cache.{name}: must be at least 1, or null, got {value}"
    if conf.max_gb <= 0:
        yield f"cache.max_gb: must be above 0, got {conf.max_gb}"
    wrong = list(_tap_errors(app, plans))
    yield from wrong
    if wrong:
        return
    for plan in plans:
        yield from _redesign_errors(plan, conf)
        if cached_taps(plan, conf):
            yield from _stage_errors(plan, conf)
    if conf.reuse is None and any(cached_taps(plan, conf) for plan in plans):
        yield from _folder_errors(conf)
    yield from _reuse_errors(plans, conf)


def _tap_errors(app: AppConf, plans: list[StagePlan]) -> Iterator[str]:
    models = models_of(app)
    for text in app.cache.taps or []:
        try:
            address = Address.parse(text, {})
        except ValueError as error:
            yield f"cache.taps: {error}"
            continue
        roles = [plan.roles[address.space] for plan in plans if address.space in plan.roles]
        network = address.space if address.space in models else next(iter(roles), None)
        if network is None:
            yield f"cache.taps: {text}: {unknown('network', address.space, models)}"
        elif address.name not in (known := [*models[network].taps, "output"]):
            yield f"cache.taps: {text}: {unknown('tap', address.name, known)}"


def _redesign_errors(plan: StagePlan, conf: CacheConf) -> Iterator[str]:
    """Networks that shall not run at all, and whose taps come from nowhere."""
    for name, taps in plan.taps.items():
        if plan.redesign(name) == [] and name not in plan.trained and name not in cached_taps(plan, conf):
            yield (
                f"{plan.key}.redesign: {name!r} is redesigned to nothing, but its taps {', '.join(taps)} are read and "
                f"do not come from the cache; set cache.enabled=true, or name the modules that run"
            )


def _stage_errors(plan: StagePlan, conf: CacheConf) -> Iterator[str]:
    if conf.top_k is not None and conf.top_k >= plan.data.num_classes:
        yield f"cache.top_k: must be below the {plan.data.num_classes} classes of {plan.data.name}, got {conf.top_k}"
    changing = [f"{plan.data_key}.train_transform"] if plan.data.train_transform else []
    changing += [key for _, key in plan.wrappers.values()]
    if conf.views is None and changing:
        yield (
            f"cache.views: {' and '.join(changing)} may show other images in every epoch, and a cache holds a fixed "
            f"number of views of each; set cache.views=V (4, 8, ...): epoch e then shows view e modulo V. 1 is right "
            f"where nothing is random, and also with {plan.data_key}.train_transform=[]"
        )


def _folder_errors(conf: CacheConf) -> Iterator[str]:
    place = Path(conf.folder).absolute()
    there = next(path for path in (place, *place.parents) if os.path.exists(path))
    if not os.path.isdir(there):
        yield f"cache.folder: {there} is no folder"
    elif there != place and not os.access(there, os.W_OK | os.X_OK):  # one that is there may be meant for reading
        yield f"cache.folder: no folder can be made in {there}"


def _reuse_errors(plans: list[StagePlan], conf: CacheConf) -> Iterator[str]:
    if conf.reuse is None:
        return
    from distill_app.cache.store import read_meta  # imports numpy

    meta = read_meta(Path(conf.reuse))
    if meta is None or "parts" not in meta:
        yield f"cache.reuse: {conf.reuse} is no cache; see: distill cache list"
        return
    networks = list(dict.fromkeys(name for plan in plans for name in cached_taps(plan, conf)))
    if meta.get("network") not in networks:
        there = ", ".join(networks) or "none"
        yield f"cache.reuse: {conf.reuse} is of the network {meta.get('network')!r}; networks that are cached: {there}"

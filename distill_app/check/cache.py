"""What of a plan the teacher cache covers, and what is wrong with the `cache` part of a config. Imports no torch."""

import os
from collections.abc import Iterator
from pathlib import Path

from distill_app.config.addresses import Address
from distill_app.config.cached import cached_taps
from distill_app.config.plan import StagePlan, models_of
from distill_app.config.schema import AppConf, CacheConf
from distill_app.words import unknown


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
    from distill_app.cache.store import read_meta

    meta = read_meta(Path(conf.reuse))
    if meta is None or "parts" not in meta:
        yield f"cache.reuse: {conf.reuse} is no cache; see: distill cache list"
        return
    networks = list(dict.fromkeys(name for plan in plans for name in cached_taps(plan, conf)))
    if meta.get("network") not in networks:
        there = ", ".join(networks) or "none"
        yield f"cache.reuse: {conf.reuse} is of the network {meta.get('network')!r}; networks that are cached: {there}"

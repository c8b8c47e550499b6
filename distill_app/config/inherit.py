"""Stages that are `like` another one: what they do not name themselves is that of the other, losses and all."""

from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from distill_app.config.schema import AdapterConf, LossTermConf, StageConf
from distill_app.words import unknown

PARTS = ("prelude", "method")


def inherit(cfg: DictConfig) -> Iterator[str]:
    """Fills in, in a composed config, what stages with `like` take from others; doing so again changes nothing.

    A field counts as named where it differs from the schema's default. Dicts (losses, adapters, roles ...) are merged
    entry by entry, null takes an entry out, and an object of another `_target_` replaces the one it stands for.

    Args:
        cfg: The config, before its interpolations are resolved; stages in it are replaced.

    Yields:
        What is wrong, with its config key.
    """
    for part in PARTS:
        stages = cfg[part].stages
        for name in [name for name in stages if stages[name].like is not None]:
            chain, error = _chain(cfg, part, name)
            if error:
                yield error
                continue
            named: dict[str, Any] = {}
            for key in reversed(chain):
                named.pop("each", None)  # a stage that is like others is one of its own
                named = _over(named, _named(OmegaConf.select(cfg, key), StageConf))
            stages[name] = OmegaConf.merge(OmegaConf.structured(StageConf), named)


def _chain(cfg: DictConfig, part: str, name: str) -> tuple[list[str], str | None]:
    """The keys of a stage and of those that it is like, one after the other; or what is wrong with them."""
    key = f"{part}.stages.{name}"
    keys: list[str] = []
    while True:
        if key in keys:
            return keys, f"{keys[0]}.like: stages are like each other in a circle: {' -> '.join([*keys, key])}"
        keys.append(key)
        like = OmegaConf.select(cfg, key).like
        if like is None:
            return keys, None
        # Of the same part first: a method finds the stages of the prelude before it too.
        places = {other: f"{here}.stages.{other}" for here in (*PARTS, key.split(".")[0]) for other in cfg[here].stages}
        if like not in places:
            return keys, f"{key}.like: {unknown('stage', str(like), places)}"
        key = places[like]


def _named(node: Any, schema: type) -> dict[str, Any]:
    """What a stage says itself, as it was written."""
    written: Any = OmegaConf.to_container(node, resolve=False)
    silent: Any = OmegaConf.to_container(OmegaConf.structured(schema), resolve=False)
    named: dict[str, Any] = {key: value for key, value in written.items() if key not in silent or value != silent[key]}
    for field, entry in (("losses", LossTermConf), ("adapters", AdapterConf)):
        if field in named:
            terms = named[field].items()
            named[field] = {k: v if v is None else _named(OmegaConf.create(v), entry) for k, v in terms}
    return named


def _over(base: Any, own: Any) -> Any:
    """One plain value over another."""
    if not isinstance(base, Mapping) or not isinstance(own, Mapping):
        return own
    if "_target_" in own and own["_target_"] != base.get("_target_"):
        return own
    return {**base, **{key: _over(base.get(key), value) for key, value in own.items()}}

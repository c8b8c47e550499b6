"""Interpolations that fail, told where they were written and not where their value is inherited. No torch."""

import difflib
import re
from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import InterpolationKeyError, InterpolationResolutionError, OmegaConfBaseException

REFERENCE = re.compile(r"\$\{([^${}:]+)\}")
LONGEST = 200  # letters of a message: a value may be a whole section


def interpolation_errors(cfg: DictConfig) -> list[str]:
    """One message for every interpolation that fails by itself; what only reads one that fails says nothing.

    `stage.lr=${stage.lrr}` makes the rate of every stage fail; the message is about stage.lr.
    """
    texts = dict(_interpolations(cfg, ""))
    failed = {key: error for key in texts if (error := _failure(cfg, key)) is not None}
    reads = {key: [_absolute(name, key) for name in REFERENCE.findall(texts[key])] for key in failed}
    causes = [key for key in failed if not any(read in failed and read != key for read in reads[key])]
    if not causes:  # they read each other in a circle, which is begun where least is inherited
        causes = sorted(failed, key=lambda key: key.count("."))[:1]
    keys = list(_keys(cfg, ""))
    return [f"{key}: {_words(key, texts[key], failed[key], keys)}" for key in causes]


def taps_referred_to(cfg: DictConfig) -> list[str]:
    """The networks to whose taps keys refer that are not written there, `${student.taps.stage4}`."""
    texts = dict(_interpolations(cfg, ""))
    keys = {_absolute(name, key) for key, text in texts.items() for name in REFERENCE.findall(text)}
    wanted = (key.split(".") for key in sorted(keys) if key.count(".") == 2 and ".taps." in key)
    absent = (parts[0] for parts in wanted if parts[0] in cfg and parts[2] not in cfg[parts[0]].get("taps", {}))
    return list(dict.fromkeys(absent))


def _failure(cfg: DictConfig, key: str) -> OmegaConfBaseException | None:
    try:
        OmegaConf.select(cfg, key, throw_on_resolution_failure=True)
    except OmegaConfBaseException as error:
        return error
    return None


def _words(key: str, text: str, error: OmegaConfBaseException, keys: list[str]) -> str:
    reason = str(error).splitlines()[0].rpartition("raised while resolving interpolation: ")[2].strip('"')
    if isinstance(error, InterpolationKeyError):
        wanted = REFERENCE.findall(text)
        missing = next((name for name in wanted if _absolute(name, key) not in keys), wanted[0] if wanted else text)
        return f"Interpolation key {missing!r} not found{_nearest(_absolute(missing, key), key, keys)}"
    if "Recursive interpolation" in reason:
        return f"{text!r} leads back to {key} itself"
    if type(error) is InterpolationResolutionError or not reason.startswith("While dereferencing"):
        return f"{text!r}: {reason[:LONGEST]}"
    reason = reason.partition("': ")[2]
    return f"cannot be {text!r}: {reason if len(reason) <= LONGEST else 'it stands for a whole section'}"


def _nearest(missing: str, reader: str, keys: list[str]) -> str:
    others = [each for each in keys if each != reader and not reader.startswith(f"{each}.")]
    near = difflib.get_close_matches(missing, others, n=1, cutoff=0.75)
    ending = missing.rpartition(".")[2]
    near = near or sorted(
        (each for each in others if each.rpartition(".")[2] == ending), key=lambda each: each.count(".")
    )
    return f"; did you mean '${{{near[0]}}}'?" if near else ""


def _absolute(name: str, reader: str) -> str:
    """The key that an interpolation names: one dot stands for the section of its reader, each further for one above."""
    dots = len(name) - len(name.lstrip("."))
    if not dots:
        return name
    section = re.split(r"\.", reader)[:-dots]
    return ".".join([*section, name[dots:]])


def _interpolations(node: Any, key: str) -> Iterator[tuple[str, str]]:
    for path, each in _nodes(node, key):
        if each is not None and each._is_interpolation():
            yield path, str(each._value())


def _keys(node: Any, key: str) -> Iterator[str]:
    for path, _ in _nodes(node, key):
        yield path


def _nodes(node: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Every key with its node; sections that are themselves interpolations are not entered."""
    if not isinstance(node, DictConfig | ListConfig) or node._is_none() or node._is_missing():
        return
    if node._is_interpolation():
        return
    names: Any = list(node) if isinstance(node, DictConfig) else range(len(node))
    for name in names:
        path = f"{key}[{name}]" if isinstance(node, ListConfig) else f"{key}.{name!s}" if key else str(name)
        child = node._get_node(name)
        yield path, child
        yield from _nodes(child, path)

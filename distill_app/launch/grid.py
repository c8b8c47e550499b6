"""Hydra's grid: the points of a sweep before any of them runs."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

GRID = f"{BasicSweeper.__module__}.{BasicSweeper.__qualname__}"


def gathers(hydra: Any) -> bool:
    """Whether the jobs of a sweep may be submitted together at its end: nobody waits for one before the next."""
    basic = f"{BasicLauncher.__module__}.{BasicLauncher.__qualname__}"
    return bool(hydra.sweeper.get("_target_") == GRID and hydra.launcher.get("_target_") == basic)


def grid_of(sweeper: Mapping[str, Any], overrides: Sequence[str]) -> list[list[str]]:
    """The points of a grid; none where another sweeper chooses them as it goes, or they cannot be told here."""
    if sweeper.get("_target_") != GRID:
        return []
    params = [f"{key}={value}" for key, value in (sweeper.get("params") or {}).items()]
    try:
        return grid([*params, *overrides])
    except (HydraException, ValueError, AssertionError):  # glob(...) in a process without Hydra's config loader
        return []


def grid(overrides: Sequence[str]) -> list[list[str]]:
    """The overrides of every point of Hydra's grid.

    Raises:
        HydraException: Something is no override, or no list of values.
    """
    hydra = GlobalHydra.instance()
    loader = hydra.config_loader() if hydra.is_initialized() else None
    parsed = OverridesParser.create(config_loader=loader).parse_overrides(list(overrides))
    return [list(point) for batch in BasicSweeper.split_arguments(parsed, None) for point in batch]


def overrides_of(arguments: Sequence[str]) -> list[str]:
    """What is typed on a command line for the config, without what is for Hydra."""
    parsed, _ = get_args_parser().parse_known_args(list(arguments))
    return [each for each in parsed.overrides if not each.startswith("hydra")]


def constant(overrides: Sequence[str]) -> Iterator[str]:
    """Overrides with one value, as they were typed and as Hydra writes them."""
    for override in overrides:
        with suppress(HydraException):
            parsed = OverridesParser.create().parse_override(override)
            if not parsed.is_sweep_override():
                yield override
                yield f"{parsed.get_key_element()}={parsed.get_value_element_as_str()}"

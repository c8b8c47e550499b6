"""The trackers that a config names."""

from collections.abc import Iterator, Mapping
from typing import Any

from distill_app.config.build import Builder
from distill_app.errors import ConfigError
from distill_app.runs.outlets import Outlet


def outlets_of(conf: Mapping[str, Any], builder: Builder) -> dict[str, Outlet]:
    """Name -> tracker; null and false leave one out.

    Raises:
        ConfigError: One cannot be built, or is no tracker.
    """
    return {name: _outlet(name, each, builder) for name, each in conf.items() if each not in (None, False)}


def outlet_problems(conf: Mapping[str, Any], builder: Builder) -> Iterator[str]:
    """What is wrong with the trackers of a config; building one costs nothing and asks no server."""
    for name, each in conf.items():
        try:
            if each not in (None, False):
                _outlet(name, each, builder)
        except ConfigError as error:
            yield from error.errors


def _outlet(name: str, conf: Any, builder: Builder) -> Outlet:
    outlet = builder.build(conf, key=f"tracker.{name}")
    if not isinstance(outlet, Outlet):
        raise ConfigError(
            [f"tracker.{name}: {type(outlet).__name__} is no tracker; derive it from distill_app.trackers.Outlet"]
        )
    return outlet

"""A command line that may not compose: its overrides, those of a sweep's points, and which of them is to blame."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, IntervalSweep, Override
from hydra.errors import HydraException, OverrideParseException

from distill_app.check.suggest import Suggestions
from distill_app.config.groups import groups, options_of
from distill_app.config.tree import compose_mounted
from distill_app.errors import is_of_composition


@dataclass(frozen=True)
class Line:
    """A command line.

    Attributes:
        overrides: As typed, or those of one point of a sweep.
        config_dirs: Folders with config of the user's own.
        sweep: Whether the overrides stand for several points.
        config_name: The file to begin with.
        origins: Of a point: its overrides, each with what was typed.
    """

    overrides: tuple[str, ...]
    config_dirs: tuple[str, ...]
    sweep: bool
    config_name: str
    origins: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, arguments: Sequence[str]) -> "Line":
        """The line of what stands behind `distill`."""
        parsed, _ = get_args_parser().parse_known_args(list(arguments))
        folders = (parsed.config_dir,) if parsed.config_dir else ()
        sweep = parsed.multirun or "hydra.mode=MULTIRUN" in parsed.overrides
        return cls(tuple(parsed.overrides), folders, sweep, parsed.config_name or "config")

    def without(self, override: str) -> "Line":
        """The line with an override taken out."""
        return replace(self, overrides=tuple(each for each in self.overrides if each != override))

    def chooses(self, group: str) -> bool:
        """Whether an override chooses an option of a group."""
        return any(split(each)[0] == group for each in self.overrides)

    def typed(self, override: str) -> str:
        """What was typed for an override of a point."""
        return dict(self.origins).get(override, override)

    @property
    def values(self) -> list[list[str]]:
        """For each override those that it stands for in the points of a sweep."""
        return [list(_values(each, self.config_dirs)) or [each] for each in self.overrides]

    def points(self) -> Iterator["Line"]:
        """The points of a sweep, in the order of Hydra's grid."""
        values = self.values
        origins = tuple(
            (each, whole) for whole, each_of in zip(self.overrides, values, strict=True) for each in each_of
        )
        return (replace(self, overrides=point, sweep=False, origins=origins) for point in product(*values))

    def culprit(self, error: Exception) -> str | None:
        """The override that an exception is about: the one that it names, else the one without which it is gone."""
        if isinstance(error, OverrideParseException) and error.override in self.overrides:
            return error.override
        text = str(error)
        about = re.sub(r"^In '[^']+': ", "", text)  # a file that an override chose right may name what is wrong
        for override in sorted(self.overrides, key=lambda each: not each.startswith("+")):
            if any(name in about for name in _names(override)):
                return override
        if self.failure() != text:
            return None
        return next((each for each in self.overrides if self.without(each).failure() != text), None)

    def failure(self) -> str | None:
        """What composing the line raises."""
        outcome = composed(self)
        return str(outcome) if isinstance(outcome, Exception) else None

    @property
    def suggestions(self) -> Suggestions:
        """The config to look for keys in: the whole line's, else that of the groups it chooses, else the default."""
        first = next(self.points()) if self.sweep else self
        known = groups(self.config_dirs)
        options = tuple(each for each in first.overrides if split(each)[0].split("@")[0] in known)
        for line in (first, replace(first, overrides=options), replace(first, overrides=())):
            outcome = composed(line)
            if not isinstance(outcome, Exception):
                return outcome
            error = outcome
        raise error


@lru_cache(maxsize=16)
def composed(line: Line) -> Suggestions | Exception:
    """The composed config of a single run or point; or what was raised."""
    try:
        cfg, mounts = compose_mounted(line.overrides, config_dirs=line.config_dirs, config_name=line.config_name)
    except Exception as error:
        if not is_of_composition(error):
            raise
        return error
    return Suggestions(cfg, mounts, line.config_dirs)


def split(override: str) -> tuple[str, str]:
    """The key, without its sign, and the value."""
    key, _, value = override.partition("=")
    return key.lstrip("+~"), value


def is_interval(override: str) -> bool:
    """Whether it is a range without values of its own, from which a search chooses."""
    parsed = _parsed(override)
    return parsed is not None and parsed.is_interval_sweep()


def _names(override: str) -> list[str]:
    """How Hydra's messages may name an override."""
    key, value = split(override)
    options = [f"'{key.split('@')[0]}/{option}'" for option in value.split(",")]
    words = [f"'{key}'", f"'{override}'", f"values for {key}.", f"{key} appears more"]
    return [*words, f"override {override}", f"Override {override} ", *options]


def _values(override: str, config_dirs: Sequence[str]) -> Iterator[str]:
    """The overrides of single points that one of a sweep stands for; of an interval, one that has its lower end."""
    parsed = _parsed(override)
    if parsed is None or not parsed.is_sweep_override():
        yield override
        return
    value: object = parsed.value()
    key = parsed.get_key_element()
    if isinstance(value, IntervalSweep):
        yield f"{key}={value.start}"
    elif isinstance(value, Glob):
        yield from (f"{key}={option}" for option in value.filter(options_of(parsed.key_or_group, config_dirs)))
    else:
        yield from (f"{key}={each}" for each in parsed.sweep_string_iterator())


def _parsed(override: str) -> Override | None:
    try:
        return OverridesParser.create().parse_override(override)
    except HydraException:
        return None

"""Flags on the command line, wherever they stand: Hydra takes them before the overrides only."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra._internal.utils import get_args_parser

from distill_app.check.suggest import Suggestions, typed
from distill_app.words import unknown


@dataclass(frozen=True)
class Ordered:
    """A command line, sorted; `wrong` holds the flags that there are not, with their values."""

    flags: list[str]
    overrides: list[str]
    wrong: list[tuple[str, str | None]]

    @property
    def arguments(self) -> list[str]:
        """The line as Hydra takes it."""
        return [*self.flags, *self.overrides]


def ordered(arguments: Sequence[str]) -> Ordered:
    """Sorts a command line: flags with their values, then overrides, each in the order in which they were typed."""
    flags: list[str] = []
    overrides: list[str] = []
    wrong: list[tuple[str, str | None]] = []
    words = list(arguments)
    while words:
        word = words.pop(0)
        if not word.startswith("-") or word == "-":
            overrides.append(word)
            continue
        name, equals, value = word.partition("=")
        takes = _takes(name)
        if takes is None:
            follows = not equals and bool(words) and not words[0].startswith("-") and "=" not in words[0]
            wrong.append((name, value if equals else words.pop(0) if follows else None))
            continue
        flags.append(word)
        if words and not equals and (takes == "one" or (takes == "maybe" and words[0] in _INFO)):
            flags.append(words.pop(0))
    return Ordered(flags, overrides, wrong)


def flag_errors(line: Ordered, known: Suggestions) -> list[str]:
    """The words for flags that there are not: what was meant is most often a key."""
    return [_error(name, value, known) for name, value in line.wrong]


def stored_run_errors(arguments: Sequence[str]) -> list[str]:
    """The words for Hydra's flags where they name a stored run: as a config to begin with it is none."""
    parsed, _ = get_args_parser().parse_known_args(list(arguments))
    given = {
        "--config-path": parsed.config_path,
        "--config-dir": parsed.config_dir,
        "--config-name": parsed.config_name if "/" in str(parsed.config_name) else None,
        "--experimental-rerun": parsed.experimental_rerun,
    }
    errors = []
    for flag, value in given.items():
        run = _run_at(Path(value)) if value else None
        if run is not None or (value and flag == "--experimental-rerun"):
            line = shlex.join(["distill", "rerun", str(run or "RUN"), *parsed.overrides])
            errors.append(
                f"{flag}: {value} belongs to a stored run; to start it again with other values, write: {line}"
            )
    return errors


def _run_at(place: Path) -> Path | None:
    """The folder of the run that a path is, or whose notes or config it is."""
    inside = place.name in (".hydra", "config_resolved", "config_resolved.yaml")
    for folder in (
        place,
        *([place.parent] if inside else []),
        *([place.parent.parent] * (place.parent.name == ".hydra")),
    ):
        if (folder / "config_resolved.yaml").is_file() or (folder / ".hydra" / "overrides.yaml").is_file():
            return folder
    return None


def _error(name: str, value: str | None, known: Suggestions) -> str:
    key, given = name.lstrip("-").replace("-", "_"), "true" if value is None else value
    lines = [f"{key}={given}"] if key in known.keys else known.lines(key, given)
    if lines:
        return f"unknown flag {name!r}; settings have no dashes: write {' or '.join(map(typed, lines))}"
    flags = [each for each in _OPTIONS if each.startswith("--")]
    return f"{unknown('flag', name, flags).split(' (there are')[0]}; a setting is written key=value"


def _takes(flag: str) -> str | None:
    """How many words follow a flag: none, one, maybe; None where there is no such flag."""
    names = [flag] if flag in _OPTIONS else [each for each in _OPTIONS if flag[:2] == "--" and each.startswith(flag)]
    if len(names) == 1:
        return _OPTIONS[names[0]]
    # -cjob: a flag of one letter with its value
    return "none" if flag[:1] == "-" and flag[:2] in ("-c", "-p", "-i") and flag[1:2] != "-" and len(flag) > 2 else None


_INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
_OPTIONS = {
    name: "none" if action.nargs == 0 else "maybe" if action.nargs == "?" else "one"
    for name, action in get_args_parser()._option_string_actions.items()
}

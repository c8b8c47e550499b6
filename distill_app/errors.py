"""What went wrong, in words: the text and the exit code for an exception that reached the command line."""

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from distill_app.wiring import unknown

HEADER = "the configuration cannot run:"


def explain(error: BaseException) -> tuple[str | None, int]:
    """The message and exit code for an exception.

    Returns:
        The text, None where only a traceback would help; and 2 for what was typed or configured, 1 for a failed run.
    """
    from distill_app.build import ConfigError

    if isinstance(error, ConfigError):
        return numbered(error.errors), 2
    if isinstance(error, HydraException | OmegaConfBaseException):
        return numbered([_composition(error, ())[0]]), 2
    if isinstance(error, ValueError | RuntimeError | OSError) and _is_ours(error):
        return f"error: {error}", 1
    return None, 1


def numbered(errors: Sequence[str]) -> str:
    """All errors as one numbered list."""
    return "\n".join([HEADER, *(f"  {number}. {text}" for number, text in enumerate(errors, start=1))])


class Listing:
    """The same list, written to stderr line by line while the errors are found."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, text: str) -> None:
        """Writes the next error."""
        if not self.count:
            print(HEADER, file=sys.stderr)
        self.count += 1
        print(f"  {self.count}. {text}", file=sys.stderr, flush=True)


def _is_ours(error: BaseException) -> bool:
    """Whether the exception was raised, as a message to the user, by this package rather than by a bug in it."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    module = traceback.tb_frame.f_globals.get("__name__", "") if traceback is not None else ""
    return module.split(".")[0] == "distill_app"


def composition_errors(error: Exception, overrides: Sequence[str]) -> list[str]:
    """Everything that is wrong with a command line, one message each.

    Hydra stops at the first override that it cannot apply; the rest is composed without it, until it composes.

    Args:
        error: What Hydra raised.
        overrides: The command line, without flags.
    """
    from distill_app.api import compose
    from distill_app.check import check

    errors, left = [], list(overrides)
    while True:
        text, culprit = _composition(error, left)
        errors.append(text)
        if culprit is None:
            return errors
        left.remove(culprit)
        try:
            return errors + list(check(compose(left)))
        except (HydraException, OmegaConfBaseException) as another:
            error = another


def _composition(error: BaseException, overrides: Sequence[str]) -> tuple[str, str | None]:
    """Hydra's message on one line, with the nearest match of what was misspelt; and the override that it is about."""
    text = " ".join(str(error).split("\nConfig search path")[0].split())
    cause = " ".join(str(error.__cause__).split()).split(" full_key:")[0] if error.__cause__ else ""
    if found := re.search(r"Could not find '(?P<group>[^']+)/(?P<option>[^'/]+)'", text):
        group, option = found["group"], found["option"]
        culprit = _about(overrides, lambda key, value: key.split("@")[0] == group and value == option)
        return _option(group, option), culprit
    if named := re.search(r"(Could not override|Key) '(?P<key>[^']+)'", text):
        key_path = named["key"]
        return _key(key_path, cause), _about(overrides, lambda key, value: key == key_path)
    if found := re.search(r"Error merging override (?P<override>\S+)", text):
        wanted = found["override"]
        culprit = _about(overrides, lambda key, value: f"{key}={value}" == wanted)
        return f"{wanted.split('=')[0]}: {text.removeprefix('Error merging override ')}: {cause}", culprit
    if found := re.search(r"Error parsing override '(?P<override>[^']*)'", text):
        culprit = found["override"] if found["override"] in overrides else None
        return f"{found['override']}: is no override; write key=value", culprit
    if isinstance(error, OmegaConfBaseException) and error.full_key:
        return f"{error.full_key}: {text.split(' full_key:')[0]}", None
    return f"{text} {cause}".strip(), None


def _about(overrides: Sequence[str], matches: Callable[[str, str], bool]) -> str | None:
    """The override that a message is about."""
    for override in overrides:
        key, _, value = override.partition("=")
        if matches(key.lstrip("+~"), value):
            return override
    return None


def _option(group: str, option: str) -> str:
    from distill_app.api import options_of

    return f"{group}: {unknown('option', option, options_of(group))}"


def _key(key: str, cause: str) -> str:
    from distill_app.api import compose

    keys = list(_keys(compose(), ""))
    if key in keys:
        return f"{key}: {cause}"
    hint = unknown("key", key, keys).split(" (there are")[0]
    return f"{key}: {hint}; to add an argument of a _target_, write '+{key}=...'"


def _keys(node: Any, prefix: str) -> Iterator[str]:
    if isinstance(node, DictConfig) and not (node._is_none() or node._is_missing() or node._is_interpolation()):
        for name in node:
            path = f"{prefix}.{name!s}" if prefix else str(name)
            yield path
            yield from _keys(node._get_node(name), path)

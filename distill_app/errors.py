"""What went wrong, in words: the text and the exit code for an exception that reached the command line."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from distill_app.wiring import unknown


def explain(error: BaseException, arguments: Sequence[str]) -> tuple[str | None, int]:
    """The message and exit code for an exception.

    Args:
        error: The exception.
        arguments: The command line.

    Returns:
        The text, None where only a traceback would help; and 2 for what was typed or configured, 1 for a failed run.
    """
    from distill_app.build import ConfigError

    if isinstance(error, ConfigError):
        return listing(error.errors), 2
    if isinstance(error, HydraException | OmegaConfBaseException):
        return listing([_composition(error, arguments)]), 2
    if isinstance(error, ValueError | RuntimeError | OSError) and _is_ours(error):
        return f"error: {error}", 1
    return None, 1


def listing(errors: Sequence[str]) -> str:
    """All errors as one numbered list."""
    count = "1 error" if len(errors) == 1 else f"{len(errors)} errors"
    lines = [f"  {number}. {text}" for number, text in enumerate(errors, start=1)]
    return "\n".join([f"{count} in the configuration:", *lines])


def _is_ours(error: BaseException) -> bool:
    """Whether the exception was raised, as a message to the user, by this package rather than by a bug in it."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    module = traceback.tb_frame.f_globals.get("__name__", "") if traceback is not None else ""
    return module.split(".")[0] == "distill_app"


def _composition(error: BaseException, arguments: Sequence[str]) -> str:
    """Hydra's message, on one line, with the nearest match of what was misspelt."""
    text = " ".join(str(error).split("\nConfig search path")[0].split())
    if found := re.search(r"Could not find '(?P<group>[^']+)/(?P<option>[^'/]+)'", text):
        return _option(found["group"], found["option"])
    if found := re.search(r"Could not override '(?P<key>[^']+)'", text):
        cause = f": {error.__cause__}" if error.__cause__ else ""
        return _key(found["key"], " ".join(cause.split()))
    if found := re.search(r"Key '(?P<key>[^']+)' (is not in struct|not in)", text):
        return _key(found["key"], "")
    if isinstance(error, OmegaConfBaseException) and error.full_key:
        return f"{error.full_key}: {text.split(' full_key:')[0]}"
    cause = " ".join(str(error.__cause__).split()) if error.__cause__ else ""
    return f"{text} {cause.split(' full_key:')[0]}".strip()


def _option(group: str, option: str) -> str:
    from hydra.core.global_hydra import GlobalHydra

    from distill_app.api import options_of

    GlobalHydra.instance().clear()
    return f"{group}: {unknown('option', option, options_of(group))}"


def _key(key: str, cause: str) -> str:
    from distill_app.api import default_config

    key = key.lstrip("+~")
    keys = list(_keys(default_config(), ""))
    if key in keys:
        return f"{key}{cause.split(' full_key:')[0]}"
    hint = unknown("key", key, keys).split(" (there are")[0]
    return f"{key}: {hint}; to add a key that is free-form (an argument of a _target_), write '+{key}=...'"


def _keys(node: Any, prefix: str) -> Iterator[str]:
    if isinstance(node, DictConfig) and not (node._is_none() or node._is_missing() or node._is_interpolation()):
        for name in node:
            path = f"{prefix}.{name!s}" if prefix else str(name)
            yield path
            yield from _keys(node._get_node(name), path)

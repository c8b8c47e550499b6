"""What went wrong, in words: the text and the exit code for an exception that reached the command line."""

import sys
from collections.abc import Sequence

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

HEADER = "the configuration cannot run:"


def explain(error: BaseException) -> tuple[str | None, int]:
    """The message and exit code for an exception.

    Returns:
        The text, None where only a traceback would help; and 2 for what was typed or configured, 1 for a failed run.
    """
    from distill_app.build import ConfigError
    from distill_app.records import UsageError

    if isinstance(error, ConfigError):
        return numbered(error.errors), 2
    if is_of_composition(error):
        return numbered([one_line(error)]), 2
    if isinstance(error, UsageError):
        return f"error: {error}", 2
    if isinstance(error, OSError) or (
        isinstance(error, ValueError | RuntimeError) and _raised_in(error, "distill_app")
    ):
        return f"error: {error}", 1
    return None, 1


def is_of_composition(error: BaseException) -> bool:
    """Whether the exception says that a command line or a config file cannot be composed."""
    if isinstance(error, HydraException | OmegaConfBaseException | YAMLError):
        return True
    return isinstance(error, ValueError) and _raised_in(error, "hydra")


def one_line(error: BaseException | None) -> str:
    """An exception's message without line breaks and without Hydra's and OmegaConf's footnotes."""
    text = " ".join(str(error or "").split("\nConfig search path")[0].split())
    return text.split(" full_key:")[0].split(" See https://hydra.cc")[0]


def numbered(errors: Sequence[str]) -> str:
    """All errors as one numbered list."""
    return "\n".join([HEADER, *(f"  {number}. {text}" for number, text in enumerate(errors, start=1))])


class Listing:
    """The same list, written to stderr line by line while the errors are found, each once."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def add(self, text: str) -> None:
        """Writes the next error."""
        if text in self.texts:
            return
        if not self.texts:
            print(HEADER, file=sys.stderr)
        self.texts.append(text)
        print(f"  {len(self.texts)}. {text}", file=sys.stderr, flush=True)


def _raised_in(error: BaseException, package: str) -> bool:
    """Whether the exception was raised by a package itself, as a message, and not by something that it called."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    module = traceback.tb_frame.f_globals.get("__name__", "") if traceback is not None else ""
    return module.split(".")[0] == package

"""What went wrong, in words: the text and the exit code for an exception that reached the command line."""

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from distill_app.words import numbered


class CheckpointError(RuntimeError):
    """A checkpoint cannot be written, found or trusted."""


class Unusable(Exception):
    """Why one checkpoint cannot be used; another one may."""


class UsageError(ValueError):
    """What was typed names no run, network or file."""


class RunLocked(RuntimeError):
    """Another process works in the run directory."""


def explain(error: BaseException) -> tuple[str | None, int]:
    """The message and exit code for an exception.

    Returns:
        The text, None where only a traceback would help; and 2 for what was typed or configured, 1 for a failed run.
    """
    from distill_app.errors import ConfigError, UsageError

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


def _raised_in(error: BaseException, package: str) -> bool:
    """Whether the exception was raised by a package itself, as a message, and not by something that it called."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    module = traceback.tb_frame.f_globals.get("__name__", "") if traceback is not None else ""
    return module.split(".")[0] == package


class NonFiniteLoss(RuntimeError):
    """A loss that is NaN or infinite; the weights are those of the last good step."""


class TapError(ValueError):
    """A tap that cannot be read: a wrong path, a module that never ran, or an activation changed in place."""


class ConfigError(ValueError):
    """What is wrong with a config, one message per error."""

    def __init__(self, errors: list[str]):
        super().__init__("\n".join(errors))
        self.errors = errors


class CacheError(ValueError):
    """A cache that does not fit what is asked of it, is too large, or cannot be read."""


class CorruptImageError(ValueError):
    """An image that cannot be read, or more of them than `runtime.max_skipped`."""

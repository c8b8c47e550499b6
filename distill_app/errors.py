"""Every error that a user meets, with its exit code; anything else that reaches the command line is a bug.

Exit codes: 2, something is wrong with what was typed or configured; 1, the run failed.
"""

import errno
from collections.abc import Mapping
from typing import Any, ClassVar

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from distill_app.words import numbered


class DistillError(Exception):
    """What went wrong, in words that say all that a user needs: told without a traceback."""

    exit_code: ClassVar[int] = 1


class UsageError(DistillError, ValueError):
    """What was typed names no run, network or file."""

    exit_code = 2


class ConfigError(DistillError, ValueError):
    """What is wrong with a config, one message per error."""

    exit_code = 2

    def __init__(self, errors: list[str]):
        super().__init__("\n".join(errors))
        self.errors = errors

    def __reduce__(self) -> tuple[type["ConfigError"], tuple[list[str]]]:
        return type(self), (self.errors,)  # by default it would be made anew, in another process, from its text


class SettingError(DistillError, ValueError):
    """A value that has the right type and that nothing can work with; the message names its key."""

    exit_code = 2


class NotInstalled(SettingError):
    """A package that an extra of this one brings and that is not there; the message says what to type."""


class DataError(SettingError):
    """A data set that cannot give what is asked of it."""


class WeightsError(SettingError):
    """Weights that cannot be had, read, or put into the network."""


class TapError(DistillError, ValueError):
    """A tap that cannot be read: a wrong path, a module that never ran, or an activation changed in place."""


class CacheError(DistillError, ValueError):
    """A cache that does not fit what is asked of it, is too large, or cannot be read."""


class CheckpointError(DistillError, RuntimeError):
    """A checkpoint cannot be written, found or trusted."""


class IrregularFile(DistillError, OSError):
    """What stands in the place of a file and is none, or is too large for one: a link, a fifo, a device."""


class Unusable(Exception):
    """Why one checkpoint cannot be used; another one may."""


class ExportError(DistillError, RuntimeError):
    """A network that cannot be exported, or an export that answers something else; no file of it is left."""


class RunLocked(DistillError, RuntimeError):
    """Another process works in the run directory."""


class OtherExperiment(UsageError):
    """A folder that holds another experiment than the one that shall run in it."""


class CorruptImageError(DistillError, ValueError):
    """An image that cannot be read, or more of them than `runtime.max_skipped`."""


class WorkerDied(DistillError, RuntimeError):
    """A process that loads data is gone."""


class LaunchError(DistillError, RuntimeError):
    """A job that could not be submitted, or failed elsewhere."""


class RankFailed(DistillError, RuntimeError):
    """Another process of the run has failed, has died or does not answer; the message says which, and why."""


class PointFailed(DistillError, RuntimeError):
    """A point of a sweep failed, told already; what a sweeper gets in the place of an objective."""


class NonFiniteLoss(DistillError, RuntimeError):
    """A loss or gradient that is NaN or infinite; the weights are those of the last good step."""


def described(error: BaseException) -> dict[str, Any]:
    """An exception as plain values, to be told to another process."""
    texts = error.errors if isinstance(error, ConfigError) else [str(error)]
    return {"kind": type(error).__name__, "texts": texts, "notes": list(getattr(error, "__notes__", []))}


def of_description(told: Mapping[str, Any]) -> Exception:
    """The exception of another process, of its class where that is one of these; else a `LaunchError` that names it."""
    name, texts = str(told["kind"]), list(told["texts"])
    kind = globals().get(name)
    error: Exception
    if kind is ConfigError:
        error = ConfigError(texts)
    elif isinstance(kind, type) and issubclass(kind, DistillError):
        error = kind(*texts)
    else:
        error = LaunchError(f"{name}: {' '.join(map(str, texts))}")
    for note in told["notes"]:
        error.add_note(note)
    return error


def explain(error: BaseException) -> tuple[str | None, int]:
    """The message and exit code for an exception.

    Returns:
        The text, None where only a traceback would help; and 2 for what was typed or configured, 1 for a failed run.
    """
    if isinstance(error, ConfigError):
        return numbered(error.errors), error.exit_code
    if isinstance(error, DistillError):
        return f"error: {error}", error.exit_code
    if is_of_composition(error):
        return numbered([one_line(error)]), 2
    if isinstance(error, OSError):
        return f"error: {_of_the_system(error)}", 1
    return None, 1


def _of_the_system(error: OSError) -> str:
    """A full disk, a folder that is not ours: the system's words, the file, and what to do."""
    remedies = {
        errno.ENOSPC: "make room, then go on: distill resume RUN",
        errno.EDQUOT: "make room, then go on: distill resume RUN",
        errno.EROFS: "name a folder that can be written: hydra.run.dir=...",
        errno.EACCES: "name a folder that is yours: hydra.run.dir=...",
    }
    where = f"{error.filename}: " if error.filename else ""
    remedy = remedies.get(error.errno or 0)
    return f"{where}{error.strerror or error}{f'; {remedy}' if remedy else ''}"


def is_of_composition(error: BaseException) -> bool:
    """Whether the exception says that a command line or a config file cannot be composed."""
    if isinstance(error, HydraException | OmegaConfBaseException | YAMLError):
        return True
    return isinstance(error, ValueError) and _raised_by_hydra(error)


def one_line(error: BaseException | None) -> str:
    """An exception's message without line breaks and without Hydra's and OmegaConf's footnotes."""
    text = " ".join(str(error or "").split("\nConfig search path")[0].split())
    return text.split(" full_key:")[0].split(" See https://hydra.cc")[0]


def _raised_by_hydra(error: BaseException) -> bool:
    """Whether Hydra itself raised it, as a message: for some it has no class of its own."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    module = traceback.tb_frame.f_globals.get("__name__", "") if traceback is not None else ""
    return module.split(".")[0] == "hydra"

"""One run from its start to its end, as its folder tells it: claimed, running, done or failed, and why."""

import os
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distill_app.errors import RankFailed
from distill_app.runs.channel import one_channel
from distill_app.runs.claim import claim, finished_summary, refuse_other, resume_command
from distill_app.runs.console import outlasted
from distill_app.runs.files import remove_leftovers
from distill_app.runs.ranklog import NoStatus, RankLog
from distill_app.runs.status import Status, run_lock, state_of
from distill_app.runs.stop import Interrupted, Stop
from distill_app.runs.tracking import Tracker
from distill_app.words import warn


@contextmanager
def run_folder(output_dir: str | os.PathLike[str], config: Mapping[str, Any]) -> Iterator[dict[str, Any] | None]:
    """Takes a folder for a run: locked, and that of this experiment alone, whose config stands in it from now on.

    Args:
        output_dir: The folder; made where it is not there.
        config: The resolved config.

    Yields:
        The summary of the run where it is finished already; None where there is something to do.

    Raises:
        OtherExperiment: Another experiment lies there; nothing was touched.
        RunLocked: Another process works there.
    """
    refuse_other(output_dir, config)  # before the lock, which is a file in that folder
    with run_lock(output_dir):
        summary = finished_summary(output_dir)
        if summary is None:
            state = state_of(Status(output_dir).read()) or ""
            if state.startswith("running ("):
                warn(f"{output_dir}: its status is {state}; nobody holds its lock, so this process goes on with it")
            claim(output_dir, config)
            place = Path(output_dir)
            remove_leftovers(place, place / ".hydra", *(place / "checkpoints").glob("**/"))
        yield summary


@contextmanager
def recorded(folder: Path, *, tracker: Tracker, config: Mapping[str, Any], rank: int = 0) -> Iterator[Stop]:
    """Records what becomes of the work inside: status.json says the state, train.log has warnings and the traceback.

    Console streams that go away end nothing inside. What cannot be recorded of a failure never hides the failure.

    Args:
        folder: Of the run.
        tracker: Its tracker, open.
        config: Its config, for what to type after an interruption.
        rank: Of this process in the run; others than the first have a log of their own for warnings and tracebacks,
            `ranks/rank_1.log`, and no say in the status.

    Yields:
        Whether somebody wants it to end.
    """
    status: Status | NoStatus = NoStatus() if rank else Status(folder)
    log: Tracker | RankLog = RankLog(folder / "ranks" / f"rank_{rank}.log") if rank else tracker
    with outlasted(), one_channel(log), Stop().listening() as stop:
        stop.last_words = lambda reason: status.note("failed", reason=reason)
        status.set("running")
        try:
            yield stop
        except Interrupted as error:
            hint = f"{stop.outcome}; to go on: {resume_command(folder, config)}"
            error.add_note(hint)
            log.note(f"interrupted by {error}: {hint}")
            status.note("preempted", reason=f"{error}: {stop.outcome}")
            raise
        except KeyboardInterrupt as error:
            hint = f"to go on: {resume_command(folder, config)}"
            error.add_note(hint)
            log.note(f"interrupted; {hint}")
            status.note("failed", reason="interrupted")
            raise
        except BaseException as error:
            log.note("".join(traceback.format_exception(error)), level="ERROR")
            status.note("failed", reason=short_cause(error))
            raise
        status.set("done")


def short_cause(error: BaseException, *, limit: int = 500) -> str:
    """An exception in a line."""
    text = " ".join(str(error).split())
    name = "" if isinstance(error, RankFailed) else f"{type(error).__name__}: "  # it tells another one's cause
    return f"{name}{text[:limit]}{' ...' if len(text) > limit else ''}"

"""What became of runs that were submitted, as their folders and the scheduler tell it together."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from distill_app.errors import LaunchError
from distill_app.launch.scheduler import QUEUED, RUNNING, alive
from distill_app.runs.claim import finished_summary
from distill_app.runs.jobs import JobRecord, read_job
from distill_app.runs.status import Status, state_of
from distill_app.runs.untrusted import MOST_BYTES_OF_LINES, read_limited
from distill_app.words import warn

Answer = TypeVar("Answer")

OVER = ("done", "failed", "preempted", "refused", "died", "cancelled", "lost", "not submitted")
_EVERY = 5.0  # seconds between two looks; each costs the controller one question
_PATIENCE = 600.0  # seconds for which a controller that does not answer is asked again


def states(runs: Sequence[Path]) -> dict[Path, str]:
    """The state of every run.

    Args:
        runs: Their folders.

    Returns:
        A state of `runs.status`, where the run says it itself; else `queued`, `requeued`, `starting`, `lost` (queued
        once, and no longer known to the scheduler), `cancelled` or `not submitted`.

    Raises:
        LaunchError: SLURM does not answer.
    """
    return _seen(runs)[0]


def _seen(runs: Sequence[Path]) -> tuple[dict[Path, str], set[Path]]:
    """The states, and the runs whose jobs are queued or running."""
    jobs = {run: job for run in runs if (job := read_job(run)) is not None}
    busy = alive(jobs.values())
    # The folders are read behind the question: a run that is over says so before its job leaves the queue.
    found = {run: _state(state_of(Status(run).read()), busy.get(run), jobs.get(run)) for run in runs}
    return found, {run for run, state in busy.items() if state in (QUEUED, RUNNING)}


def _state(own: str | None, job: str | None, record: JobRecord | None) -> str:
    began = own not in (None, "queued", "refused")
    if own == "done":
        return own
    if job == QUEUED:
        return "requeued" if began else "queued"
    if job == RUNNING:
        own = "running" if own and own.startswith("running") else own
        return "starting" if not began or own == "died" else str(own)
    if own is None:
        return "not submitted"
    if job is None and record is not None and own.startswith("running ("):
        return "died"  # elsewhere, and without a job that could still run it
    if job is None and own == "queued":
        return "cancelled" if record is not None and record.cancelled else "lost"
    return own


def until_over(
    runs: Sequence[Path], *, every: float = _EVERY, look: Callable[[dict[Path, str]], None] = lambda found: None
) -> dict[Path, str]:
    """Waits until no run is queued or running any more, and returns their states.

    Args:
        runs: Their folders.
        every: Seconds between two looks.
        look: Is called with the states at every look.

    Raises:
        LaunchError: SLURM has not answered for ten minutes.
    """
    before: dict[Path, str] = {}
    while True:
        found, busy = patiently(lambda: _seen(runs), every=every)
        look(found)
        if all(state == "done" for state in found.values()):
            return found
        # A job that is queued again leaves the queue for a moment: what is over is so at two looks.
        over = not busy and all(state in OVER for state in found.values())
        if over and found == before:
            return found
        before = found if over else {}
        time.sleep(every)


def patiently(ask: Callable[[], Answer], *, every: float) -> Answer:
    """Asks again where SLURM does not answer, as happens to a busy controller.

    Args:
        ask: Asks it.
        every: Seconds until it is asked again.

    Raises:
        LaunchError: It has not answered for ten minutes.
    """
    since: float | None = None
    while True:
        try:
            return ask()
        except LaunchError as error:
            if since is None:
                since = time.monotonic()
                warn(f"{error}; asking again for {_PATIENCE / 60:.0f} minutes")
            elif time.monotonic() - since > _PATIENCE:
                raise
        time.sleep(every)


def outcome(run: Path) -> dict[str, Any]:
    """The summary of a run that is over.

    Raises:
        LaunchError: It failed, with the reason and where the log is.
    """
    if (summary := finished_summary(run)) is not None:
        return summary
    job, status = read_job(run), Status(run).read()
    if job is None:
        raise LaunchError(f"{run} was never submitted")
    reason = status.get("reason") or last_line(job.stderr) or "it ended without a word"
    raise LaunchError(f"job {job.job_id} failed: {reason}; its log: distill logs {run}")


def last_line(file: Path) -> str:
    """The last line of a log that says something; empty where there is none."""
    try:
        lines = read_limited(file, most=MOST_BYTES_OF_LINES).decode(errors="replace").splitlines()
    except (OSError, ValueError):
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")

"""What SLURM, or this machine, says of jobs: which are queued or running. Accounting (sacct) is not needed."""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from distill_app.errors import LaunchError
from distill_app.runs.jobs import JobRecord

QUEUED, RUNNING, UNKNOWN = "queued", "running", "unknown"
_QUEUED = ("PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD")
_PATIENCE = 30  # seconds for a controller that is busy


def alive(jobs: Iterable[JobRecord]) -> dict[Path, str]:
    """The runs whose jobs are queued or running, with which of both; `unknown` where nobody here can say.

    Args:
        jobs: Of runs.

    Raises:
        LaunchError: SLURM is here, and does not answer.
    """
    jobs = list(jobs)
    queue = _queue() if any(job.cluster == "slurm" for job in jobs) else {}
    found = {}
    for job in jobs:
        state = _local(job) if job.cluster == "local" else _slurm(job, queue)
        if state is not None:
            found[job.run] = state
    return found


def cancel(jobs: Sequence[JobRecord]) -> None:
    """Ends jobs that are alive: runs finish their step and save.

    Raises:
        LaunchError: SLURM refuses.
    """
    slurm = list(dict.fromkeys(job.job_id for job in jobs if job.cluster == "slurm"))
    if slurm:
        _slurm_command("scancel", *slurm)
    for job_id in dict.fromkeys(job.job_id for job in jobs if job.cluster == "local"):
        with suppress(ProcessLookupError):
            os.kill(int(job_id), signal.SIGTERM)  # submitit passes it on to the run


def _slurm(job: JobRecord, queue: dict[str, tuple[str, str]] | None) -> str | None:
    if queue is None:
        return UNKNOWN
    state, script = queue.get(job.job_id, ("", ""))
    # Another cluster, or one set up anew, gives the same numbers to other jobs.
    if not state or Path(script).parent != job.files:
        return None
    return QUEUED if state in _QUEUED else RUNNING


def _queue() -> dict[str, tuple[str, str]] | None:
    """The user's jobs in SLURM's queue: their states and batch files; None where there is no SLURM."""
    if shutil.which("squeue") is None:
        return None
    lines = _slurm_command("squeue", "--me", "--noheader", "--array", "--format=%i|%T|%o").splitlines()
    parts = [line.split("|", 2) for line in lines]
    return {part[0]: (part[1], part[2]) for part in parts if len(part) == 3}


def _slurm_command(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LaunchError(f"{command[0]} does not answer ({error}); try again when SLURM does") from error
    if done.returncode:
        raise LaunchError(f"{command[0]} failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def _local(job: JobRecord) -> str | None:
    if job.host != socket.gethostname():
        return UNKNOWN
    try:
        words = Path(f"/proc/{job.job_id}/cmdline").read_bytes()
    except OSError:
        return None
    # Numbers of processes are given out again.
    return RUNNING if b"submitit.local" in words and os.fsencode(job.files) in words else None

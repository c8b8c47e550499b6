"""`distill cancel`: ends what is queued or running."""

import argparse
from collections.abc import Iterator, Sequence
from contextlib import suppress

from distill_app.launch.scheduler import QUEUED, RUNNING, UNKNOWN, alive, cancel
from distill_app.runs.jobs import JobRecord, read_job, runs_below
from distill_app.verbs.submitted import add_place, jobs_of, shown


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments."""
    add_place(parser)
    parser.epilog = "What was cancelled goes on where it was saved with distill retry, or here with distill resume."


def run(arguments: argparse.Namespace) -> int:
    """Asks SLURM or the processes to end, and says which runs it was."""
    jobs = jobs_of(arguments.path)
    busy = alive(jobs)
    chosen = [job for job in jobs if busy.get(job.run) in (QUEUED, RUNNING)]
    for text in _others(chosen):
        print(text)
    cancel(chosen)
    for job in chosen:
        with suppress(OSError):  # it is a note for `distill jobs`
            job.note_cancelled()
        print(f"cancelled job {job.job_id} ({busy[job.run]}): {shown(job.run, arguments.path)}")
    unknown = [job for job in jobs if busy.get(job.run) == UNKNOWN]
    for job in unknown:
        where = f"on {job.host}" if job.cluster == "local" else "where SLURM is"
        run = shown(job.run, arguments.path)
        print(f"left alone, since nobody here sees it: job {job.job_id} of {run}; do it {where}")
    if not chosen and not unknown:
        print("nothing is queued or running")
    return int(bool(unknown))


def _others(chosen: Sequence[JobRecord]) -> Iterator[str]:
    """Which runs end as well, since they share a job with one of these."""
    for job_id in dict.fromkeys(job.job_id for job in chosen):
        mine = [job for job in chosen if job.job_id == job_id]
        around = (read_job(run) for run in runs_below(mine[0].files.parent))
        shared = [other.run for other in around if other is not None and other.job_id == job_id]
        if more := [str(run) for run in shared if run not in [job.run for job in mine]]:
            yield f"job {job_id} carries out {len(more)} other runs too, which end with it: {more[0]} ..."

"""`distill cancel`: ends what is queued or running."""

import argparse
from contextlib import suppress

from distill_app.launch.scheduler import QUEUED, RUNNING, UNKNOWN, alive, cancel
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

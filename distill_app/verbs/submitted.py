"""Runs that were submitted, as the verbs about jobs name them: a run's folder, or that of a sweep."""

import argparse
import os
from pathlib import Path

from distill_app.errors import UsageError
from distill_app.runs.jobs import JobRecord, read_job, runs_below


def add_place(parser: argparse.ArgumentParser) -> None:
    """Adds the argument that says which runs."""
    parser.add_argument("path", type=Path, help="the folder of a run, or of a sweep, or of runs at any depth")


def runs_of(path: Path) -> list[Path]:
    """The folders of the runs there.

    Raises:
        UsageError: There is none.
    """
    root = Path(os.path.realpath(path))
    if not root.is_dir():
        raise UsageError(f"{path} is no folder; give the folder of a run or of a sweep")
    runs = list(runs_below(root))
    if not runs:
        raise UsageError(f"no run lies in {path} or below it: no config_resolved.yaml")
    return runs


def jobs_of(path: Path) -> list[JobRecord]:
    """The jobs of the runs there.

    Raises:
        UsageError: None was submitted.
    """
    jobs = [job for run in runs_of(path) if (job := read_job(run)) is not None]
    if not jobs:
        raise UsageError(f"no run in {path} was submitted: no job.json; launcher=slurm or launcher=submitit_local does")
    return jobs


def shown(run: Path, root: Path) -> str:
    """A run as it is told below what was typed."""
    below = os.path.relpath(run, os.path.realpath(root))
    return run.name if below == "." else below

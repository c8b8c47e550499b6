"""`distill jobs`: what submitted runs do."""

import argparse
from pathlib import Path
from typing import Any

from distill_app.launch.waiting import OVER, states
from distill_app.runs.files import to_json
from distill_app.runs.jobs import read_job
from distill_app.runs.pace import pace_of
from distill_app.runs.report import summary_table
from distill_app.runs.status import Status
from distill_app.verbs.submitted import add_place, runs_of, shown

_COLUMNS = ("folder", "state", "job", "stage", "epoch", "last_metric", "requeues", "left", "why")


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments."""
    add_place(parser)
    parser.add_argument("--json", action="store_true", help="print a list of objects instead of the table")


def run(arguments: argparse.Namespace) -> int:
    """Prints the table."""
    runs = runs_of(arguments.path)
    found = states(runs)
    records = [_record(run, found[run], root=arguments.path) for run in runs]
    if arguments.json:
        print(to_json(records, indent=2))
        return 0
    print(summary_table([_row(record) for record in records], _COLUMNS))
    counts = ", ".join(f"{sum(s == state for s in found.values())} {state}" for state in dict.fromkeys(found.values()))
    print(f"\n{len(runs)} runs: {counts}")
    if any(state in OVER and state != "done" for state in found.values()):
        print(f"to submit what is neither done nor queued: distill retry {arguments.path}")
    return 0


def _record(run: Path, state: str, *, root: Path) -> dict[str, Any]:
    job, pace = read_job(run), pace_of(run)
    over = state in OVER
    return {
        "folder": shown(run, root),
        "state": state,
        "job_id": job.job_id if job else None,
        "cluster": job.cluster if job else None,
        "stage": pace.stage,
        "epoch": pace.epoch if pace.stage else None,
        "epochs": pace.epochs,
        "metric": pace.metric,
        "value": pace.value,
        "requeues": max(0, job.starts - 1) if job else None,
        "seconds_left": None if over else pace.seconds_left,
        "reason": Status(run).read().get("reason") if over and state != "done" else None,
    }


def _row(record: dict[str, Any]) -> dict[str, Any]:
    left, value = record["seconds_left"], record["value"]
    return {
        **record,
        "job": record["job_id"],
        "epoch": None if record["epoch"] is None else f"{record['epoch']}/{record['epochs'] or '?'}",
        "last_metric": None if value is None else f"{record['metric']} {value:.4g}",
        "left": None if left is None else _duration(left),
        "why": str(record["reason"])[:60] if record["reason"] else None,
    }


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"

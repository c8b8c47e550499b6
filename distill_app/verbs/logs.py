"""`distill logs`: what the job of a run said."""

import argparse
import os
import sys
import time
from pathlib import Path

from distill_app.errors import UsageError
from distill_app.launch.waiting import OVER, patiently, states
from distill_app.runs.jobs import point_log, read_job
from distill_app.verbs.submitted import add_place, runs_of, shown

_EVERY = 1.0  # seconds between two looks at the files
_TAIL = 1_000_000  # bytes in which the last lines are looked for
_LOOKS = 10  # of them between two questions to the scheduler


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments."""
    add_place(parser)
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the run is over")
    parser.add_argument("-n", "--lines", type=int, default=50, help="of each file, from its end (default: 50; 0: all)")


def run(arguments: argparse.Namespace) -> int:
    """Prints the ends of stdout, stderr and train.log, and what is added to them."""
    runs = runs_of(arguments.path)
    if len(runs) > 1:
        named = ", ".join(shown(run, arguments.path) for run in runs[:8])
        raise UsageError(f"{arguments.path} holds {len(runs)} runs, name one of them: {named}")
    (folder,) = runs
    job = read_job(folder)
    own = point_log(folder)
    streams = (own,) if own.is_file() else (job.stdout, job.stderr) if job else ()
    files = [*streams, folder / "train.log"]
    at = {file: _print_end(file, lines=arguments.lines) for file in files}
    looks, before = 0, ""
    while arguments.follow:
        if looks % _LOOKS == 0:
            state = patiently(lambda: states([folder]), every=_LOOKS * _EVERY)[folder]
            # A job that is queued again leaves the queue for a moment: what is over is so at two looks.
            if state == "done" or (state in OVER and state == before):
                _print_new(at)
                break
            before = state
        _print_new(at)
        looks += 1
        time.sleep(_EVERY)
    return 0


def _print_end(file: Path, *, lines: int) -> int:
    """Prints the last lines of a file, and returns how many bytes of it were there."""
    if not file.is_file():
        print(f"==> {file}: not there yet <==", flush=True)
        return 0
    with open(file, "rb") as content:
        size = content.seek(0, os.SEEK_END)
        content.seek(max(0, size - _TAIL) if lines > 0 else 0)
        text = content.read(size).decode("utf-8", errors="replace").splitlines()
    print(f"==> {file} <==", *(text[-lines:] if lines > 0 else text), sep="\n", flush=True)
    return size


def _print_new(at: dict[Path, int]) -> None:
    for file, known in at.items():
        if not file.is_file():
            continue
        with open(file, "rb") as content:
            content.seek(known)
            new = content.read()
        if new:
            sys.stdout.write(new.decode("utf-8", errors="replace"))
            sys.stdout.flush()
            at[file] = known + len(new)

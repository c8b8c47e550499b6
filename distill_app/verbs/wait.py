"""`distill wait`: returns when nothing is queued or running any more."""

import argparse
from collections.abc import Mapping
from pathlib import Path

from distill_app.launch.waiting import until_over
from distill_app.verbs.submitted import add_place, runs_of, shown


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments."""
    add_place(parser)
    parser.add_argument("--every", type=float, default=5.0, metavar="SECONDS", help="between two looks (default: 5)")


def run(arguments: argparse.Namespace) -> int:
    """Waits, says what changes, and returns 0 if every run is done."""
    runs, told = runs_of(arguments.path), dict[Path, str]()

    def look(found: Mapping[Path, str]) -> None:
        for run, state in found.items():
            if told.get(run) != state:
                print(f"{shown(run, arguments.path)}: {state}", flush=True)
                told[run] = state

    found = until_over(runs, every=max(0.1, arguments.every), look=look)
    done = sum(state == "done" for state in found.values())
    print(f"{done} of {len(runs)} done")
    return int(done < len(runs))

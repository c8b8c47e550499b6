"""`distill reproduce RUN`: a finished run once more, from what lies in its folder, and whether it came out the same."""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill_app.errors import UsageError
from distill_app.runs.claim import finished_summary
from distill_app.verbs.stored import add_run, finished, open_run

if TYPE_CHECKING:
    from distill_app.runs.compare import Comparison

_GPU = (
    "the run had no runtime.deterministic, and on a GPU sums may be taken in another order each time: it need not come "
    "out the same to the bit; --deterministic runs it again with it"
)


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments."""
    add_run(parser, checkpoints=False)
    parser.add_argument("--output", help="the new run's folder; default: one below outputs, as for every new run")
    parser.add_argument("--deterministic", action="store_true", help="runs it again with runtime.deterministic=true")
    parser.epilog = (
        "Exit code 0: every record, figure and weight is the same, bit for bit; 1: not all, with the first that "
        "differs and the largest difference. What is different from then (code, packages, machine, data) is told "
        "before it starts. The whole run is carried out; the old folder is only read."
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs it again and compares.

    Returns:
        0 where all is the same, else 1.

    Raises:
        UsageError: It is no finished run, or its own folder would be the new one.
    """
    _, folder, config = open_run(arguments)
    finished(folder)
    target = _target(folder, arguments.output)
    config["dry_run"] = False
    if arguments.deterministic:
        config["runtime"]["deterministic"] = True
    _keep_out(folder, config, target)
    try:
        hints = _carry_out(folder, config, target)
    finally:
        with suppress(OSError):
            target.rmdir()  # where nothing began; that of a run is not empty

    from distill_app.runs.compare import compared

    found = compared(folder, target)
    print(f"\n{folder} and {target}\n{_table(found)}")
    return _verdict(found, hints)


def _target(folder: Path, output: str | None) -> Path:
    """The new run's folder.

    Raises:
        UsageError: It lies in the old one.
    """
    from distill_app.runs.folders import NewFolders

    target = Path(os.path.abspath(output or NewFolders()(time.strftime("outputs/%Y-%m-%d/%H-%M-%S"))))
    if target.resolve().is_relative_to(folder.resolve()):
        raise UsageError(f"--output: {target} lies in the run that shall be left as it is; name another folder")
    return target


def _keep_out(folder: Path, config: dict[str, Any], target: Path) -> None:
    """A cache in the run's own folder would be written to: the new run has its own."""
    cache = config.get("cache")
    if isinstance(cache, dict) and Path(str(cache.get("folder"))).resolve().is_relative_to(folder.resolve()):
        cache["folder"] = str(target / "cache")


def _carry_out(folder: Path, config: dict[str, Any], target: Path) -> list[str]:
    """Says what is different from then, runs, and returns what may explain differences."""
    from distill_app.runs.drift import drift
    from distill_app.training.experiment import Experiment
    from distill_app.training.run import run_experiment

    experiment = Experiment.of(config)
    data = {plan.name: experiment.data.stage(plan).identity for plan in experiment.plans}
    hints = list(drift(folder, config=config, data=data))
    if experiment.device.type == "cuda" and not experiment.app.runtime.deterministic:
        hints.append(_GPU)
    for hint in hints:
        print(f"warning: {hint}", file=sys.stderr, flush=True)
    if finished_summary(target) is not None:
        print(f"{target} is finished already; compared without running it again", flush=True)
    command = ["distill", "reproduce", str(folder)]
    run_experiment(config, output_dir=str(target), command=command, experiment=experiment)
    return hints


def _table(found: Sequence["Comparison"]) -> str:
    from distill_app.runs.report import summary_table

    rows = [
        {
            "file": each.what,
            "compared": each.total,
            "the same": each.same,
            "largest difference": each.largest,
            "first that differs": "; ".join([*each.unread, *([each.first] if each.first else [])]) or None,
        }
        for each in found
    ]
    return summary_table(rows, list(rows[0]))


def _verdict(found: Sequence["Comparison"], hints: Sequence[str]) -> int:
    if all(each.identical for each in found):
        print("the same, bit for bit")
        return 0
    gaps = [each.largest for each in found if each.largest is not None]
    how = f", by up to {max(gaps):.3g}" if gaps else ""
    print(f"not the same{how}{'; see the warnings for what is different from then' if hints else ''}")
    return 1

"""`distill report`: tables and plots over runs."""

import argparse
import sys
from pathlib import Path

from distill_app.runs import plots
from distill_app.runs.collect import collect
from distill_app.runs.files import write_text
from distill_app.runs.report import aggregate, results_csv, results_table, status_text


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument("path", type=Path, help="a run directory, or a folder of runs at any depth")
    parser.add_argument("--csv", action="store_true", help="print CSV instead of the table")


def run(arguments: argparse.Namespace) -> int:
    """Prints the table; writes report.md, .csv and .png under the path."""
    root: Path = arguments.path
    if not root.is_dir():
        print(f"report: {root} is no folder; give a run directory or a folder of runs", file=sys.stderr)
        return 2
    runs = collect(root)
    if not runs:
        print(f"report: no summary.json or status.json below {root}", file=sys.stderr)
        return 1
    records = aggregate(runs)
    table, status = results_csv(records), status_text(runs)
    print(table if arguments.csv else f"{results_table(records)}\n\n{status}", end="" if arguments.csv else "\n")
    image = "\n\n![Results on the test set](report.png)" if records else ""
    try:
        write_text(root / "report.csv", table)
        markdown = results_table(records, markdown=True)
        write_text(root / "report.md", f"# Results\n\n{markdown}{image}\n\n{status}\n")
        if records:
            plots.results(root / "report.png", records=records)
    except OSError as error:
        print(f"report: cannot write to {root}: {error.strerror or error}", file=sys.stderr)
        return 1
    return 0

"""`distill report`: tables, a picture and a page over runs."""

import argparse
import sys
from pathlib import Path

from distill_app.report import picture
from distill_app.report.comparison import compared
from distill_app.report.page import write_page
from distill_app.report.results import aggregate
from distill_app.report.tables import markdown_text, results_csv, results_table, results_tex, status_text
from distill_app.runs.collect import collect
from distill_app.runs.files import write_text


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument("path", type=Path, help="a run directory, or a folder of runs at any depth")
    parser.add_argument("--csv", action="store_true", help="print CSV instead of the table")
    parser.add_argument(
        "--output", type=Path, help="the folder for report.html, .md, .csv, .tex and .png; default: path"
    )


def run(arguments: argparse.Namespace) -> int:
    """Prints the table; writes report.html, .md, .csv, .tex and .png."""
    root: Path = arguments.path
    output: Path = arguments.output or root
    if not root.is_dir():
        print(f"report: {root} is no folder; give a run directory or a folder of runs", file=sys.stderr)
        return 2
    runs = collect(root)
    if not runs:
        print(f"report: no summary.json or status.json below {root}", file=sys.stderr)
        return 1
    found = compared(aggregate(runs))
    table, status = results_csv(found), status_text(runs)
    results = f"{results_table(found)}\n\n" if found else ""
    print(table if arguments.csv else f"{results}{status}", end="" if arguments.csv else "\n")
    image = "![Results on the test set](report.png)\n\n" if found else ""
    try:
        output.mkdir(parents=True, exist_ok=True)
        write_text(output / "report.csv", table)
        markdown = f"{results_table(found, markdown=True)}\n\n" if found else ""
        told = "\n".join(map(_in_markdown, status.splitlines()))
        write_text(output / "report.md", f"# Results\n\n{markdown}{image}{told}\n")
        write_text(output / "report.tex", results_tex(found))
        picture.draw(output / "report.png", found=found)
        write_page(output / "report.html", runs=runs, found=found, title=root.resolve().name)
    except OSError as error:
        print(f"report: cannot write to {output}: {error.strerror or error}", file=sys.stderr)
        return 1
    if not arguments.csv:
        print(f"\npage: {output / 'report.html'}")
    return 0


def _in_markdown(line: str) -> str:
    return f"- {markdown_text(line[2:])}" if line.startswith("- ") else markdown_text(line)

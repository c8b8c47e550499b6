"""Measures the README's table: test accuracy of the default experiment over five seeds.

    python -m scripts.measure.default

The teacher is trained once, with seed 0, and serves all students. Every student of a row sees the same 1000 labels.
"""

import argparse
import json
import math
import statistics
from pathlib import Path

from distill_app import compose, run

from ..output import require_folder
from .measuring import train_teacher


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("outputs/default"))
    arguments = parser.parse_args()
    require_folder(parser, arguments.output)
    measure(arguments, train_teacher("fashion_mini", arguments.output / "teacher")["rows"][0])


def student(folder: Path, teacher: Path, *overrides: str) -> dict:
    """The summary of one run with that teacher."""
    return run(compose([f"teacher.checkpoint={teacher}", *overrides]), output_dir=str(folder))


def measure(arguments: argparse.Namespace, teacher: dict) -> None:
    """Prints the table, and writes it with its numbers as JSON."""
    weights = arguments.output / "teacher" / "student.pt"
    runs = [
        student(arguments.output / f"seed{seed}", weights, f"seed={seed}")["rows"] for seed in range(arguments.seeds)
    ]
    rows = {
        row["network"]: [other for rows in runs for other in rows if other["network"] == row["network"]]
        for row in runs[0]
    }
    alone, taught = ([row["accuracy"] for row in rows[name]] for name in ("baseline", "student"))
    difference = statistics.mean(taught) - statistics.mean(alone)
    error = math.sqrt(statistics.variance(taught) / len(taught) + statistics.variance(alone) / len(alone))
    lines = ["| network | labels | parameters | test accuracy | agreement with the teacher |", "|---|---|---|---|---|"]
    lines.append(f"| teacher | 4500 | {teacher['parameters']:,} | {100 * teacher['accuracy']:.2f} | - |")
    for label, name in (("student alone", "baseline"), ("student with KD", "student")):
        lines.append(
            f"| {label} | 1000 | {rows[name][0]['parameters']:,} | {spread(rows[name], 'accuracy')} "
            f"| {spread(rows[name], 'agreement')} |"
        )
    text = "\n".join(lines)
    verdict = (
        f"difference {100 * difference:.2f} points, standard error {100 * error:.2f}: {difference / error:.1f} times"
    )
    print(f"\n{text}\n\n{verdict} ({len(runs)} seeds)")
    record = {"teacher": teacher, "runs": runs, "difference": difference, "standard_error": error}
    (arguments.output / "table.json").write_text(json.dumps(record, indent=2), encoding="utf-8")
    (arguments.output / "table.md").write_text(f"{text}\n\n{verdict}\n", encoding="utf-8")


def spread(rows: list[dict], key: str) -> str:
    """Mean and standard deviation over seeds, in percent."""
    values = [100 * row[key] for row in rows]
    return f"{statistics.mean(values):.2f} +- {statistics.stdev(values):.2f}"


if __name__ == "__main__":
    main()

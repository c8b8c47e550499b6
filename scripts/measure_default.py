"""Measures the default experiment over several seeds, or compares settings of KD on the validation images.

    python scripts/measure_default.py                 # the README's table: test accuracy over five seeds
    python scripts/measure_default.py --choose        # what other temperatures and weights give: validation accuracy

The teacher is trained once, with seed 0, and serves all students. Every student of a row sees the same 1000 labels.
"""

import argparse
import json
import math
import statistics
from pathlib import Path

from distill_app import compose, run

CHOICES = [(temperature, kd) for temperature in (2.0, 4.0, 8.0) for kd in (0.5, 0.9)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("outputs/default"))
    parser.add_argument("--choose", action="store_true", help="compare settings of KD on the validation images")
    arguments = parser.parse_args()
    teacher = train_teacher(arguments.output / "teacher")
    if arguments.choose:
        choose(arguments, teacher)
    else:
        measure(arguments, teacher)


def train_teacher(folder: Path) -> dict:
    """The teacher's row; the run is taken up again if it is there."""
    overrides = ["method=ce", "prelude=none", "method.stages.train.label=teacher", "stage.epochs=16", "stage.lr=0.05"]
    overrides += ["model@student=cres_w24", "dataset.student_labels_per_class=null"]
    return run(compose(overrides), output_dir=str(folder))["rows"][0]


def student(folder: Path, teacher: Path, *overrides: str) -> dict:
    """The summary of one run with that teacher."""
    return run(compose([f"teacher.checkpoint={teacher}", *overrides]), output_dir=str(folder))


def choose(arguments: argparse.Namespace, teacher: dict) -> None:
    """Prints the mean validation accuracy of every setting, on seeds that the table does not use."""
    weights = arguments.output / "teacher" / "student.pt"
    for temperature, kd in CHOICES:
        name = f"T{temperature:g}_kd{kd:g}"
        terms = "method.stages.distill.losses"
        overrides = ["prelude=teacher", f"{terms}.kd.loss.temperature={temperature}", f"{terms}.kd.weight={kd}"]
        overrides += [f"{terms}.ce.weight={1 - kd:g}"]
        runs = [
            student(arguments.output / "choose" / name / f"{seed}", weights, f"seed={seed}", *overrides)
            for seed in range(100, 100 + arguments.seeds)
        ]
        accuracies = [summary["objective"] for summary in runs]
        print(
            f"{name:<12} {100 * statistics.mean(accuracies):.2f} +- {100 * statistics.stdev(accuracies):.2f}",
            flush=True,
        )


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

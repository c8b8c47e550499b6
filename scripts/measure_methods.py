"""Measures every method against the student alone and tuned KD, on real data, each within the same budget.

    python scripts/measure_methods.py                    # all methods, three seeds; docs/results.md and its figure
    python scripts/measure_methods.py --methods kd,at    # only some; what is there already is not run again

Budget: 60 epochs in which the student is trained, split evenly over the stages that train it; stages that train only
adapters or another network have what their method gives them. One teacher serves all; all students of a seed start
from the same weights and see the same 1000 labels in the same order. Methods run with the weights of their files, which
are the published ones: nothing is tuned here but KD (by `measure_default.py --choose`, on validation images).
HND and GHND train a bottleneck inside the teacher's architecture and are no students of this size; they are left out.
"""

import argparse
import json
import math
import statistics
from pathlib import Path

from distill_app import compose, run
from distill_app.api import options_of

BUDGET = 60
LEFT_OUT = {"hnd", "ghnd"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", default=",".join(sorted(set(options_of("method")) - LEFT_OUT)))
    parser.add_argument("--output", type=Path, default=Path("outputs/methods"))
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    arguments = parser.parse_args()
    teacher = train_teacher(arguments.output / "teacher")
    for method in arguments.methods.split(","):
        for seed in range(arguments.seeds):
            student(arguments.output / method / str(seed), method, seed, arguments.output / "teacher" / "student.pt")
    write(arguments, teacher)


def train_teacher(folder: Path) -> dict:
    """The default experiment's teacher, on all labels; not trained again if it is there."""
    overrides = ["method=ce", "prelude=none", "method.stages.train.label=teacher", "stage.epochs=16", "stage.lr=0.05"]
    overrides += ["model@student=cres_w24", "dataset.student_labels_per_class=null", "runtime.threads=1"]
    return run(compose(overrides), output_dir=str(folder))["rows"][0]


def student(folder: Path, method: str, seed: int, teacher: Path) -> dict:
    """One run; the folder of a finished one gives its summary."""
    base = [f"method={method}", "prelude=none", f"seed={seed}", f"teacher.checkpoint={teacher}", "runtime.threads=1"]
    stages = compose(base).method
    trained = [name for name in stages.schedule if "student" in stages.stages[name].train and not _other(stages, name)]
    epochs = [f"method.stages.{name}.epochs={BUDGET // len(trained)}" for name in trained]
    return run(compose([*base, *epochs]), output_dir=str(folder))


def _other(method, name: str) -> bool:
    """Whether the stage's student is another network, which costs but is not the student."""
    return "student" in method.stages[name].roles


def write(arguments: argparse.Namespace, teacher: dict) -> None:
    """The table, the figure and the numbers of all methods that have run."""
    rows = sorted(collect(arguments.output), key=lambda row: -row["accuracy"])
    alone = next((row for row in rows if row["method"] == "ce"), None)
    arguments.docs.mkdir(exist_ok=True)
    (arguments.docs / "results.json").write_text(json.dumps({"teacher": teacher, "rows": rows}, indent=1) + "\n")
    lines = [
        "| method | test accuracy | against the student alone | agreement with the teacher | CPU cost |",
        "|---|---|---|---|---|",
    ]
    lines += [line(row, alone) for row in rows]
    text = HEAD.format(teacher=100 * teacher["accuracy"], parameters=teacher["parameters"], seeds=arguments.seeds)
    (arguments.docs / "results.md").write_text("\n".join([text, *lines, "", TAIL]), encoding="utf-8")
    figure(rows, teacher, arguments.docs / "results.png")
    print("\n".join(lines))


def collect(folder: Path) -> list[dict]:
    """Mean and standard deviation over seeds of every method below a folder."""
    rows = []
    for place in sorted(path for path in folder.iterdir() if path.is_dir() and path.name != "teacher"):
        summaries = [json.loads(path.read_text()) for path in sorted(place.glob("*/summary.json"))]
        tested = [next(row for row in summary["rows"] if row["network"] == "student") for summary in summaries]
        if len(tested) < 2:
            continue
        accuracies = [row["accuracy"] for row in tested]
        agreements = [row["agreement"] for row in tested if row.get("agreement") is not None]
        rows.append(
            {
                "method": place.name,
                "seeds": len(tested),
                "accuracy": statistics.mean(accuracies),
                "deviation": statistics.stdev(accuracies),
                "agreement": statistics.mean(agreements) if agreements else None,
                "seconds": statistics.mean(
                    sum(s["seconds"] for s in summary["stages"].values()) for summary in summaries
                ),
            }
        )
    return rows


def line(row: dict, alone: dict | None) -> str:
    """One line of the table; a difference is bold if it exceeds twice its standard error."""
    name = "student alone (`ce`)" if row["method"] == "ce" else f"`{row['method']}`"
    accuracy = f"{100 * row['accuracy']:.2f} +- {100 * row['deviation']:.2f}"
    agreement = "-" if row["agreement"] is None else f"{100 * row['agreement']:.1f}"
    difference, cost = "-", "-"
    if alone is not None and row is not alone:
        gain = row["accuracy"] - alone["accuracy"]
        error = math.sqrt((row["deviation"] ** 2 + alone["deviation"] ** 2) / row["seeds"])
        difference = f"{100 * gain:+.2f}"
        difference = f"**{difference}**" if abs(gain) > 2 * error else difference
        cost = f"{row['seconds'] / alone['seconds']:.1f}x"
    return f"| {name} | {accuracy} | {difference} | {agreement} | {cost} |"


def figure(rows: list[dict], teacher: dict, path: Path) -> None:
    """Horizontal bars: accuracy with its standard deviation, and the student alone and the teacher as lines."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(figsize=(8, 0.32 * len(rows) + 1.2), layout="constrained")
    names = ["student alone" if row["method"] == "ce" else row["method"] for row in rows][::-1]
    values = [100 * row["accuracy"] for row in rows][::-1]
    errors = [100 * row["deviation"] for row in rows][::-1]
    colors = ["#d55e00" if name == "student alone" else "#0072b2" for name in names]
    axes.barh(names, values, xerr=errors, color=colors, height=0.7, error_kw={"lw": 1, "capsize": 2})
    for row in rows:
        if row["method"] == "ce":
            axes.axvline(100 * row["accuracy"], color="#d55e00", lw=1, ls="--")
    axes.axvline(
        100 * teacher["accuracy"], color="0.3", lw=1, ls=":", label=f"teacher {100 * teacher['accuracy']:.1f} %"
    )
    axes.set_xlim(min(values) - 2, 100 * teacher["accuracy"] + 1)
    axes.set_xlabel("test accuracy (%)")
    axes.legend(loc="lower right", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    fig.savefig(path, dpi=150)


HEAD = """# Results on bundled data

Every method with the same student, teacher, data and budget, measured by `python scripts/measure_methods.py`
({seeds} seeds, mean and standard deviation; numbers in [results.json](results.json)).

- Data: `fashion_mini`, 1000 labels for the student, 4500 for the teacher, 2000 test images.
- Teacher: `cres_w24` ({parameters:,} parameters, {teacher:.2f} %). Student: `plain_16_32_64` (24,346 parameters).
- Budget: 60 epochs of training the student, over all stages of a method together.
- Weights of the terms are those in the method files (the published ones); only KD's were chosen for this data, on
  validation images. A method below the student alone is one whose published weights do not suit a student this small.

![results](results.png)

A difference in bold exceeds twice its standard error. Cost is the time of all stages against the student alone.
"""

TAIL = """`hnd` and `ghnd` put a bottleneck into the teacher's own architecture; see [methods.md](methods.md).
"""

if __name__ == "__main__":
    main()

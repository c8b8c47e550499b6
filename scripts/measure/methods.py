"""Measures every method against the student alone and tuned KD, on real data, each within the same budget.

    python -m scripts.measure.methods                    # all methods on digits, three seeds: docs/results.md, figure
    python -m scripts.measure.methods --dataset fashion_mini   # the same on larger images: docs/results_fashion_mini.md
    python -m scripts.measure.methods --methods kd,at    # only some; what is there already is not run again

Budget: the epochs of the data set's recipe in which the student is trained, split evenly over the stages that train it;
stages that train only adapters or another network have what their method gives them. One teacher serves all; all
students of a seed start from the same weights and see the same labels in the same order. Methods run with the weights
of their files, which are the published ones; beside them stands KD with the temperature and weight that were best on
the validation images, the only settings that are chosen for this data.
HND and GHND train a bottleneck inside the teacher's architecture; a table of its own compares them with labels and KD
on that network.
"""

import argparse
import json
import math
import re
import statistics
import textwrap
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from distill_app import compose, run
from distill_app.config.tree import options_of

from ..output import require_folder
from .measuring import DATA, ONE_THREAD, terms, train_teacher

DOCS = Path("docs")
BUDGET = {"digits": 100, "fashion_mini": 60}
# Images with several labels, or with objects.
OTHER_DATA = {"multilabel_kd", "own", "own_rcnn", "pkd_fpn", "l2_fpn"}
TUNED = "kd (tuned)"
SPLIT = ("hnd", "ghnd")  # they train a bottleneck inside the teacher's architecture
BOTTLENECK = "model@student=teacher_bottleneck"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", choices=sorted(DATA), default="digits")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", default=",".join(sorted({*options_of("method")} - OTHER_DATA)))
    parser.add_argument("--output", type=Path, default=Path("outputs/methods"))
    parser.add_argument("--docs", type=Path, default=DOCS)
    arguments = parser.parse_args()
    require_folder(parser, arguments.docs, arguments.output)
    place, dataset = arguments.output / arguments.dataset, arguments.dataset
    temperature, weight = tuned(dataset)
    teacher = train_teacher(dataset, place / "teacher")["rows"][0]
    for seed in range(arguments.seeds):
        for method in set(arguments.methods.split(",")) - set(SPLIT):
            student(place, dataset, method, seed)
        student(place, dataset, "kd", seed, name=TUNED, overrides=terms(temperature, weight))
        for method in ("ce", "kd", *SPLIT):
            student(place, dataset, method, seed, name=f"split/{method}", overrides=[BOTTLENECK])
    write(arguments, place, teacher, f"temperature {temperature:g}, weights {1 - weight:g} and {weight:g}")


def student(
    place: Path, dataset: str, method: str, seed: int, *, name: str | None = None, overrides: Sequence[str] = ()
) -> dict:
    """One run below `place`; the folder of a finished one gives its summary."""
    budget = BUDGET[dataset]
    weights = place / "teacher" / "student.pt"
    base = [
        *DATA[dataset].overrides,
        f"method={method}",
        "prelude=none",
        f"seed={seed}",
        f"teacher.checkpoint={weights}",
    ]
    stages = compose(base).method
    trained = [stage for stage in stages.schedule if trains_the_student(stages.stages[stage])]
    epochs = [f"method.stages.{stage}.epochs={budget // len(trained)}" for stage in trained]
    cfg = compose([*base, *epochs, *overrides, *ONE_THREAD])
    return run(cfg, output_dir=str(place / (name or method) / str(seed)))


def trains_the_student(stage: DictConfig) -> bool:
    """Whether a stage counts against the budget; one in which another network plays the student does not."""
    return (stage.train is None or "student" in stage.train) and "student" not in stage.roles


def tuned(dataset: str) -> tuple[float, float]:
    """The temperature and weight of KD that are best on the data set's validation images (`measure/settings.py`)."""
    tried = json.loads((DOCS / "settings.json").read_text(encoding="utf-8"))[dataset]["temperature_weight"]
    temperature, weight = max(tried, key=lambda setting: statistics.mean(tried[setting])).split()
    return float(temperature), float(weight)


def write(arguments: argparse.Namespace, place: Path, teacher: dict, tuned: str) -> None:
    """The table, the figure and the numbers of all methods that have run."""
    rows = sorted(collect(place), key=lambda row: -row["accuracy"])
    split = sorted(collect(place / "split"), key=lambda row: -row["accuracy"])
    stem = "results" if arguments.dataset == "digits" else f"results_{arguments.dataset}"
    numbers = {"teacher": teacher, "rows": rows, "split": split}
    (arguments.docs / f"{stem}.json").write_text(json.dumps(numbers, indent=1) + "\n")
    summary = json.loads((place / "kd" / "0" / "summary.json").read_text())
    identity = json.loads((place / "kd" / "0" / "data.json").read_text())["distill"]
    text = HEAD.format(
        command=f"python -m scripts.measure.methods --dataset {arguments.dataset}",
        dataset=arguments.dataset,
        stem=stem,
        labels=identity["train"],
        budget=BUDGET[arguments.dataset],
        teacher=f"`{summary['teacher']}` ({teacher['parameters']:,} parameters, {100 * teacher['accuracy']:.2f} %)",
        student=f"`{summary['student']}` ({summary['rows'][0]['parameters']:,} parameters)",
        seeds=arguments.seeds,
        tuned=tuned,
    )
    cut = CUT.format(cut=crossing(place / "split" / "ghnd" / "0"), parameters=f"{split[0]['parameters']:,}")
    page = "\n".join([wrapped(text), *table(rows), "", wrapped(cut), *table(split), ""])
    (arguments.docs / f"{stem}.md").write_text(page, encoding="utf-8")
    figure(rows, teacher, arguments.docs / f"{stem}.png")
    print(page)


def wrapped(text: str) -> str:
    """Paragraphs and list entries in lines of 120 characters."""
    entries = re.split(r"\n\n|\n(?=- )", text.strip())
    lines = [textwrap.fill(" ".join(e.split()), 120, subsequent_indent="  " * e.startswith("- ")) for e in entries]
    parts = [
        line + ("\n" if not after.startswith("- ") else "") for line, after in zip(lines, [*lines[1:], ""], strict=True)
    ]
    return "\n".join(parts)


def table(rows: list[dict]) -> list[str]:
    """The lines of a table, best first."""
    alone = next((row for row in rows if row["method"] == "ce"), None)
    head = "| method | test accuracy | against the student alone | agreement with the teacher | cost |"
    return [head, "|---|---|---|---|---|", *(line(row, alone) for row in rows)]


def crossing(folder: Path) -> str:
    """What crosses the cut of a bottleneck, as the log of a run tells it."""
    lines = (folder / "train.log").read_text(encoding="utf-8").splitlines()
    return next(text.split(" INFO ", 1)[1].strip() for text in lines if "cut at " in text)


def collect(folder: Path) -> list[dict]:
    """Mean and standard deviation over seeds of every method below a folder."""
    rows = []
    for place in sorted(path for path in folder.iterdir() if path.is_dir() and path.name not in ("teacher", "split")):
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
                "parameters": tested[0]["parameters"],
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

Every method with the same student, teacher, data and budget, measured by `{command}` ({seeds} seeds, mean and standard
deviation; numbers in [{stem}.json]({stem}.json)).

- Data: `{dataset}`, {labels} labels for the student, all training images for the teacher; accuracy on the test set.
- Teacher: {teacher}. Student: {student}.
- Budget: {budget} epochs of training the student, over all stages of a method together.
- The weights of the terms are those in the method files, mostly published for CIFAR-100 or ImageNet. Only
  `kd (tuned)` was chosen for this data, on validation images: {tuned}. A method below the student alone is one whose
  published weights do not suit networks and images this small; it is reported as it is. Splitting the budget is hard
  on methods with two stages where an epoch has few steps, most of all where the second has a small published rate.

![results]({stem}.png)

A difference in bold exceeds twice its standard error. Cost is the time of all stages against the student alone, of runs
this short mostly fixed cost.
"""

CUT = """
## A bottleneck inside the teacher's architecture

`hnd` and `ghnd` are for a network that is cut in two: the head, up to a bottleneck, runs on a weak device, the rest
elsewhere. Their student is the teacher's architecture with a bottleneck of 3 channels ({parameters} parameters; {cut}).
They start from the teacher's weights and train the head alone; labels (`ce`) and `kd` train the whole network from
scratch, within the same number of epochs and on the same labels.
"""

if __name__ == "__main__":
    main()

"""An evaluation as one picture: reliability, classes, confusions, and the activations of both networks."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distill_app.runs.plots import COLOURS, DPI, new_canvas, plain

_SHOWN = 25  # classes that have a name on an axis


def draw(path: Path, found: Mapping[str, Any]) -> bool:
    """Draws what there is of an evaluation; whether there was anything."""
    panels = [
        (name, panel)
        for name, panel in (
            ("calibration", _reliability),
            ("per_class", _classes),
            ("confusion", _confusion),
            ("similarity", _similarity),
        )
        if found.get(name) and (name != "per_class" or "accuracy" in found["per_class"][0])
    ]
    if not panels:
        return False
    rows = -(-len(panels) // 2)
    figure = new_canvas(width=11.0, height=4.6 * rows)
    axes = figure.subplots(rows, 2, squeeze=False).flatten()
    for axis, (_, panel) in zip(axes, panels, strict=False):
        panel(axis, found)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    figure.savefig(path, dpi=DPI)
    return True


def _reliability(axis: Any, found: Mapping[str, Any]) -> None:
    axis.plot([0, 1], [0, 1], color="#999999", lw=1, ls="--", label="calibrated")
    for colour, key, name in ((0, "calibration", found["network"]), (1, "teacher_calibration", "teacher")):
        if key in found:
            bins = [each for each in found[key]["bins"] if each["count"]]
            sure, right = [each["confidence"] for each in bins], [each["accuracy"] for each in bins]
            label = f"{plain(name)}: ECE {100 * found[key]['ece']:.2f}%"
            axis.plot(sure, right, color=COLOURS[colour], lw=1, alpha=0.7, label=label)
            sizes = [12 + 160 * each["count"] / found["count"] for each in bins]
            axis.scatter(sure, right, s=sizes, color=COLOURS[colour], alpha=0.8)
    axis.set(xlabel="Confidence", ylabel="Accuracy", xlim=(0, 1), ylim=(0, 1))
    axis.set_title("Reliability; larger dots are more images", loc="left", fontsize=11)
    axis.legend(frameon=False, fontsize=9, loc="upper left")


def _classes(axis: Any, found: Mapping[str, Any]) -> None:
    lines = sorted(found["per_class"], key=lambda each: -1 if each["accuracy"] is None else each["accuracy"])[:_SHOWN]
    values = [100 * (each["accuracy"] or 0.0) for each in lines]
    axis.barh(range(len(lines)), values, color=COLOURS[0], alpha=0.85)
    theirs = [
        (i, 100 * each["teacher_accuracy"]) for i, each in enumerate(lines) if each.get("teacher_accuracy") is not None
    ]
    axis.plot([value for _, value in theirs], [i for i, _ in theirs], "|", color=COLOURS[1], ms=10, mew=2)
    axis.set_yticks(range(len(lines)), [plain(each["class"]) for each in lines], fontsize=8)
    axis.invert_yaxis()
    axis.set(xlabel="Accuracy (%)", xlim=(0, 100))
    more = f", the lowest {_SHOWN} of {len(found['per_class'])}" if len(found["per_class"]) > _SHOWN else ""
    axis.set_title(f"By class{more}{'; | the teacher' if theirs else ''}", loc="left", fontsize=11)


def _confusion(axis: Any, found: Mapping[str, Any]) -> None:
    names = [each["class"] for each in found["per_class"]]
    matrix = [[0.0] * len(names) for _ in names]
    for true, taken, count in found["confusion"]:
        matrix[true][taken] = count / max(1, found["per_class"][true]["count"])
    axis.imshow(matrix, cmap="Blues", vmin=0, vmax=1)
    axis.grid(False)
    if len(names) <= _SHOWN:
        axis.set_xticks(range(len(names)), [plain(name) for name in names], fontsize=7, rotation=90)
        axis.set_yticks(range(len(names)), [plain(name) for name in names], fontsize=7)
    axis.set(xlabel="Taken for", ylabel="Class")
    axis.set_title("Confusions, as shares of a class", loc="left", fontsize=11)


def _similarity(axis: Any, found: Mapping[str, Any]) -> None:
    rows, columns, values = (found["similarity"][key] for key in ("rows", "columns", "cka"))
    axis.imshow([[0.0 if value is None else value for value in line] for line in values], cmap="Blues", vmin=0, vmax=1)
    axis.grid(False)
    for i, line in enumerate(values):
        for j, value in enumerate(line):
            text = "-" if value is None else f"{value:.2f}"
            axis.text(
                j, i, text, ha="center", va="center", fontsize=7, color="white" if (value or 0) > 0.6 else "black"
            )
    axis.set_xticks(range(len(columns)), [plain(name) for name in columns], fontsize=8, rotation=45)
    axis.set_yticks(range(len(rows)), [plain(name) for name in rows], fontsize=8)
    axis.set(xlabel="Teacher", ylabel=plain(found["network"]))
    axis.set_title("Linear CKA of activations", loc="left", fontsize=11)

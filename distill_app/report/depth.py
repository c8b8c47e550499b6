"""What `distill evaluate --full` found of runs, as the page shows it.

Files of runs may come from elsewhere: an evaluation that is not as the program writes it is left out.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distill_app.report.results import number
from distill_app.report.sheets import Cell, Column, Sheet
from distill_app.runs.evaluations import read_all
from distill_app.words import count_text, size_text

_IMAGE = re.compile(r"data:image/png;base64,[A-Za-z0-9+/]+=*")
_IMAGE_BYTES = 1_200_000  # of all examples of a page, which is to stay small
_MATRIX = 40  # classes of which all confusions are shown; of more the most frequent
_CONFUSIONS, _CLASSES = 1600, 1000
_SHARES = ("agreement", "both_right", "only_teacher", "only_student", "both_wrong", "same_mistake")


def depth_of(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The evaluations of all runs, each with the path of its run and its name."""
    found, room = [], _IMAGE_BYTES
    for run in runs:
        for name, value in read_all(Path(run["folder"])).items():
            try:
                each = _read(value)
            except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError):
                continue
            for example in each["examples"]:
                room -= len(example["image"] or "")
                example["image"] = example["image"] if room >= 0 else None
            found.append({"run": run["path"], "seed": run.get("seed"), "name": name, **each})
    return found


def depth_sheet(found: Sequence[Mapping[str, Any]]) -> Sheet:
    """One line for each evaluation."""
    heads = [
        ("accuracy", ""),
        ("ECE", "expected calibration error, 15 bins"),
        ("agreement", "the same class as the teacher"),
        ("KL", "of teacher and student, in nats"),
        ("lowest class", "the accuracy of the class that is found least"),
        ("CKA", "of the logits of both"),
    ]
    columns = [Column("run"), Column("evaluation"), *(Column(*head, numeric=True) for head in heads)]
    rows = []
    for each in found:
        fidelity = each["fidelity"] or {}
        classes = [line["accuracy"] for line in each["per_class"] if line["accuracy"] is not None]
        lowest = min(classes, default=None)
        shares = [each["accuracy"], (each["calibration"] or {}).get("ece"), fidelity.get("agreement")]
        cells = [*map(_percent, shares), _plain(fidelity.get("kl")), _percent(lowest), _plain(_of_logits(each))]
        rows.append([Cell(str(each["run"])), Cell(str(each["name"])), *cells])
    return Sheet(columns, rows)


def networks_sheet(found: Sequence[Mapping[str, Any]]) -> Sheet:
    """What the networks of evaluations cost where they are used, a line for each."""
    sizes = list(dict.fromkeys(size for each in found for cost in each["costs"] for size in cost["seconds"]))
    columns = [Column("run"), Column("evaluation"), Column("network"), Column("parameters", numeric=True)]
    columns.append(Column("size", "of parameters and buffers", numeric=True))
    columns.append(Column("FLOPs", "of one image; a multiplication and an addition are two", numeric=True))
    for size in sizes:
        columns.append(Column(f"latency, batch {size}", "median of forwards, in milliseconds", numeric=True))
    columns += [Column("images/s", f"in batches of {sizes[-1]}" if sizes else "", numeric=True), Column("on")]
    rows = []
    for each in found:
        for cost in each["costs"]:
            times = [cost["seconds"].get(size) for size in sizes]
            speed = int(sizes[-1]) / times[-1] if times[-1] else None
            cells = [*(Cell(str(each[key])) for key in ("run", "name")), Cell(cost["network"])]
            cells.append(Cell(f"{cost['parameters']:,}", cost["parameters"]))
            cells += [Cell(size_text(cost["bytes"]), cost["bytes"]), Cell(count_text(cost["flops"]), cost["flops"])]
            cells += [Cell("-") if time is None else Cell(f"{1000 * time:.2f} ms", time) for time in times]
            cells += [Cell("-") if speed is None else Cell(f"{speed:,.0f}", speed), Cell(cost["on"])]
            rows.append(cells)
    return Sheet(columns, rows)


def _of_logits(each: Mapping[str, Any]) -> float | None:
    similarity = each["similarity"]
    if similarity is None or "logits" not in similarity["rows"] or "logits" not in similarity["columns"]:
        return None
    value: float | None = similarity["cka"][similarity["rows"].index("logits")][similarity["columns"].index("logits")]
    return value


def _percent(value: float | None) -> Cell:
    return Cell("-") if value is None else Cell(f"{100 * value:.2f}%", value)


def _plain(value: float | None) -> Cell:
    return Cell("-") if value is None else Cell(f"{value:.3f}", value)


def _read(value: Mapping[str, Any]) -> dict[str, Any]:
    """An evaluation made of plain numbers and text, whatever stood in its file.

    Raises:
        KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError: It is none.
    """
    classes = [_class(line) for line in (value.get("per_class") or [])[:_CLASSES]]
    confusion = [[int(part) for part in each] for each in value.get("confusion") or []]
    known = range(len(classes))
    confusion = [[i, j, count] for i, j, count in confusion if i in known and j in known]
    if len(classes) > _MATRIX:
        confusion = sorted((each for each in confusion if each[0] != each[1]), key=lambda each: -each[2])[:50]
    fidelity = value.get("fidelity")
    return {
        "network": str(value["network"]),
        "dataset": str(value.get("dataset")),
        "split": str(value.get("split")),
        "count": int(value["count"]),
        "accuracy": number((value.get("figures") or {}).get("accuracy")),
        "per_class": classes,
        "confusion": confusion[:_CONFUSIONS],
        "calibration": _calibration(value.get("calibration")),
        "teacher_calibration": _calibration(value.get("teacher_calibration")),
        "fidelity": {key: _known(fidelity[key]) for key in (*_SHARES, "kl")} if fidelity else None,
        "similarity": _similarity(value.get("similarity")),
        "examples": [_example(each, classes) for each in (value.get("examples") or [])[:24]],
        "costs": [_cost(each) for each in (value.get("costs") or [])[:8]],
        "left_out": [f"{what}: {why}" for what, why in (value.get("left_out") or {}).items()],
    }


def _known(value: Any) -> float:
    """A number that has to be there."""
    found = number(value)
    if found is None:
        raise ValueError(f"{value!r} is no finite number")
    return found


def _class(line: Mapping[str, Any]) -> dict[str, Any]:
    figures = {key: number(each) for key, each in line.items() if key not in ("class", "count")}
    first = next(iter(figures.values()), None)
    return {"class": str(line["class"]), "count": number(line.get("count")), "accuracy": first, **figures}


def _cost(value: Mapping[str, Any]) -> dict[str, Any]:
    counts = {key: int(value[key]) for key in ("parameters", "bytes", "flops")}
    times = {str(int(size)): _known(seconds) for size, seconds in list(value["seconds"].items())[:8]}
    return {"network": str(value["network"]), **counts, "seconds": times, "on": str(value["on"])}


def _calibration(value: Any) -> dict[str, Any] | None:
    if not value:
        return None
    bins = [{key: number(each.get(key)) for key in ("count", "confidence", "accuracy")} for each in value["bins"]]
    return {**{key: _known(value[key]) for key in ("ece", "mce", "confidence")}, "bins": bins[:100]}


def _similarity(value: Any) -> dict[str, Any] | None:
    if not value:
        return None
    rows, columns = ([str(name) for name in value[key]][:40] for key in ("rows", "columns"))
    cka = [[number(line[j]) for j in range(len(columns))] for line in value["cka"][: len(rows)]]
    if len(cka) != len(rows):
        raise ValueError("rows and values differ in number")
    return {"rows": rows, "columns": columns, "cka": cka, "images": int(value["images"])}


def _example(each: Mapping[str, Any], classes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    names = {key: classes[int(each[key])]["class"] for key in ("true", "student", "teacher")}
    sure = {key: _known(each[key]) for key in ("student_confidence", "teacher_confidence")}
    image = each.get("image")
    is_image = isinstance(image, str) and _IMAGE.fullmatch(image) is not None
    return {"index": int(each["index"]), **names, **sure, "image": image if is_image else None}

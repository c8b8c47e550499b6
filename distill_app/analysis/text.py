"""An evaluation as text for a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from distill_app.runs.metrics import metrics_of
from distill_app.runs.report import cell_text, summary_table
from distill_app.words import count_text, size_text

_CLASSES, _CONFUSIONS = 20, 10  # of more, the lowest and the most frequent are told


def depth_text(found: Mapping[str, Any]) -> str:
    """All of it in tables; what there is not, with the reason, at the end."""
    head = f"{found['network']} on {found['count']} images of {found['dataset']} ({found['split']}), {found['weights']}"
    parts = [cell_text("", head), _figures(found)]
    if "calibration" in found:
        parts.append(_calibration(found))
    if "fidelity" in found:
        parts.append(_fidelity(found["fidelity"]))
    if found.get("per_class"):
        parts.append(_per_class(found["per_class"]))
    if confusions := confusions_of(found):
        parts.append("most frequent confusions\n" + summary_table(confusions, ("class", "taken for", "count")))
    if "similarity" in found:
        parts.append(_similarity(found["similarity"], network=str(found["network"])))
    if "costs" in found:
        parts.append(_costs(found["costs"]))
    if found["left_out"]:
        parts.append("\n".join(cell_text("", f"no {what}: {why}") for what, why in found["left_out"].items()))
    return "\n\n".join(parts)


def confusions_of(found: Mapping[str, Any], *, most: int = _CONFUSIONS) -> list[dict[str, Any]]:
    """The classes that are taken for others most often."""
    names = [each["class"] for each in found.get("per_class") or ()]
    wrong = sorted((each for each in found.get("confusion") or () if each[0] != each[1]), key=lambda each: -each[2])
    return [{"class": names[true], "taken for": names[taken], "count": count} for true, taken, count in wrong[:most]]


def _figures(found: Mapping[str, Any]) -> str:
    single = {name: value for name, value in found["figures"].items() if not isinstance(value, list)}
    return summary_table([single], list(single), metrics=metrics_of(found))


def _calibration(found: Mapping[str, Any]) -> str:
    rows = []
    for key, name in (("calibration", found["network"]), ("teacher_calibration", "teacher")):
        if key in found:
            each = found[key]
            shares = {"mean confidence": each["confidence"], "ECE": each["ece"], "MCE": each["mce"]}
            rows.append({"calibration of": name, **{column: _percent(value) for column, value in shares.items()}})
    return summary_table(rows, list(rows[0]))


def _fidelity(fidelity: Mapping[str, Any]) -> str:
    shares = {
        "same class as the teacher": fidelity["agreement"],
        "both right": fidelity["both_right"],
        "only the teacher right": fidelity["only_teacher"],
        "only the student right": fidelity["only_student"],
        "both wrong": fidelity["both_wrong"],
        "the same mistake": fidelity["same_mistake"],
    }
    rows = [{"fidelity": name, "share": _percent(value)} for name, value in shares.items()]
    rows.append({"fidelity": "KL(teacher || student), nats", "share": f"{fidelity['kl']:.4f}"})
    return summary_table(rows, ("fidelity", "share"))


def _per_class(lines: Sequence[Mapping[str, Any]]) -> str:
    columns = [key for key in lines[0] if key not in ("class", "count")]
    lowest = sorted(lines, key=lambda each: -1.0 if each[columns[0]] is None else each[columns[0]])
    shown = lowest[:_CLASSES]
    note = f" (the lowest {_CLASSES} of {len(lines)})" if len(lines) > len(shown) else ""
    rows = [
        {"class": each["class"], "count": each.get("count"), **{key: _percent(each[key]) for key in columns}}
        for each in shown
    ]
    counted = [column for column in ("count",) if "count" in lines[0]]
    return f"by class{note}\n" + summary_table(rows, ["class", *counted, *columns])


def _similarity(similarity: Mapping[str, Any], *, network: str) -> str:
    columns = [str(name) for name in similarity["columns"]]
    rows = [
        {
            network: name,
            **{column: None if value is None else f"{value:.2f}" for column, value in zip(columns, line, strict=True)},
        }
        for name, line in zip(similarity["rows"], similarity["cka"], strict=True)
    ]
    head = f"linear CKA with the teacher's taps, over {similarity['images']} images"
    return f"{head}\n{summary_table(rows, [network, *columns])}"


def _costs(costs: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for each in costs:
        times = {f"batch {size}": f"{1000 * seconds:.2f} ms" for size, seconds in each["seconds"].items()}
        size = {"size": size_text(each["bytes"]), "FLOPs": count_text(each["flops"])}
        rows.append({"network": each["network"], "parameters": each["parameters"], **size, **times})
    head = f"cost of an image {costs[0]['image']}; time of a forward on {costs[0]['on']}"
    return f"{head}\n{summary_table(rows, list(rows[0]))}"


def _percent(value: float | None) -> str | None:
    return None if value is None else f"{100 * value:.2f}%"

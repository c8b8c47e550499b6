"""Tables and plots of one run and of many runs. Reads what runs wrote; needs no torch."""

import csv
import io
import math
import os
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from distill_app.runs import plots
from distill_app.runs.collect import BASE, differing, rows_of
from distill_app.runs.files import read_jsonl, read_object

COLUMNS = ("name", "network", "accuracy", "agreement", "parameters", "seconds")


def summary_table(
    rows: Iterable[Mapping[str, Any]], columns: Sequence[str] = COLUMNS, *, markdown: bool = False
) -> str:
    """An aligned table; accuracy and agreement (fractions) in percent, what is missing as a dash."""
    rows = list(rows)
    cells = [[_cell(column, row.get(column)) for column in columns] for row in rows]
    right = [any(isinstance(row.get(column), (int, float)) for row in rows) for column in columns]
    head = [column.replace("_", " ") for column in columns]
    if markdown:
        cells = [[cell.replace("|", "\\|") for cell in row] for row in cells]
    least = 3 if markdown else 1
    widths = [max(least, *(len(row[i]) for row in [head, *cells])) for i in range(len(columns))]

    def line(row: Sequence[str]) -> str:
        padded = [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)]
        return f"| {' | '.join(padded)} |" if markdown else "  ".join(padded).rstrip()

    rule = ["-" * (w - 1) + (":" if r else "-") if markdown else "-" * w for w, r in zip(widths, right, strict=True)]
    return "\n".join([line(head), line(rule), *(line(row) for row in cells)])


def _cell(column: str, value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        if not math.isfinite(value):
            return "-"
        if column in ("accuracy", "agreement"):
            return f"{100 * value:.2f}%"
        return f"{value:.1f}" if column == "seconds" else f"{value:.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}" if column == "parameters" else str(value)
    # Names come from files of others: no control sequences to the terminal.
    return "".join(c if c.isprintable() else "?" for c in str(value))


def final_plot(output_dir: str | os.PathLike[str]) -> Path:
    """Writes `curves.png`: the accuracy of every stage by epoch, and test accuracies as dashed lines."""
    folder = Path(output_dir)
    curves: dict[str, list[tuple[int, float]]] = {}
    for record in read_jsonl(folder / "metrics.jsonl"):
        epoch, accuracy = record.get("epoch"), _epoch_accuracy(record.get("metrics"))
        if record.get("kind") == "epoch" and isinstance(epoch, int) and accuracy is not None:
            curves.setdefault(str(record.get("stage")), []).append((epoch + 1, accuracy))
    summary = read_object(folder / "summary.json") or {}
    path = folder / "curves.png"
    plots.curves(path, curves=curves, rows=rows_of(summary), title=_title(summary))
    return path


def _epoch_accuracy(metrics: Any) -> float | None:
    # The measure on held-out data; a training accuracy is none.
    if not isinstance(metrics, Mapping):
        return None
    names = [name for name in metrics if "accuracy" in name and "train" not in name]
    names.sort(key=lambda name: (not name.startswith("val"), len(name)))
    return _number(metrics[names[0]]) if names else None


def _title(summary: Mapping[str, Any]) -> str:
    method, dataset, seed = (summary.get(key) for key in ("method", "dataset", "seed"))
    pair = " to ".join(str(summary[key]) for key in ("teacher", "student") if summary.get(key))
    parts = [method, pair, dataset, None if seed is None else f"seed {seed}"]
    return ", ".join(str(part) for part in parts if part)


def aggregate(runs: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One record per data set, model pair, method, settings that differ, and result, over the runs that share them.

    It has n, mean and standard deviation; `std` is the sample standard deviation (n - 1), None for one run. Only
    finished runs count. `settings` maps the keys in which finished runs differ to the record's values.
    """
    done = [run for run in runs if run["state"] == "done"]
    columns = list(differing(done))
    groups: dict[tuple[str | None, ...], list[tuple[Any, Mapping[str, Any]]]] = {}
    for run in done:
        settings = [(run.get("varied") or {}).get(key) for key in columns]
        for row in run["rows"]:
            key = (*(str(run.get(k)) for k in BASE), *settings, str(row.get("name")))
            groups.setdefault(key, []).append((run.get("seed"), row))
    records = []
    # Sorted by run, not by result: results stay in the order of the run (teacher, alone, distilled).
    for key in sorted(groups, key=lambda key: [_order(value) for value in key[:-1]]):
        members = groups[key]
        record: dict[str, Any] = dict(zip(BASE, key, strict=False))
        record["settings"] = dict(zip(columns, key[len(BASE) :], strict=False))
        record |= {"result": key[-1], "n": len(members), "seeds": len({str(seed) for seed, _ in members})}
        for metric in ("accuracy", "agreement"):
            values = [v for _, row in members if (v := _number(row.get(metric))) is not None]
            record[metric] = statistics.fmean(values) if values else None
            record[f"{metric}_std"] = statistics.stdev(values) if len(values) > 1 else None
            record[f"{metric}_values"] = values
        record["parameters"] = members[-1][1].get("parameters")
        records.append(record)
    return records


def _order(value: str | None) -> tuple[bool, float, str]:
    """Numbers by size, before words."""
    try:
        return (False, float(value or ""), "")
    except ValueError:
        return (True, 0.0, str(value))


def results_table(records: Iterable[Mapping[str, Any]], *, markdown: bool = False) -> str:
    """The aggregated results as a table, mean +- standard deviation in percent."""
    records = list(records)
    rows = []
    for record in records:
        shown = {m: _spread(record[m], record[f"{m}_std"]) for m in ("accuracy", "agreement")}
        rows.append({**record["settings"], **record, **shown})
    return summary_table(rows, (*_group(records), "n", "seeds", "accuracy", "agreement"), markdown=markdown)


def _group(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """The columns that say what a record is of."""
    return [*BASE, *dict.fromkeys(key for record in records for key in record["settings"]), "result"]


def _spread(mean: float | None, std: float | None) -> str | None:
    if mean is None:
        return None
    return f"{100 * mean:.2f}%" if std is None else f"{100 * mean:.2f} +- {100 * std:.2f}%"


def results_csv(records: Iterable[Mapping[str, Any]]) -> str:
    """The aggregated results as CSV, accuracies as fractions."""
    records = list(records)
    numbers = ["n", "seeds", "accuracy", "accuracy_std", "agreement", "agreement_std", "parameters"]
    text = io.StringIO()
    writer = csv.DictWriter(text, [*_group(records), *numbers], extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({**record["settings"], **record} for record in records)
    return text.getvalue()


def status_text(runs: Sequence[Mapping[str, Any]]) -> str:
    """How many runs are in which state; and which did not finish, what they are, and why."""
    states = [run["state"] for run in runs]
    counts = ", ".join(f"{states.count(state)} {state}" for state in sorted(set(states)))
    lines = [f"{len(runs)} runs: {counts}"]
    for run in runs:
        if run["state"] != "done":
            reason = f": {_cell('reason', run['reason'])}" if run["reason"] else ""
            what = f" ({_cell('what', _what(run, runs))})" if _what(run, runs) else ""
            lines.append(f"- {_cell('path', run['path'])}{what} {_cell('state', run['state'])}{reason}")
    return "\n".join(lines)


def _what(run: Mapping[str, Any], runs: Sequence[Mapping[str, Any]]) -> str:
    """A run in a few words: the point of its sweep, else what makes it differ from the others."""
    if run.get("point"):
        return " ".join(run["point"])
    differ = [key for key in ("method", "seed") if len({str(each.get(key)) for each in runs}) > 1]
    values = {**{key: run.get(key) for key in differ}, **{key: run["varied"][key] for key in differing(runs)}}
    return " ".join(f"{key}={value}" for key, value in values.items() if value is not None)


def _number(value: Any) -> float | None:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return None

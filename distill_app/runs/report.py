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
from distill_app.runs.files import read_object
from distill_app.runs.journal import METRICS, Journal
from distill_app.runs.metrics import Metric, joined, metrics_of


def results_of(summary: Mapping[str, Any]) -> str:
    """The table of one run: a row for each network, with the figures that have a place in tables."""
    metrics = [metric for metric in metrics_of(summary) if metric.table]
    columns = ("name", *(metric.name for metric in metrics), "parameters", "seconds")
    return summary_table(rows_of(summary), columns, metrics=metrics)


def summary_table(
    rows: Iterable[Mapping[str, Any]],
    columns: Sequence[str],
    *,
    metrics: Iterable[Metric] = (),
    markdown: bool = False,
) -> str:
    """An aligned table; figures are shown as their metrics say, what is missing as a dash."""
    rows, described = list(rows), {metric.name: metric for metric in metrics}
    cells = [[_cell(column, row.get(column), described.get(column)) for column in columns] for row in rows]
    right = [any(isinstance(row.get(column), (int, float)) for row in rows) for column in columns]
    head = [_cell("name", column.replace("_", " ")) for column in columns]
    if markdown:
        cells = [[cell.replace("|", "\\|") for cell in row] for row in cells]
    least = 3 if markdown else 1
    widths = [max(least, *(len(row[i]) for row in [head, *cells])) for i in range(len(columns))]

    def line(row: Sequence[str]) -> str:
        padded = [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)]
        return f"| {' | '.join(padded)} |" if markdown else "  ".join(padded).rstrip()

    rule = ["-" * (w - 1) + (":" if r else "-") if markdown else "-" * w for w, r in zip(widths, right, strict=True)]
    return "\n".join([line(head), line(rule), *(line(row) for row in cells)])


def _cell(column: str, value: Any, metric: Metric | None = None) -> str:
    if value is None:
        return "-"
    if metric is not None and (number := _number(value)) is not None:
        value = metric.text(number)
    if isinstance(value, float):
        if not math.isfinite(value):
            return "-"
        return f"{value:.1f}" if column == "seconds" else f"{value:.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}" if column == "parameters" else str(value)
    # Names come from files of others: no control sequences to the terminal.
    return "".join(c if c.isprintable() else "?" for c in str(value))


def final_plot(output_dir: str | os.PathLike[str]) -> Path:
    """Writes `curves.png`: the leading metric of the run by epoch for every stage, and on the test set as dashed lines.

    Stages that are judged by something else have no curve.
    """
    folder = Path(output_dir)
    summary = read_object(folder / "summary.json") or {}
    metric = next(iter(metrics_of(summary)), Metric("metric"))
    curves: dict[str, list[tuple[int, float]]] = {}
    for record in Journal.read(folder / METRICS).records:
        epoch, value = record.get("epoch"), _of_the_epoch(metric, record.get("metrics"))
        if record.get("kind") == "epoch" and isinstance(epoch, int) and value is not None:
            curves.setdefault(str(record.get("stage")), []).append((epoch + 1, value))
    path = folder / "curves.png"
    plots.curves(path, curves=curves, rows=rows_of(summary), metric=metric, title=_title(summary))
    return path


def _of_the_epoch(metric: Metric, metrics: Any) -> float | None:
    # The figure on held-out data; one of the training data is none.
    if not isinstance(metrics, Mapping):
        return None
    names = [name for name in metrics if name.endswith(f"_{metric.name}") and not name.startswith(("train", "loss_"))]
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
    `metrics` are those of the runs; a metric is a key, and so are `<metric>_std` and `<metric>_values`.
    """
    done = [run for run in runs if run["state"] == "done"]
    columns = list(differing(done))
    groups: dict[tuple[str | None, ...], list[tuple[Mapping[str, Any], Mapping[str, Any]]]] = {}
    for run in done:
        settings = [(run.get("varied") or {}).get(key) for key in columns]
        for row in run["rows"]:
            key = (*(str(run.get(k)) for k in BASE), *settings, str(row.get("name")))
            groups.setdefault(key, []).append((run, row))
    records = []
    # Sorted by run, not by result: results stay in the order of the run (teacher, alone, distilled).
    for key in sorted(groups, key=lambda key: [_order(value) for value in key[:-1]]):
        members = groups[key]
        record: dict[str, Any] = dict(zip(BASE, key, strict=False))
        record["settings"] = dict(zip(columns, key[len(BASE) :], strict=False))
        record |= {"result": key[-1], "n": len(members)}
        record["seeds"] = len({str(run.get("seed")) for run, _ in members})
        record["metrics"] = [metric for metric in joined(run["metrics"] for run, _ in members) if metric.table]
        for name in (metric.name for metric in record["metrics"]):
            values = [v for _, row in members if (v := _number(row.get(name))) is not None]
            record[name] = statistics.fmean(values) if values else None
            record[f"{name}_std"] = statistics.stdev(values) if len(values) > 1 else None
            record[f"{name}_values"] = values
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
    """The aggregated results as a table, mean +- standard deviation."""
    records = list(records)
    rows = []
    for record in records:
        shown = {
            metric.name: metric.text(record[metric.name], deviation=record[f"{metric.name}_std"])
            for metric in record["metrics"]
            if record[metric.name] is not None
        }
        rows.append({**record["settings"], **record, **shown})
    return summary_table(rows, (*_group(records), "n", "seeds", *_names(records)), markdown=markdown)


def _names(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """The metrics of all records, each once."""
    return [metric.name for metric in joined(record["metrics"] for record in records)]


def _group(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """The columns that say what a record is of."""
    return [*BASE, *dict.fromkeys(key for record in records for key in record["settings"]), "result"]


def results_csv(records: Iterable[Mapping[str, Any]]) -> str:
    """The aggregated results as CSV, shares as fractions."""
    records = list(records)
    figures = [column for name in _names(records) for column in (name, f"{name}_std")]
    numbers = ["n", "seeds", *figures, "parameters"]
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

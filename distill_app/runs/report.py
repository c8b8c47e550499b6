"""The table and the plot of one run, and how tables look. Reads what runs wrote; needs no torch."""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from distill_app.runs import plots
from distill_app.runs.collect import rows_of
from distill_app.runs.files import read_object
from distill_app.runs.journal import METRICS, Journal
from distill_app.runs.metrics import Metric, metrics_of


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
    heads: Mapping[str, str] | None = None,
) -> str:
    """An aligned table; figures are shown as their metrics say, what is missing as a dash.

    Args:
        rows: Column -> value.
        columns: In their order.
        metrics: Those of columns that are figures.
        markdown: Whether it is one of Markdown.
        heads: What stands above columns, where that is not their name.
    """
    rows, described = list(rows), {metric.name: metric for metric in metrics}
    cells = [[cell_text(column, row.get(column), described.get(column)) for column in columns] for row in rows]
    right = [any(isinstance(row.get(column), (int, float)) for row in rows) for column in columns]
    head = [cell_text("name", head_text((heads or {}).get(column, column))) for column in columns]
    if markdown:
        cells = [[cell.replace("|", "\\|") for cell in row] for row in cells]
    least = 3 if markdown else 1
    widths = [max(least, *(len(row[i]) for row in [head, *cells])) for i in range(len(columns))]

    def line(row: Sequence[str]) -> str:
        padded = [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)]
        return f"| {' | '.join(padded)} |" if markdown else "  ".join(padded).rstrip()

    rule = ["-" * (w - 1) + (":" if r else "-") if markdown else "-" * w for w, r in zip(widths, right, strict=True)]
    return "\n".join([line(head), line(rule), *(line(row) for row in cells)])


def head_text(name: str) -> str:
    """What stands above a column: a key as it is typed, the name of a figure in words."""
    return name if "." in name else name.replace("_", " ")


def cell_text(column: str, value: Any, metric: Metric | None = None) -> str:
    """A value as a table shows it; what is missing, or no number, is a dash."""
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


def _number(value: Any) -> float | None:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return None

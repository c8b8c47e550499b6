"""The figures: curves of one run, results of many. Drawn without pyplot, which would need a display."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distill_app.runs.metrics import Metric

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito
_DPI = 150


def curves(
    path: Path,
    *,
    curves: Mapping[str, Sequence[tuple[int, float]]],
    rows: Sequence[Mapping[str, Any]],
    metric: Metric,
    title: str = "",
) -> None:
    """A metric by epoch, a line per stage; on the test set for each row, dashed, in the colour of its stage."""
    figure, axes = _figure(width=8.0, height=4.5)
    colours: dict[str, str] = {}
    for stage, points in curves.items():
        colours[stage] = _COLOURS[len(colours) % len(_COLOURS)]
        points = sorted(points)
        epochs, values = [x for x, _ in points], [metric.scaled(y) for _, y in points]
        marker = "o" if len(points) <= 40 else ""
        axes.plot(epochs, values, color=colours[stage], marker=marker, ms=3.5, lw=1.8, label=_plain(stage))
    for row in rows:
        value = row.get(metric.name)
        if not isinstance(value, (int, float)):
            continue
        stage = str(row.get("stage") or row.get("name"))
        colour = colours.setdefault(stage, _COLOURS[len(colours) % len(_COLOURS)])
        label = f"test: {_plain(row.get('name'))} {_plain(metric.text(value))}"
        axes.axhline(metric.scaled(value), color=colour, ls="--", lw=1.2, alpha=0.85, label=label)
    axes.set(xlabel="Epoch of the stage", ylabel=_plain(metric.axis))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_title(_plain(title), loc="left", fontsize=11)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=9)
    figure.savefig(path, dpi=_DPI)


def results(path: Path, *, records: Sequence[Mapping[str, Any]]) -> None:
    """The leading metric on the test set with its standard deviation, for each data set and model pair a panel.

    Small dots are runs.
    """
    panels: dict[tuple[str, str, str, Metric], list[Mapping[str, Any]]] = {}
    for record in records:
        metric = next(iter(record["metrics"]), None)
        if metric is not None and record[metric.name] is not None:
            key = (record["dataset"], record["teacher"], record["student"], metric)
            panels.setdefault(key, []).append(record)
    count = max(1, len(panels))
    heights = [len(entries) + 1.5 for entries in panels.values()] or [1.0]
    figure, axes = _figure(width=8.0, height=0.32 * sum(heights) + 0.6 * count, heights=heights)
    for axis, (key, entries) in zip(axes if count > 1 else [axes], panels.items(), strict=False):
        metric = key[3]
        for i, entry in enumerate(entries):
            values = [metric.scaled(value) for value in entry[f"{metric.name}_values"]]
            axis.plot(values, [i] * len(values), ".", color="#999999", ms=4, zorder=1)
            deviation = entry[f"{metric.name}_std"]
            error = None if deviation is None else metric.scaled(deviation)
            style = {"fmt": "o", "color": _COLOURS[0], "ms": 6, "capsize": 3, "lw": 1.6}
            axis.errorbar(metric.scaled(entry[metric.name]), i, xerr=error, zorder=2, **style)
        labels = [_plain(_label(entry)) for entry in entries]
        axis.set_yticks(range(len(entries)), labels, fontsize=9)
        axis.set_ylim(len(entries) - 0.4, -0.6)
        axis.set_title(_plain(f"{key[0]}, {key[1]} to {key[2]}"), loc="left", fontsize=11)
        axis.set_xlabel(f"Test: {_plain(metric.axis)}, mean and standard deviation", fontsize=9)
    figure.savefig(path, dpi=_DPI)


def _label(record: Mapping[str, Any]) -> str:
    """A result in a line: the method, the settings in which runs differ, the network."""
    settings = [f"{key}={value}" for key, value in record["settings"].items() if value is not None]
    return f"{', '.join([str(record['method']), *settings])}: {record['result']}"


def _figure(*, width: float, height: float, heights: Sequence[float] = (1.0,)) -> tuple[Any, Any]:
    # Imported here: a second, which the commands that draw nothing need not pay.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # An image may have 2^16 pixels a side; hundreds of panels are cut rather than refused.
    figure = Figure(figsize=(width, min(height, 400.0)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(heights), 1, height_ratios=list(heights))
    for axis in axes if len(heights) > 1 else [axes]:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25, lw=0.6)
        axis.set_axisbelow(True)
    return figure, axes


def _plain(text: Any) -> str:
    # A dollar sign would start mathematical text, and fail on what is none.
    return "".join(c if c.isprintable() else "?" for c in str(text)).replace("$", r"\$")

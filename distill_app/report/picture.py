"""`report.png`: the leading metric of all results at a glance."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distill_app.report.comparison import Compared
from distill_app.report.results import Figure, Result
from distill_app.runs.plots import COLOURS, DPI, new_figure, plain

_WIDTH, _PER_SIGN = 6.0, 0.075  # inches: of a panel, and of a sign of the labels beside it
_FAR = 10.0  # times the distance of the quartiles, beyond which a result stands at the edge, with its value


def draw(path: Path, *, found: Sequence[Compared]) -> None:
    """The leading metric with its standard deviation, a panel for each data set and student; small dots are seeds."""
    panels: dict[tuple[object, ...], list[tuple[Result, Figure]]] = {}
    for result in (each.result for each in found):
        if (figure := result.leading) is not None and figure.spread is not None:
            panels.setdefault((result.base["dataset"], result.base["student"], figure.metric), []).append(
                (result, figure)
            )
    if not panels:
        return
    heights = [len(entries) + 1.5 for entries in panels.values()]
    labels = {id(result): plain(result.title) for entries in panels.values() for result, _ in entries}
    width = _WIDTH + _PER_SIGN * max(map(len, labels.values()))
    figure, axes = new_figure(width=width, height=0.32 * sum(heights) + 0.6 * len(panels), heights=heights)
    for axis, (key, entries) in zip(axes if len(panels) > 1 else [axes], panels.items(), strict=True):
        for position, (_, entry) in enumerate(entries):
            _mark(axis, entry, position)
        _keep_to_most(axis, [entry for _, entry in entries])
        axis.set_yticks(range(len(entries)), [labels[id(result)] for result, _ in entries], fontsize=9)
        axis.set_ylim(len(entries) - 0.4, -0.6)
        axis.set_title(plain(", ".join(str(name) for name in key[:2] if name)), loc="left", fontsize=11)
        axis.set_xlabel(f"Test: {plain(entries[0][1].metric.axis)}, mean and standard deviation", fontsize=9)
    figure.savefig(path, dpi=DPI)


def _mark(axis: Any, figure: Figure, position: int) -> None:
    metric, spread = figure.metric, figure.spread
    assert spread is not None
    values = [metric.scaled(value) for value in figure.by_seed.values()]
    error = None if spread.std is None else metric.scaled(spread.std)
    style = {"fmt": "o", "color": COLOURS[0], "ms": 6, "capsize": 3, "lw": 1.6}
    axis.plot(values, [position] * len(values), ".", color="#999999", ms=4, zorder=1)
    axis.errorbar(metric.scaled(spread.mean), position, xerr=error, zorder=2, **style)


def _keep_to_most(axis: Any, figures: Sequence[Figure]) -> None:
    """Lets the axis show the differences of most results, where one of a run that diverged would hide them."""
    means = [figure.metric.scaled(figure.spread.mean) for figure in figures if figure.spread is not None]
    limits = limits_of_most(means)
    if limits is None:
        return
    low, high = limits
    axis.set_xlim(low, high)
    for position, mean in enumerate(means):
        if not low <= mean <= high:
            below = mean < low
            style = {"xytext": (4 if below else -4, 0), "ha": "left" if below else "right", "va": "center"}
            text = f"\N{LEFTWARDS ARROW} {mean:.4g}" if below else f"{mean:.4g} \N{RIGHTWARDS ARROW}"
            axis.annotate(text, (low if below else high, position), textcoords="offset points", fontsize=9, **style)


def limits_of_most(values: Sequence[float]) -> tuple[float, float] | None:
    """The range of the values that are near the middle ones, with a margin; None if all are."""
    if len(values) < 4:
        return None
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    reach = _FAR * (high - low)
    near = [value for value in values if low - reach <= value <= high + reach]
    if len(near) == len(values) or not reach:
        return None
    margin = 0.25 * (max(near) - min(near))
    return min(near) - margin, max(near) + margin

"""Figures, and the curves of one run. Drawn without pyplot, which would need a display."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distill_app.runs.metrics import Metric

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito
DPI = 150


def curves(
    path: Path,
    *,
    curves: Mapping[str, Sequence[tuple[int, float]]],
    rows: Sequence[Mapping[str, Any]],
    metric: Metric,
    title: str = "",
) -> None:
    """A metric by epoch, a line per stage; on the test set for each row, dashed, in the colour of its stage."""
    figure, axes = new_figure(width=8.0, height=4.5)
    colours: dict[str, str] = {}
    for stage, points in curves.items():
        colours[stage] = COLOURS[len(colours) % len(COLOURS)]
        points = sorted(points)
        epochs, values = [x for x, _ in points], [metric.scaled(y) for _, y in points]
        marker = "o" if len(points) <= 40 else ""
        axes.plot(epochs, values, color=colours[stage], marker=marker, ms=3.5, lw=1.8, label=plain(stage))
    for row in rows:
        value = row.get(metric.name)
        if not isinstance(value, (int, float)):
            continue
        stage = str(row.get("stage") or row.get("name"))
        colour = colours.setdefault(stage, COLOURS[len(colours) % len(COLOURS)])
        label = f"test: {plain(row.get('name'))} {plain(metric.text(value))}"
        axes.axhline(metric.scaled(value), color=colour, ls="--", lw=1.2, alpha=0.85, label=label)
    axes.set(xlabel="Epoch of the stage", ylabel=plain(metric.axis))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_title(plain(title), loc="left", fontsize=11)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=9)
    figure.savefig(path, dpi=DPI)


def new_canvas(*, width: float, height: float) -> Any:
    """A figure without axes, in inches."""
    # Imported here: a second, which the commands that draw nothing need not pay.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # An image may have 2^16 pixels a side; hundreds of panels are cut rather than refused.
    figure = Figure(figsize=(width, min(height, 400.0)), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def new_figure(*, width: float, height: float, heights: Sequence[float] = (1.0,)) -> tuple[Any, Any]:
    """A figure and its axes, one below the other; one alone is not in a list."""
    figure = new_canvas(width=width, height=height)
    axes = figure.subplots(len(heights), 1, height_ratios=list(heights))
    for axis in axes if len(heights) > 1 else [axes]:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25, lw=0.6)
        axis.set_axisbelow(True)
    return figure, axes


def plain(text: Any) -> str:
    """Text for a figure: nothing in it is a command."""
    # A dollar sign would start mathematical text, and fail on what is none.
    return "".join(c if c.isprintable() else "?" for c in str(text)).replace("$", r"\$")

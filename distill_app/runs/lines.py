"""What a run says in lines: of an epoch that is over, and of how far a stage is."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from distill_app.runs.metrics import Metric

WIDTH = 100  # columns of a line of an epoch
CLOCK = ("seconds", "images_per_second", "data_wait")
_BETWEEN = "  "


def leading_of(metrics: Sequence[Metric], values: Mapping[str, Any]) -> tuple[str, Metric] | None:
    """The figure that decides, among those of an epoch: its name there, and its metric."""
    if not metrics:
        return None
    names = [name for name in values if name.endswith(f"_{metrics[0].name}") and not name.startswith("loss_")]
    names.sort(key=lambda name: (name.startswith("train"), len(name)))  # student_ema_validation_... come behind
    return (names[0], metrics[0]) if names else None


def metric_of(key: str, metrics: Iterable[Metric]) -> Metric | None:
    """How a value of an epoch is shown; None of one that is no figure of the task."""
    return next((each for each in metrics if key.endswith(f"_{each.name}")), None)


def in_line(key: str, value: Any, metrics: Iterable[Metric]) -> bool:
    """Whether a value has a place in lines that tell of epochs."""
    metric = metric_of(key, metrics)
    return not isinstance(value, list) and (metric is None or metric.line)


def figure(key: str, value: Any, metrics: Iterable[Metric]) -> str:
    """A value of an epoch with its name, as its metric shows it."""
    metric = metric_of(key, metrics)
    if value is None or not isinstance(value, float):
        return f"{key} {'-' if value is None else value}"
    if key == "data_wait":
        return f"{key} {100 * value:.2f}%"
    if key in CLOCK:
        return f"{key} {value:.1f}"
    return f"{key} {value:.4g}" if metric is None else f"{key} {metric.text(value)}"


def epoch_line(
    head: str,
    values: Mapping[str, Any],
    clock: Mapping[str, float],
    *,
    metrics: Sequence[Metric],
    best: float | None,
    width: int = WIDTH,
) -> str:
    """An epoch in one line that fits: the loss, the figure that decides, the best of it, time; of the rest what fits.

    Args:
        head: What stands first, whole.
        values: Losses and figures by name; `loss_total` and `loss_<term>` are those of training.
        clock: Seconds, and the share of waiting for data.
        metrics: How figures are shown, the leading one first.
        best: Of the leading one so far.
        width: Columns.
    """
    leading = leading_of(metrics, values)
    terms = [name for name in values if name.startswith("loss_") and name != "loss_total"]
    shown = {name: figure(name, value, metrics) for name, value in values.items() if in_line(name, value, metrics)}
    shown |= {name: shown[name].removeprefix("loss_") for name in terms}
    if "loss_total" in shown:
        shown["loss_total"] = shown["loss_total"].replace("loss_total", "loss")
    if leading is not None and best is not None:
        shown["best"] = f"best {leading[1].text(best)}"
    if "seconds" in clock:
        shown["seconds"] = duration(clock["seconds"])
    if "data_wait" in clock:
        shown["data_wait"] = f"wait {100 * clock['data_wait']:.0f}%"
    first = ["loss_total", *([leading[0]] if leading else []), "best"]
    order = [*first[:1], *terms, *first[1:], *(name for name in shown if name not in (*first, *terms, *CLOCK))]
    order += ["seconds", "data_wait"]
    wanted = [*first, "seconds", *terms, "data_wait", *(name for name in order if name not in (*first, *CLOCK))]
    return _BETWEEN.join([head, *_fitting(shown, wanted, order, width=width - len(head))])


def _fitting(shown: Mapping[str, str], wanted: Iterable[str], order: Iterable[str], *, width: int) -> list[str]:
    """The texts that fit together into a width, chosen as they are wanted and in their order."""
    kept: set[str] = set()
    for name in wanted:
        cost = len(shown[name]) + len(_BETWEEN) if name in shown and name not in kept else None
        if cost is not None and cost <= width:
            kept.add(name)
            width -= cost
    return [shown[name] for name in order if name in kept]


def duration(seconds: float) -> str:
    """A time to two digits: 0.4 s, 40 s, 12 min, 3.5 h."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"

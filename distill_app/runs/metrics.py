"""How the figures of a run are described in its `summary.json`: tables and plots read that, and know no task."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

DIRECTIONS = ("max", "min")
# Entries of a row of results that say which network it is and what it cost; every other number is a figure.
ABOUT = ("name", "network", "stage", "parameters", "seconds", "reasons", "details", "cut")


@dataclass(frozen=True)
class Metric:
    """A figure that networks are judged by, and how it is shown.

    Attributes:
        name: In records, tables and axes.
        direction: `max` or `min`, whichever is better.
        percent: It is a share in [0, 1], and shown times 100 with a percent sign.
        decimals: How many are shown; None: four significant figures.
        unit: What follows the number, such as `px`.
        table: Whether it has a column in tables; it is recorded in any case.
        line: Whether the lines that tell of epochs show it.

    Raises:
        ValueError: Another direction.
    """

    name: str
    direction: str = "max"
    percent: bool = False
    decimals: int | None = None
    unit: str = ""
    table: bool = True
    line: bool = True

    def __post_init__(self) -> None:
        if self.direction not in DIRECTIONS:
            raise ValueError(f"metric {self.name!r}: direction is max or min, not {self.direction!r}")

    def scaled(self, value: float) -> float:
        """The value as it is shown."""
        return 100 * value if self.percent else value

    def text(self, value: float, *, deviation: float | None = None) -> str:
        """The value with its unit, and with its standard deviation if there is one."""
        numbers = [value] if deviation is None else [value, deviation]
        shown = " +- ".join(self._number(self.scaled(number)) for number in numbers)
        return f"{shown}%" if self.percent else f"{shown} {self.unit}".rstrip()

    def difference(self, value: float) -> str:
        """A difference of two values, with its sign; of shares in points, without a percent sign."""
        shown = self._number(self.scaled(value))
        signed = shown if shown.startswith("-") else f"+{shown}"
        return signed if self.percent else f"{signed} {self.unit}".rstrip()

    def _number(self, value: float) -> str:
        decimals = 2 if self.percent and self.decimals is None else self.decimals
        return f"{value:.4g}" if decimals is None else f"{value:.{decimals}f}"

    @property
    def axis(self) -> str:
        """What an axis is called."""
        unit = "%" if self.percent else self.unit
        name = self.name.replace("_", " ")
        return f"{name[:1].upper()}{name[1:]} ({unit})" if unit else f"{name[:1].upper()}{name[1:]}"

    def better(self, value: float, than: float | None) -> bool:
        """Whether a value is better than another; what is not a number is worse than any number."""
        if than is None or math.isnan(value):
            return than is None
        if math.isnan(than):
            return True
        return value > than if self.direction == "max" else value < than

    def described(self) -> dict[str, Any]:
        """What `summary.json` says of it."""
        return asdict(self)


def metrics_of(summary: Mapping[str, Any]) -> list[Metric]:
    """The metrics that a summary describes, the leading one first.

    Runs of older versions describe none. There every figure of the rows counts, in its order: what lies in [0, 1] in
    all rows as a share, and a `loss` as a thing that is small when good and has no place in tables.
    """
    entries = summary.get("metrics")
    if isinstance(entries, list):
        read = [_read(entry) for entry in entries if isinstance(entry, Mapping)]
        return list({metric.name: metric for metric in read if metric is not None}.values())
    rows = summary.get("rows")
    return _inferred([row for row in rows if isinstance(row, Mapping)]) if isinstance(rows, list) else []


def joined(groups: Iterable[Iterable[Metric]]) -> list[Metric]:
    """The metrics of several tasks or runs, each name once, in the order in which they come."""
    found: dict[str, Metric] = {}
    for metric in (metric for group in groups for metric in group):
        found.setdefault(metric.name, metric)
    return list(found.values())


def _read(entry: Mapping[str, Any]) -> Metric | None:
    """A description that may come from anywhere; None where it is of nothing."""
    name, decimals, unit = entry.get("name"), entry.get("decimals"), entry.get("unit")
    if not isinstance(name, str) or not name:
        return None
    return Metric(
        name,
        direction="min" if entry.get("direction") == "min" else "max",
        percent=entry.get("percent") is True,
        decimals=min(max(decimals, 0), 12) if type(decimals) is int else None,
        unit=unit if isinstance(unit, str) else "",
        table=entry.get("table") is not False,
        line=entry.get("line") is not False,
    )


def _inferred(rows: list[Mapping[str, Any]]) -> list[Metric]:
    values: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.items():
            if name not in ABOUT and isinstance(value, int | float) and not isinstance(value, bool):
                values.setdefault(str(name), []).append(value)
    return [
        Metric(
            name,
            direction="min" if name == "loss" else "max",
            percent=name != "loss" and all(0 <= value <= 1 for value in found),
            table=name != "loss",
        )
        for name, found in values.items()
    ]

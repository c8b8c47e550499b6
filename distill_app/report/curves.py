"""The curves of runs, epoch by epoch, thinned out so that a page of many runs stays small."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distill_app.errors import IrregularFile
from distill_app.report.results import number
from distill_app.runs.journal import METRICS, Journal

_POINTS_IN_ALL = 150_000  # some 7 bytes each
_POINTS = 400  # of one curve: more than a chart has pixels for
Curve = tuple[tuple[float, ...], tuple[float, ...]]


class Curves:
    """The curves of several runs, each curve kept once: points of a sweep share those of their teacher.

    Args:
        runs: As `collect` gives them.
    """

    def __init__(self, runs: Sequence[Mapping[str, Any]]):
        found = [_of_run(Path(run["folder"])) for run in runs]
        count = sum(len(names) for stages in found for names in stages.values())
        most = max(8, min(_POINTS, _POINTS_IN_ALL // max(1, count)))
        self.all: list[Curve] = []
        known: dict[Curve, int] = {}
        self.of_runs: list[dict[str, dict[str, int]]] = []
        for stages in found:
            indices: dict[str, dict[str, int]] = {}
            for stage, names in stages.items():
                for name, points in names.items():
                    curve = _thinned(points, most)
                    if curve not in known:
                        known[curve] = len(self.all)
                        self.all.append(curve)
                    indices.setdefault(stage, {})[name] = known[curve]
            self.of_runs.append(indices)


def _of_run(folder: Path) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Stage -> figure -> (epoch from 1, value); empty where the records cannot be read."""
    try:
        records = Journal.read(folder / METRICS).records
    except (IrregularFile, OSError):
        return {}
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for record in records:
        epoch, metrics = record.get("epoch"), record.get("metrics")
        if record.get("kind") != "epoch" or not isinstance(epoch, int) or not isinstance(metrics, Mapping):
            continue
        stage = found.setdefault(str(record.get("stage")), {})
        for name, value in metrics.items():
            if (known := number(value)) is not None:
                stage.setdefault(str(name), []).append((epoch + 1, known))
    return found


def _thinned(points: Sequence[tuple[float, float]], most: int) -> Curve:
    """At most so many points, the last among them, to five digits."""
    points = sorted(dict(points).items())
    if len(points) > most:
        last = len(points) - 1
        points = [points[round(index * last / (most - 1))] for index in range(most)]
    return tuple(x for x, _ in points), tuple(float(f"{y:.5g}") for _, y in points)

"""How far a run is and how long it still takes, from its config and the end of its `metrics.jsonl`."""

import itertools
import math
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill_app.runs.claim import stored_config
from distill_app.runs.journal import METRICS, Journal
from distill_app.runs.untrusted import open_regular

_TAIL = 256_000  # bytes: some hundred records are enough


@dataclass(frozen=True)
class Pace:
    """Where a run is.

    Attributes:
        stage: The last one that said something; None before the first.
        epoch: How many epochs of it are over.
        epochs: How many it has; None where the config does not say.
        metric: The last figure on validation data: its name.
        value: The figure.
        seconds_left: What the rest takes at the pace of the last epochs; None where nobody knows.
    """

    stage: str | None = None
    epoch: int = 0
    epochs: int | None = None
    metric: str | None = None
    value: float | None = None
    seconds_left: float | None = None


def pace_of(run: Path) -> Pace:
    """How far a run is; what cannot be read leaves it open."""
    records = _last_records(run / METRICS)
    steps = [each for each in records if isinstance(each.get("stage"), str) and each.get("kind") in ("step", "epoch")]
    if not steps:
        return Pace()
    stage, plan = str(steps[-1]["stage"]), _epochs(stored_config(run) or {})
    over = [each for each in steps if each["kind"] == "epoch" and each["stage"] == stage]
    epoch = over[-1]["epoch"] + 1 if over and isinstance(over[-1].get("epoch"), int) else 0
    metric, value = _figure([each for each in steps if each["kind"] == "epoch"])
    left = _epochs_left(plan, stage, epoch)
    each = _seconds_per_epoch(over)
    seconds = None if left is None or each is None else left * each
    return Pace(stage, epoch, dict(plan).get(stage), metric, value, seconds)


def _last_records(file: Path) -> list[dict[str, Any]]:
    """The records at the end of a file that may grow while it is read, and may be anything."""
    try:
        with open_regular(file) as content:
            content.seek(max(0, os.fstat(content.fileno()).st_size - _TAIL))
            return Journal.of(content.read(_TAIL)).records
    except OSError:
        return []


def _epochs(config: Mapping[str, Any]) -> list[tuple[str, int]]:
    """The stages in their order, with their epochs."""
    found = []
    for part in (config.get("prelude"), config.get("method")):
        stages = part.get("stages") if isinstance(part, Mapping) else None
        schedule = part.get("schedule") if isinstance(part, Mapping) else None
        for name in schedule if isinstance(schedule, list) and isinstance(stages, Mapping) else ():
            stage = (stages or {}).get(name)
            epochs = stage.get("epochs") if isinstance(stage, Mapping) else None
            found += [(str(name), epochs)] if isinstance(epochs, int) else []
    return found


def _epochs_left(plan: Sequence[tuple[str, int]], stage: str, epoch: int) -> int | None:
    """Epochs of this stage and of those behind it: as if all took equally long, which is the best that is known."""
    names = [name for name, _ in plan]
    if stage not in names:
        return None
    behind = plan[names.index(stage) :]
    return max(0, sum(epochs for _, epochs in behind) - epoch)


def _seconds_per_epoch(over: Sequence[Mapping[str, Any]]) -> float | None:
    """The median of the last epochs: between two of them the run may have stood in a queue."""
    times = [each["timing"].get("time") for each in over[-11:] if isinstance(each.get("timing"), Mapping)]
    ticks = [time for time in times if isinstance(time, int | float)]
    gaps = [b - a for a, b in itertools.pairwise(ticks) if b > a]
    return statistics.median(gaps) if gaps else None


def _figure(epochs: Sequence[Mapping[str, Any]]) -> tuple[str | None, float | None]:
    for record in reversed(epochs):
        metrics = record.get("metrics")
        for name, value in metrics.items() if isinstance(metrics, Mapping) else ():
            is_number = isinstance(value, int | float) and math.isfinite(value)
            if str(name).startswith("validation_") and is_number:
                return str(name).removeprefix("validation_"), float(value)
    return None, None

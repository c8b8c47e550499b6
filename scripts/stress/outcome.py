"""Whether two runs came to the same end, bit for bit: weights, optimiser, records, summary, TensorBoard."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from distill_app.runs.checkpoint import Checkpoints
from distill_app.runs.compare import compared

CLOCK = ("seconds", "time", "images_per_second", "data_wait")


def differences(folder: Path, reference: Path) -> list[str]:
    """What differs between two finished runs, but for what depends on the clock; empty where nothing does."""
    told = [each.what for each in compared(reference, folder) if not each.identical or not each.total]
    return told + [name for name, of in _PARTS.items() if not _equal(of(folder), of(reference))]


def _state(folder: Path) -> Any:
    return _without_clock(Checkpoints(folder / "checkpoints").load("last"))


def _events(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (place,) = {file.parent for file in (folder / "tensorboard").glob("**/events.out.tfevents.*")}
    events = EventAccumulator(str(place), size_guidance={"scalars": 0})
    events.Reload()
    tags = [tag for tag in events.Tags()["scalars"] if tag.rpartition("/")[2] not in CLOCK]
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in sorted(tags)}


def _leftovers(folder: Path) -> list[str]:
    """What only a process that was killed leaves."""
    others = {".hydra", "submitit"}
    return [file.name for file in folder.rglob(".*") if file.name != ".lock" and not others & set(file.parts)]


_PARTS = {
    "the last checkpoint": _state,
    "TensorBoard": _events,
    "leftovers": _leftovers,
}


def _without_clock(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_clock(item) for key, item in value.items() if key not in CLOCK}
    if isinstance(value, list):
        return [_without_clock(item) for item in value]
    return value


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.dtype == other.dtype and one.shape == other.shape and bool(_bits(one).equal(_bits(other)))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    return type(one) is type(other) and one == other


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def listed(problems: Iterator[str] | list[str]) -> str:
    """Problems in a line."""
    return ", ".join(problems) or "identical"

"""Two runs side by side: every record, every row of results and every file of weights, to the bit."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill_app.errors import CheckpointError
from distill_app.runs.files import read_object
from distill_app.runs.journal import Journal
from distill_app.runs.statefile import load_file, tensor_bytes

_CLOCK = ("timing", "seconds")


@dataclass
class Comparison:
    """What became of one file of two runs.

    Attributes:
        what: The file.
        total: How many records, rows or tensors were looked at.
        same: How many of them are the same in both.
        largest: The largest absolute difference of two numbers; None where no numbers differ.
        first: The first that differs, in words; empty where none does.
        unread: What could not be looked at, in words.
    """

    what: str
    total: int = 0
    same: int = 0
    largest: float | None = None
    first: str = ""
    unread: list[str] = field(default_factory=list)

    @property
    def identical(self) -> bool:
        """Whether all was looked at and is the same."""
        return self.same == self.total and not self.unread

    def add(self, label: str, differences: Iterable[tuple[str, float | None]]) -> None:
        """Takes up one record, row or tensor, with the places in which it differs and by how much."""
        found = list(differences)
        self.total += 1
        self.same += not found
        gaps = [gap for _, gap in found if gap is not None]
        if gaps:
            self.largest = max([*gaps, *([] if self.largest is None else [self.largest])], key=_nan_last)
        if found and not self.first:
            self.first = f"{label}: {found[0][0]}"


def compared(old: Path, new: Path) -> list[Comparison]:
    """Compares what two runs have recorded, without what depends on the clock."""
    summaries = [read_object(folder / "summary.json") for folder in (old, new)]
    names = dict.fromkeys(name for summary in summaries for name in _files(summary))
    return [
        _records(old, new),
        _results(old, new, summaries),
        *(_weights(old, new, name) for name in names),
    ]


def differences(old: Any, new: Any, path: str = "") -> Iterator[tuple[str, float | None]]:
    """The places in which two plain values differ: in words, with the absolute difference where both are numbers."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in {**old, **new}:
            if key in _CLOCK:
                continue
            place = f"{path}.{key}" if path else str(key)
            if key in old and key in new:
                yield from differences(old[key], new[key], place)
            else:
                yield f"{place} is only in the {'first' if key in old else 'second'} run", None
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for position, pair in enumerate(zip(old, new, strict=True)):
            yield from differences(*pair, f"{path}[{position}]")
    elif json.dumps(old) != json.dumps(new):
        yield f"{path} {_short(old)} -> {_short(new)}", _gap(old, new)


def _gap(old: Any, new: Any) -> float | None:
    numbers = all(isinstance(each, int | float) and not isinstance(each, bool) for each in (old, new))
    return abs(new - old) if numbers else None


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) < 60 else f"{text[:57]}..."


def _nan_last(value: float) -> float:
    """Not a number is the largest difference there is."""
    return math.inf if math.isnan(value) else value


def _records(old: Path, new: Path) -> Comparison:
    found = Comparison("metrics.jsonl")
    both = [_labelled(folder / found.what, found) for folder in (old, new)]
    _each(found, *both)
    return found


def _labelled(file: Path, found: Comparison) -> dict[str, Any]:
    """The records of a file by what they are of; lines that cannot be read are noted."""
    if not file.is_file():
        found.unread.append(f"{file} is missing")
        return {}
    journal = Journal.read(file)
    if journal.damaged:
        found.unread.append(f"{len(journal.damaged)} lines of {file} cannot be read")
    return _by_label((_label_of(record), record) for record in journal.records)


def _label_of(record: Mapping[str, Any]) -> str:
    if record.get("kind") == "test":
        return f"test of {record.get('network') or record.get('name')}"
    places = [f"{key} {record[key] + 1}" for key in ("epoch", "step") if isinstance(record.get(key), int)]
    return " ".join(
        [f"stage {record.get('stage')}", *places, *(["as a whole"] if record.get("kind") == "epoch" else [])]
    )


def _by_label(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Values by label; one that comes again has its number behind it."""
    found: dict[str, Any] = {}
    counts: dict[str, int] = {}
    for label, value in pairs:
        counts[label] = counts.get(label, 0) + 1
        found[label if counts[label] == 1 else f"{label} ({counts[label]})"] = value
    return found


def _each(found: Comparison, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    for label in {**old, **new}:
        if label in old and label in new:
            found.add(label, differences(old[label], new[label]))
        else:
            found.add(label, [(f"only in the {'first' if label in old else 'second'} run", None)])


def _results(old: Path, new: Path, summaries: list[dict[str, Any] | None]) -> Comparison:
    found = Comparison("summary.json")
    for folder, summary in zip((old, new), summaries, strict=True):
        if summary is None:
            found.unread.append(f"{folder / 'summary.json'} is missing or cannot be read")
    _each(found, *(_rows(summary or {}) for summary in summaries))
    return found


def _rows(summary: Mapping[str, Any]) -> dict[str, Any]:
    rows = [row for row in summary.get("rows") or [] if isinstance(row, Mapping)]
    stages = summary.get("stages")
    reached = stages.items() if isinstance(stages, Mapping) else ()
    labelled = [(f"row of {row.get('network') or row.get('name')}", row) for row in rows]
    return _by_label([*labelled, *((f"stage {name}", stage) for name, stage in reached)])


def _files(summary: Mapping[str, Any] | None) -> list[str]:
    """The files of weights in a run's folder; a summary that somebody wrote may name others."""
    files = (summary or {}).get("files")
    return [str(file) for file in files.values() if Path(str(file)).name == file] if isinstance(files, Mapping) else []


def _weights(old: Path, new: Path, name: str) -> Comparison:
    found = Comparison(name)
    states = []
    for folder in (old, new):
        try:
            states.append(load_file(folder / name))
        except CheckpointError as error:
            found.unread.append(str(error))
    if len(states) == 2:
        for tensor in {**states[0], **states[1]}:
            found.add(tensor, _tensor_differences(states[0].get(tensor), states[1].get(tensor)))
    return found


def _tensor_differences(old: Any, new: Any) -> Iterator[tuple[str, float | None]]:
    if not (isinstance(old, Tensor) and isinstance(new, Tensor)):
        yield "in one of the runs alone, or no tensor", None
    elif old.dtype != new.dtype or old.shape != new.shape:
        yield f"{old.dtype} {tuple(old.shape)} -> {new.dtype} {tuple(new.shape)}", None
    elif tensor_bytes(old.contiguous()) != tensor_bytes(new.contiguous()):
        gap = (new.to(torch.float64) - old.to(torch.float64)).abs()
        largest = float(gap.max())
        yield f"{int((old != new).sum())} of {old.numel()} numbers, by up to {largest:.3g}", largest

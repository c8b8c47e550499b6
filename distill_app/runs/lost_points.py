"""Points of a sweep that failed before they had a folder of their own: only the sweep knows of them."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from distill_app.errors import IrregularFile
from distill_app.runs.journal import Journal
from distill_app.runs.untrusted import read_limited

SWEEP = "sweep.jsonl"  # in the folder of a sweep: what became of its points, a line each
_ENDED = ("failed", "refused")


@dataclass(frozen=True)
class LostPoint:
    """A point of which nothing is left but the line of the sweep.

    Attributes:
        folder: Where it would lie.
        state: `failed` or `refused`.
        reason: What was said of it.
        varied: The overrides by which it differs from the others.
        overrides: All of its overrides, as far as the sweep's own file says.
    """

    folder: Path
    state: str
    reason: str | None
    varied: list[str]
    overrides: list[str]


def lost_points(folder: Path) -> Iterator[LostPoint]:
    """The points of the sweep in a folder that ended without a folder, in their order."""
    records: dict[str, dict[str, Any]] = {}
    with suppress(IrregularFile, OSError):
        for record in Journal.read(folder / SWEEP).records:
            if isinstance(record.get("folder"), str) and isinstance(record.get("overrides"), list):
                records[Path(record["folder"]).name] = record  # of a sweep that was started again, the last
    common = _typed(folder)
    for name, record in records.items():
        place = folder / name
        there = any((place / file).exists() for file in ("status.json", "summary.json"))
        if record.get("state") not in _ENDED or there or name in ("", "..") or "\0" in name:
            continue
        varied, reason = [str(each) for each in record["overrides"]], record.get("reason")
        keys = {_key(each) for each in varied}
        whole = [*(each for each in common if _key(each) not in keys), *varied]
        yield LostPoint(place, record["state"], reason if isinstance(reason, str) else None, varied, whole)


def _typed(folder: Path) -> list[str]:
    """The overrides that were typed for a sweep; empty where that cannot be read."""
    try:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        found: Any = yaml.load(read_limited(folder / "multirun.yaml"), Loader=loader)
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return []
    for key in ("hydra", "overrides", "task"):
        found = found.get(key) if isinstance(found, dict) else None
    return [str(each) for each in found] if isinstance(found, list) else []


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")

"""Whose a run folder is: a folder holds one experiment, from its first start to its last resume."""

import hashlib
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from distill_app.errors import OtherExperiment, UsageError
from distill_app.runs.files import read_object, write_text
from distill_app.runs.metrics import Metric, metrics_of
from distill_app.runs.settings import changes, listed
from distill_app.runs.status import Status, state_of
from distill_app.runs.untrusted import read_limited, refuse_irregular

CONFIG = "config_resolved.yaml"
_SEAL = "# sha256 of the lines below: "
# What is there once something has run, or waits in a queue to run; a start that was refused leaves none of it.
_TRACES = ("summary.json", "metrics.jsonl", "checkpoints", "job.json")


def refuse_other(folder: str | os.PathLike[str], config: Mapping[str, Any]) -> None:
    """Refuses to begin an experiment where another one lies; looks and touches nothing.

    Args:
        folder: The run's folder, which need not be there.
        config: The resolved config that shall run in it.

    Raises:
        OtherExperiment: With the settings that differ, and what to type.
        UsageError: The run there is finished, has lost what says so, and would be trained anew over its results.
        IrregularFile: In the place of one of its files stands something else, which would be read or written to.
    """
    refuse_irregular(folder)
    if found := difference(folder, config):
        raise OtherExperiment(f"{found}\nnothing was touched. {ways_out(folder)}")
    place = Path(folder)
    if (lost := lost_records(place)) and not has_checkpoints(place) and (place / "metrics.jsonl").is_file():
        quoted = shlex.quote(str(place))
        new = f"to run it again in a new folder: distill rerun {quoted}"
        remedy = f"to write it anew: distill resume {quoted}" if lost == ["status.json"] else new
        raise UsageError(
            f"{place} holds a finished run; {lost_text(place)}, and it has no checkpoints to make that from, so that "
            f"it would be trained anew over its results; {remedy}"
        )


def difference(folder: str | os.PathLike[str], config: Mapping[str, Any]) -> str:
    """What keeps an experiment out of a folder, in words; empty where it is free, or the run there is this one."""
    place = Path(folder)
    if not _begun(place):
        return ""
    stored = stored_config(place)
    if stored is None:
        return f"{place} holds a run whose {CONFIG} is missing or cannot be read: nobody knows whether it is this one"
    found = changes(stored, config)
    if not found:
        return ""
    what = state_of(Status(place).read()) or "queued"
    count = "1 setting differs" if len(found) == 1 else f"{len(found)} settings differ"
    return f"{place} holds another experiment ({what}); {count}, there -> here:\n{listed(found)}"


def ways_out(folder: str | os.PathLike[str], *, key: str = "hydra.run.dir") -> str:
    """What to type where a folder is taken.

    Args:
        folder: Of a run, or of a sweep.
        key: What names such a folder.
    """
    quoted = shlex.quote(str(folder))
    unfinished = Status(folder).read().get("state") not in (None, "done")
    going_on = f"; to go on with the old one: distill resume {quoted}" if unfinished else ""
    other = f"{key}=... (from Python output_dir=...)" if key == "hydra.run.dir" else f"{key}=..."
    return f"For the new one name another folder: {other}{going_on}; to start over: rm -r {quoted}"


def finished_summary(folder: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The summary of a finished run; None where there is none, or it is not finished."""
    place = Path(folder)
    return read_object(place / "summary.json") if Status(place).read().get("state") == "done" else None


def lost_records(folder: str | os.PathLike[str]) -> list[str]:
    """Those of `status.json` and `summary.json` that a finished run has to have and that nobody can read; else empty.

    A summary is written when all else is over: where one is, the run was finished, whatever became of its status.
    """
    place = Path(folder)
    state, summary = Status(place).read().get("state"), place / "summary.json"
    damaged = ["summary.json"] if read_object(summary) is None else []
    if state == "done":
        return damaged
    return ["status.json", *damaged] if state is None and summary.exists() else []


def lost_text(folder: str | os.PathLike[str]) -> str:
    """What is lost of a finished run, in words: `its summary.json cannot be read`."""
    ways = [f"its {name} {_unreadable(Path(folder) / name)}" for name in lost_records(folder)]
    return " and ".join(ways)


def _unreadable(file: Path) -> str:
    return "cannot be read" if file.exists() else "is missing"


def has_checkpoints(folder: str | os.PathLike[str]) -> bool:
    """Whether a run has any checkpoint, whole or damaged."""
    return next((Path(folder) / "checkpoints").glob("**/manifest.json"), None) is not None


def finished_line(folder: str | os.PathLike[str], summary: Mapping[str, Any]) -> str:
    """One line about a run that need not run again: where, and what came out."""
    rows = [row for row in summary.get("rows") or [] if isinstance(row, Mapping)]
    results = [f"{row.get('name')} {_result(row, metrics_of(summary))}" for row in rows]
    return f"finished already: {folder}: {', '.join(results) or 'no results'}"


def claim(folder: str | os.PathLike[str], config: Mapping[str, Any]) -> None:
    """Makes a folder that of an experiment, whose config stands in it from now on.

    Raises:
        OtherExperiment: See `refuse_other`.
    """
    refuse_other(folder, config)
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    write_config(place, OmegaConf.create(dict(config)))


def write_config(folder: str | os.PathLike[str], config: DictConfig) -> None:
    """Writes the config that a folder's run has, resolved, below a checksum: a flipped bit is another experiment."""
    text = OmegaConf.to_yaml(config, resolve=True)
    write_text(Path(folder) / CONFIG, f"{_SEAL}{_digest(text)}\n{text}")


def is_as_written(text: str) -> bool:
    """Whether the text of a run's config matches the checksum above it; also where there is none."""
    first, _, rest = text.partition("\n")
    return not first.startswith(_SEAL) or first.removeprefix(_SEAL) == _digest(rest)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def stored_config(folder: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The config that lies in a run's folder, as plain containers; None where none can be read."""
    # Not by OmegaConf, whose pure Python takes 50 ms for one config: reports read hundreds.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        config = yaml.load(read_limited(Path(folder) / CONFIG), Loader=loader)
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return None
    return config if isinstance(config, dict) else None


def resume_command(folder: str | os.PathLike[str], config: Mapping[str, Any]) -> str:
    """What to type so that a run goes on."""
    trusted = (config.get("runtime") or {}).get("allow") or ()
    flags = [word for package in trusted if package != "timm" for word in ("--allow", str(package))]
    return shlex.join(["distill", "resume", str(folder), *flags])


def _begun(place: Path) -> bool:
    state = Status(place).read().get("state")
    return (state is not None and state != "refused") or any((place / name).exists() for name in _TRACES)


def _result(row: Mapping[str, Any], metrics: Sequence[Metric]) -> str:
    """The leading figure of a row, or the first one that it has."""
    for number, metric in enumerate(metrics):
        if isinstance(value := row.get(metric.name), float):
            return f"{metric.name} {metric.text(value)}" if number else metric.text(value)
    return "-"

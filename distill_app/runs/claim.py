"""Whose a run folder is: a folder holds one experiment, from its first start to its last resume."""

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from distill_app.errors import OtherExperiment
from distill_app.runs.files import read_object, write_text
from distill_app.runs.metrics import Metric, metrics_of
from distill_app.runs.settings import changes, listed
from distill_app.runs.status import Status, state_of

CONFIG = "config_resolved.yaml"
# What is there once something has run, or waits in a queue to run; a start that was refused leaves none of it.
_TRACES = ("summary.json", "metrics.jsonl", "checkpoints", "job.json")


def refuse_other(folder: str | os.PathLike[str], config: Mapping[str, Any]) -> None:
    """Refuses to begin an experiment where another one lies; looks and touches nothing.

    Args:
        folder: The run's folder, which need not be there.
        config: The resolved config that shall run in it.

    Raises:
        OtherExperiment: With the settings that differ, and what to type.
    """
    if found := difference(folder, config):
        raise OtherExperiment(f"{found}\nnothing was touched. {ways_out(folder)}")


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
    write_text(place / CONFIG, OmegaConf.to_yaml(OmegaConf.create(dict(config))))


def stored_config(folder: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The config that lies in a run's folder, as plain containers; None where none can be read."""
    # Not by OmegaConf, whose pure Python takes 50 ms for one config: reports read hundreds.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        config = yaml.load((Path(folder) / CONFIG).read_bytes(), Loader=loader)
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

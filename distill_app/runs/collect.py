"""The runs below a folder: what each is, what became of it, and in which settings they differ.

Run directories may come from elsewhere: a damaged or foreign file becomes a run that says so, never an error.
"""

import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from distill_app.runs.claim import stored_config
from distill_app.runs.files import read_object
from distill_app.runs.lost_points import SWEEP, LostPoint, lost_points
from distill_app.runs.metrics import metrics_of
from distill_app.runs.settings import empties_of, is_neutral, leading, settings_of
from distill_app.runs.status import state_of
from distill_app.runs.untrusted import read_limited, read_text

BASE = ("dataset", "teacher", "student", "method")  # what every table has a column for
_SKIPPED_FOLDERS = {
    *(".git", ".hydra", "checkpoints", "tensorboard", "submitit", "samples", "evaluation", "export", "wandb"),
}


def collect(root: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """All runs below a folder (or the folder itself).

    Each has its path below the root, state, reason, what a summary says (`BASE`, seed, rows, objective, stages), the
    kind of its method, on which images it was tested (None: unknown), where and by what it was run (device, host,
    commit), what was typed (command, and point_command of this run alone), and
    under `varied` the settings in which the runs differ, key to value as text, None where a run has no such key: those
    that somebody typed or chose, and of the others as few as tell all apart.
    """
    runs = []
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = sorted((name for name in subfolders if name not in _SKIPPED_FOLDERS), key=_natural)
        if "summary.json" in files or "status.json" in files:
            runs.append(_run(Path(folder), root=Path(root)))
        if SWEEP in files:
            runs += [_lost(point, root=Path(root)) for point in lost_points(Path(folder))]
    runs.sort(key=lambda run: [_natural(part) for part in Path(run["path"]).parts])
    columns = _columns(runs)
    for run in runs:
        known = {**run.pop("choices"), **run.pop("empties"), **run.pop("settings")}
        run["varied"] = {_shown(key): known.get(key) for key in columns}
        del run["typed"]
    return runs


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """Points of a sweep in their order: 2 before 10."""
    return [(not part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in re.split(r"(\d+)", name)]


def rows_of(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The results in a summary."""
    rows = summary.get("rows")
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _tells_results(summary: Mapping[str, Any]) -> bool:
    """Whether it is a run's: with a list of networks that have names."""
    rows = summary.get("rows")
    return isinstance(rows, list) and all(isinstance(row, dict) and isinstance(row.get("name"), str) for row in rows)


def _run(folder: Path, *, root: Path) -> dict[str, Any]:
    summary, status = read_object(folder / "summary.json"), read_object(folder / "status.json") or {}
    config = stored_config(folder) or {}
    strange = summary is not None and not _tells_results(summary)
    summary = None if strange else summary
    state, reason = state_of(status) or ("done" if summary else "unreadable"), status.get("reason")
    if strange:
        state, reason = "unreadable", "summary.json is not that of a run"
    if state == "died":
        reason = f"process {status.get('pid')} is gone; to go on: distill resume {folder}"
    point = status.get("point")
    hydra = _hydra(folder / ".hydra")
    settings = {key: value for key, value in settings_of(config).items() if key != "seed"}
    if not config:
        settings = _told_otherwise(summary or {}, hydra["overrides"])
    about = {**_about(config), **{key: value for key, value in (summary or {}).items() if value is not None}}
    return {
        "folder": str(folder),
        "path": folder.relative_to(root).as_posix(),
        "state": state,
        "reason": reason,
        "point": [str(each) for each in point] if isinstance(point, list) else [],
        **{key: about.get(key) for key in (*BASE, "seed")},
        "rows": rows_of(summary or {}),
        "metrics": metrics_of(summary or {}),
        "objective": (summary or {}).get("objective"),
        "stages": _stages(summary or {}),
        "prelude": _schedule(config.get("prelude")),
        "kind": _kind(config.get("method")),
        "benchmark": _benchmark(config.get("benchmark")),
        "settings": settings,
        "empties": empties_of(config),
        "tested": _tested(folder),
        **_where(folder),
        **_commands(folder, hydra["overrides"]),
        **hydra,
    }


def _lost(point: LostPoint, *, root: Path) -> dict[str, Any]:
    """A point that failed before it had a folder; what it was to be is known as far as it was typed."""
    typed = dict(override.lstrip("+").partition("=")[::2] for override in point.overrides if "=" in override)
    told = {key: typed[key] for key in (*BASE, "seed") if key in typed}
    command = shlex.join(["distill", *point.overrides])
    more = {"state": point.state, "reason": point.reason, "point": point.varied, "point_command": command}
    return {**_run(point.folder, root=root), **told, **more}


def _told_otherwise(summary: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, str]:
    """What is known of the settings of a run whose config is lost: what was typed, and a hash of all of them."""
    typed = dict(override.lstrip("+").partition("=")[::2] for override in overrides if "=" in override)
    known = {key: value for key, value in typed.items() if key != "seed" and not is_neutral(key)}
    hashed = summary.get("settings")
    return known or ({"hash of settings": str(hashed)} if hashed else {})


def _stages(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Stage -> what it took and reached."""
    stages = summary.get("stages")
    known = stages.items() if isinstance(stages, Mapping) else ()
    return {str(name): stage for name, stage in known if isinstance(stage, dict)}


def _schedule(prelude: Any) -> list[str] | None:
    """The stages before those of the method; None where the config does not say."""
    schedule = prelude.get("schedule") if isinstance(prelude, Mapping) else None
    return [str(name) for name in schedule] if isinstance(schedule, list) else None


def _kind(method: Any) -> str | None:
    """What a run's method says of its kind; None where it says nothing, as methods did once."""
    about = method.get("about") if isinstance(method, Mapping) else None
    kind = about.get("kind") if isinstance(about, Mapping) else None
    return kind if isinstance(kind, str) else None


def _benchmark(benchmark: Any) -> str | None:
    """The published benchmark that a run belongs to."""
    name = benchmark.get("name") if isinstance(benchmark, Mapping) else None
    return name if isinstance(name, str) else None


def _tested(folder: Path) -> tuple[str, str] | None:
    """On which images a run was tested: their data set, and a hash of their names; None where that is not recorded."""
    stages = [each for each in (read_object(folder / "data.json") or {}).values() if isinstance(each, Mapping)]
    split = stages[-1].get("split") if stages else None
    hashes = split.get("hash") if isinstance(split, Mapping) else None
    if not isinstance(hashes, Mapping) or not hashes.get("test"):
        return None
    return " ".join(str(stages[-1][key]) for key in ("dataset", "root") if stages[-1].get(key)), str(hashes["test"])


def _where(folder: Path) -> dict[str, Any]:
    """On what a run was carried out, and with which code."""
    env, git = read_object(folder / "env.json") or {}, read_object(folder / "git.json") or {}
    gpus, versions = env.get("gpus"), env.get("versions")
    device = ", ".join(map(str, gpus)) if isinstance(gpus, list) and gpus else env.get("cpu")
    commit = str(git["commit"])[:12] + (" and changes" if git.get("dirty") else "") if git.get("commit") else None
    torch = versions.get("torch") if isinstance(versions, Mapping) else None
    return {"device": device, "host": env.get("host"), "commit": commit, "torch": torch}


def _commands(folder: Path, overrides: Sequence[str]) -> dict[str, str]:
    """What was typed, for a sweep the line of all its points; and what starts this run alone."""
    try:
        typed = read_text(folder / "command.txt").strip()
    except (OSError, ValueError):
        typed = ""
    alone = shlex.join(["distill", *overrides]) if overrides else shlex.join(["distill", "rerun", str(folder)])
    return {"command": typed, "point_command": alone}


def _about(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a run without a summary was to be."""
    about: dict[str, Any] = {"seed": config.get("seed")}
    for key in BASE:
        part = config.get(key)
        if isinstance(part, Mapping):
            net = part.get("net")
            target = str(net.get("_target_")).rpartition(".")[2] if isinstance(net, Mapping) else None
            about[key] = part.get("name") or target
    return about


def _hydra(folder: Path) -> dict[str, Any]:
    """What was chosen and typed, as far as a run of the command line says."""
    overrides, hydra = _yaml(folder / "overrides.yaml"), _yaml(folder / "hydra.yaml")
    choices: Any = hydra
    for key in ("hydra", "runtime", "choices"):
        choices = choices.get(key) if isinstance(choices, Mapping) else None
    chosen = choices if isinstance(choices, Mapping) else {}
    told = {str(key): "null" if value is None else str(value) for key, value in chosen.items()}
    ours = {key: value for key, value in told.items() if not key.startswith("hydra/") and not is_neutral(key)}
    typed = [str(each) for each in overrides] if isinstance(overrides, list) else []
    return {"choices": ours, "overrides": typed, "typed": [each.partition("=")[0].lstrip("+~") for each in typed]}


def _yaml(path: Path) -> Any:
    try:
        return yaml.load(read_limited(path), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return None


def _columns(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys in which runs differ beyond `BASE` and seed: chosen groups, typed keys, then what else is needed."""
    told = [run for run in runs if run["settings"]]
    keys = dict.fromkeys(key for run in told for key in run["settings"])
    values = {key: tuple(run["settings"].get(key) for run in told) for key in keys}
    named = {f"{key}.name" for key in BASE}
    varying = {
        key: tuple(map(str, column)) for key, column in values.items() if len(set(column)) > 1 and key not in named
    }
    cells = [tuple(str(run[key]) for key in BASE) for run in told]
    columns: list[str] = []

    def take(key: str, column: Sequence[Any]) -> None:
        columns.append(key)
        cells[:] = [(*cell, str(value)) for cell, value in zip(cells, column, strict=True)]

    complete = list(zip(*varying.values(), strict=True)) or [()] * len(told)
    for group in dict.fromkeys(group for run in told for group in run["choices"]):
        column = [run["choices"].get(group, "null") for run in told]
        if _splits(column, cells) and not _splits(column, complete):
            take(group, column)
    typed = {key for run in told for key in run["typed"]}
    for key in varying:
        if key in typed:
            take(key, varying[key])
    for key in [*leading(varying), *varying]:
        if key not in columns and _splits(varying[key], cells):
            take(key, varying[key])
    return columns


def _splits(column: Iterable[Any], cells: Iterable[Any]) -> bool:
    """Whether runs of one cell have several values."""
    seen: dict[Any, Any] = {}
    return any(seen.setdefault(cell, value) != value for cell, value in zip(cells, column, strict=True))


def _shown(key: str) -> str:
    """How a key is told: the name of a network stands for all of it, and no column is called as one of `BASE`."""
    return f"{key} (option)" if key in BASE else key.removesuffix(".name")


def differing(runs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The keys of `varied` that have several values among these runs."""
    for key in dict.fromkeys(key for run in runs for key in run.get("varied") or {}):
        if len({(run.get("varied") or {}).get(key) for run in runs}) > 1:
            yield key

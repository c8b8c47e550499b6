"""`distill rerun RUN key=value ...`: that run, with other values for some of its keys, in a new folder."""

import argparse
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from distill_app.check.flags import ordered
from distill_app.config.schema import RuntimeConf
from distill_app.errors import UsageError
from distill_app.verbs.overrides import (
    STORED,
    begin_with,
    chosen_groups,
    composed,
    is_sweep,
    key_of,
    merged,
    unresolved,
)
from distill_app.verbs.stored import RESOLVED, read_yaml, refuse_hub, stored_config

NOTES = ".hydra"
MOST = 5  # differing keys in one warning


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument("run", help="the folder of a run")
    parser.add_argument(
        "overrides", nargs="*", help="key=value, as after distill; they take the place of the run's own"
    )
    parser.add_argument("-m", "--multirun", action="store_true", help="a sweep: every combination of a=1,2 b=3,4")
    parser.add_argument("--config-dir", help="a folder with config of your own; default: the one that the run had")
    parser.add_argument(
        "--allow", action="append", default=[], help="a package from which its config may build objects"
    )


def run(arguments: argparse.Namespace) -> list[str]:
    """The command line of the new run.

    Raises:
        UsageError: There is no such run, or its config cannot be read or trusted.
    """
    line = line_of(folder_of(Path(os.path.abspath(arguments.run))), arguments)
    print(f"distill {shlex.join(line)}", file=sys.stderr)
    return line


def line_of(folder: Path, arguments: argparse.Namespace, *, linked: bool = True) -> list[str]:
    """The command line of a run with other values for some of its keys.

    Args:
        folder: Of the run.
        arguments: What was typed: overrides, multirun, config_dir and allow.
        linked: Whether networks that a run from Python configures as its student follow the student.

    Raises:
        UsageError: Its config cannot be read or trusted.
    """
    new = ordered(arguments.overrides).arguments
    flags = ["--multirun"] if arguments.multirun else []
    notes = _notes(folder)
    if notes is not None and _config_name(notes) != STORED:
        stored, more = _stored_overrides(folder), _stored_flags(folder, notes, arguments.config_dir)
        overrides = merged(stored, new)
        _trust(folder, overrides, more, allow=arguments.allow)
        _compare(folder, stored, more)
    else:
        _store(folder, new, allow=arguments.allow, linked=linked)
        more, overrides = ["--config-name", STORED], list(new)
    allowed = [f"runtime.allow=[{','.join([*RuntimeConf().allow, *arguments.allow])}]"] if arguments.allow else []
    return [*flags, *more, *merged(allowed, overrides)]


def folder_of(place: Path) -> Path:
    """The folder of a run that can be started again.

    Raises:
        UsageError: It is none, nor in one.
    """
    for folder in (place, *place.parents) if place.exists() else ():
        if (folder / RESOLVED).is_file() or (folder / NOTES / "overrides.yaml").is_file():
            return folder
    runs = sorted(path.parent.parent for path in place.glob(f"*/{NOTES}/overrides.yaml"))
    if runs:
        raise UsageError(f"{place} holds {len(runs)} runs, name one of them: {', '.join(map(str, runs[:MOST]))}")
    raise UsageError(f"{place} is not a run nor in one: no {NOTES}/overrides.yaml and no {RESOLVED} there or above")


def _stored_overrides(folder: Path) -> list[str]:
    """What was typed for the run, without what decides which code runs or where files go."""
    file = folder / NOTES / "overrides.yaml"
    overrides = read_yaml(file)
    if not isinstance(overrides, list) or not all(isinstance(each, str) for each in overrides):
        raise UsageError(f"{file} is not a list of overrides")
    if sweeps := [each for each in overrides if is_sweep(each)]:
        raise UsageError(f"{file} is not of one run: {sweeps[0]!r} has several values")
    kept = [each for each in overrides if key_of(each).replace("/", ".").split(".")[0] != "hydra"]
    return [each for each in kept if not key_of(each).startswith("runtime.allow")]


def _notes(folder: Path) -> dict[str, Any] | None:
    """What Hydra wrote about itself; None where it did not start the run."""
    if not (folder / NOTES / "overrides.yaml").is_file():
        return None
    file = folder / NOTES / "hydra.yaml"
    notes = read_yaml(file) if file.is_file() else {}
    return notes.get("hydra") or {} if isinstance(notes, dict) else {}


def _config_name(notes: dict[str, Any]) -> str:
    return str(notes.get("job", {}).get("config_name") or "config")


def _stored_flags(folder: Path, notes: dict[str, Any], config_dir: str | None) -> list[str]:
    """The flags that make the run's own files of config be found."""
    sources, name = notes.get("runtime", {}).get("config_sources", []), _config_name(notes)
    own = [str(each.get("path")) for each in sources if each.get("provider") == "command-line"]
    if config_dir is None and own:
        # Inside of a run's folder it would come from whoever made the run, and a config may say what code runs.
        if not Path(own[0]).is_dir() or Path(own[0]).resolve().is_relative_to(folder.resolve()):
            raise UsageError(f"{folder} had its own config in {own[0]}; say where it is now: --config-dir FOLDER")
        config_dir = own[0]
    return [
        *(["--config-dir", config_dir] if config_dir else []),
        *(["--config-name", name] if name != "config" else []),
    ]


def _trust(folder: Path, overrides: list[str], flags: list[str], *, allow: Sequence[str]) -> None:
    """Refuses code of torch.hub that the stored line brings in; a line that cannot be composed is told elsewhere."""
    single = [each for each in overrides if not is_sweep(each)]
    app = composed(single, flags)
    config: Any = None if app is None else asdict(app)
    if config is None and any("hub" in each for each in single):
        config = {"_target_": "torch.hub.load"}
    refuse_hub(config, allow=allow, place=folder)


def _compare(folder: Path, stored: list[str], flags: list[str]) -> None:
    """Warns of keys that today's config files give other values than the run had."""
    app = composed(stored, flags)
    if app is None or not (folder / RESOLVED).is_file():
        return
    then = dict(_flat(stored_config(folder, allow=["torch.hub.load"])))
    now = dict(_flat(asdict(app)))
    changed = [key for key in then | now if then.get(key) != now.get(key) and key != "runtime.allow"]
    if changed:
        told = "; ".join(f"{key}: {then.get(key)!r}, now {now.get(key)!r}" for key in changed[:MOST])
        more = f"; and {len(changed) - MOST} more" if len(changed) > MOST else ""
        print(f"warning: the config files have changed since {folder}: {told}{more}", file=sys.stderr)


def _store(folder: Path, new: Sequence[str], *, allow: Sequence[str], linked: bool) -> None:
    """Makes the resolved config of a run without overrides, one started from Python, the config to begin with."""
    chosen = chosen_groups(new)
    if chosen:
        raise UsageError(
            f"{folder} was started from Python, or from a stored config, and has no overrides that could be composed "
            f"anew: {chosen[0]!r} chooses a group; give keys, as stage.lr=0.1"
        )
    begin_with(unresolved(stored_config(folder, allow=allow), linked=linked))


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, item in value.items():
            yield from _flat(item, f"{key}.{name}" if key else str(name))
    else:
        yield key, value

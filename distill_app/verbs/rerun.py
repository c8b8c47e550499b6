"""`distill rerun RUN key=value ...`: that run, with other values for some of its keys, in a new folder."""

import argparse
import copy
import os
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from distill_app.check.flags import ordered
from distill_app.check.quick import read
from distill_app.config.schema import RuntimeConf, StageConf
from distill_app.config.tree import compose, conf_dir, groups
from distill_app.errors import UsageError, is_of_composition
from distill_app.verbs.stored import RESOLVED, refuse_hub, stored_config

NOTES, STORED = ".hydra", "stored_run"
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
    folder = _folder(Path(os.path.abspath(arguments.run)))
    new = ordered(arguments.overrides).arguments
    flags = ["--multirun"] if arguments.multirun else []
    notes = _notes(folder)
    if notes is not None and _config_name(notes) != STORED:
        stored, more = _stored_overrides(folder), _stored_flags(folder, notes, arguments.config_dir)
        overrides = merged(stored, new)
        _trust(folder, overrides, more, allow=arguments.allow)
        _compare(folder, stored, more)
    else:
        _store(folder, new, allow=arguments.allow)
        more, overrides = ["--config-name", STORED], list(new)
    allowed = [f"runtime.allow=[{','.join([*RuntimeConf().allow, *arguments.allow])}]"] if arguments.allow else []
    line = [*flags, *more, *merged(allowed, overrides)]
    print(f"distill {shlex.join(line)}", file=sys.stderr)
    return line


def merged(stored: Sequence[str], new: Sequence[str]) -> list[str]:
    """The stored overrides with the new ones in the place of those of the same key.

    A key that the run added with + is added again with its new value, and one that `~key` takes out again is left out.
    """
    signs = {_key(override): override[: len(override) - len(override.lstrip("+"))] for override in stored}
    keys = {_key(override) for override in new}
    words = []
    for override in new:
        sign = signs.get(_key(override), "")
        if override.startswith("~") and sign:
            continue
        words.append(override if override[:1] in "+~" else sign + override)
    return [*(override for override in stored if _key(override) not in keys), *words]


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]


def _folder(place: Path) -> Path:
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
    overrides = _read(file)
    if not isinstance(overrides, list) or not all(isinstance(each, str) for each in overrides):
        raise UsageError(f"{file} is not a list of overrides")
    if sweeps := [each for each in overrides if _is_sweep(each)]:
        raise UsageError(f"{file} is not of one run: {sweeps[0]!r} has several values")
    kept = [each for each in overrides if _key(each).replace("/", ".").split(".")[0] != "hydra"]
    return [each for each in kept if not _key(each).startswith("runtime.allow")]


def _notes(folder: Path) -> dict[str, Any] | None:
    """What Hydra wrote about itself; None where it did not start the run."""
    if not (folder / NOTES / "overrides.yaml").is_file():
        return None
    file = folder / NOTES / "hydra.yaml"
    notes = _read(file) if file.is_file() else {}
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
    single = [each for each in overrides if not _is_sweep(each)]
    config = _composed(single, flags)
    if config is None and any("hub" in each for each in single):
        config = {"_target_": "torch.hub.load"}
    refuse_hub(config, allow=allow, place=folder)


def _is_sweep(override: str) -> bool:
    try:
        return OverridesParser.create().parse_override(override).is_sweep_override()
    except HydraException:
        return False


def _composed(overrides: Sequence[str], flags: list[str]) -> Any:
    """The resolved config of a line as plain containers, None where it cannot be composed."""
    options = dict(zip(flags[::2], flags[1::2], strict=True))
    folders = [options["--config-dir"]] if "--config-dir" in options else []
    try:
        cfg = compose(overrides, config_dirs=folders, config_name=options.get("--config-name", "config"))
    except Exception as error:
        if not is_of_composition(error):
            raise
        return None
    _, app, _ = read(cfg)
    return None if app is None else asdict(app)


def _compare(folder: Path, stored: list[str], flags: list[str]) -> None:
    """Warns of keys that today's config files give other values than the run had."""
    today = _composed(stored, flags)
    if today is None or not (folder / RESOLVED).is_file():
        return
    then = dict(_flat(stored_config(folder, allow=["torch.hub.load"])))
    now = dict(_flat(today))
    changed = [key for key in then | now if then.get(key) != now.get(key) and key != "runtime.allow"]
    if changed:
        told = "; ".join(f"{key}: {then.get(key)!r}, now {now.get(key)!r}" for key in changed[:MOST])
        more = f"; and {len(changed) - MOST} more" if len(changed) > MOST else ""
        print(f"warning: the config files have changed since {folder}: {told}{more}", file=sys.stderr)


def _store(folder: Path, new: Sequence[str], *, allow: Sequence[str]) -> None:
    """Makes the resolved config of a run without overrides, one started from Python, the config to begin with."""
    chosen = [override for override in new if _key(override).split("@")[0] in groups()]
    if chosen:
        raise UsageError(
            f"{folder} was started from Python, or from a stored config, and has no overrides that could be composed "
            f"anew: {chosen[0]!r} chooses a group; give keys, as stage.lr=0.1"
        )
    config = _unresolved(stored_config(folder, allow=allow))
    defaults = ["schema", "_self_", {"override hydra/job_logging": "none"}, {"override hydra/hydra_logging": "none"}]
    shipped: Any = OmegaConf.to_container(OmegaConf.load(Path(conf_dir(), "config.yaml")))
    node = {**config, "dry_run": False, "defaults": defaults, "hydra": shipped["hydra"]}
    ConfigStore.instance().store(name=STORED, node=node)


def _unresolved(config: dict[str, Any]) -> dict[str, Any]:
    """A resolved config in which what is inherited is inherited again, so that stage.lr=0.1 reaches the stages."""
    config = copy.deepcopy(config)
    for part in ("prelude", "method"):
        method = config.get(part) or {}
        for stage in (method.get("stages") or {}).values():
            for each in fields(StageConf):
                source = re.fullmatch(r"\$\{(\w+)\.(\w+)\}", str(each.default))
                if source and stage.get(each.name) == (config.get(source[1]) or {}).get(source[2]):
                    stage.pop(each.name, None)
        for name, network in (method.get("extra_models") or {}).items():
            if network == config.get("student"):
                method["extra_models"][name] = "${student}"
    return config


def _read(file: Path) -> Any:
    try:
        return OmegaConf.to_container(OmegaConf.load(file))
    except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
        raise UsageError(f"{file} cannot be read: {error}") from error


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, item in value.items():
            yield from _flat(item, f"{key}.{name}" if key else str(name))
    else:
        yield key, value

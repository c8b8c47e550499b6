"""A run that exists, as its folder tells it.

A run's folder may have come from somebody else, so its stored config is not trusted with more than a new config is
by default: packages of your own are named again with --allow.
"""

import argparse
import io
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from distill_app.config.planning import plan_stages
from distill_app.config.schema import RuntimeConf, to_app
from distill_app.errors import ConfigError, UsageError
from distill_app.runs.claim import finished_summary, is_as_written, lost_text
from distill_app.runs.status import Status, state_of
from distill_app.runs.untrusted import read_text

RESOLVED = "config_resolved.yaml"
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def add_run(parser: argparse.ArgumentParser, *, checkpoints: bool) -> None:
    """Adds the arguments that say which run, and what it may build."""
    parser.add_argument("run", help="the folder of a run" + (", or a checkpoint in it" if checkpoints else ""))
    parser.add_argument(
        "--allow", action="append", default=[], help="a package from which its config may build objects"
    )


def open_run(arguments: argparse.Namespace) -> tuple[Path, Path, dict[str, Any]]:
    """The place that was named, the folder of its run, and the run's config.

    Raises:
        UsageError: It is no run, or its config cannot be read or trusted.
    """
    place = Path(os.path.abspath(arguments.run))
    folder = run_folder(place)
    return place, folder, stored_config(folder, allow=arguments.allow)


def run_folder(place: Path) -> Path:
    """The folder of the run that a path lies in.

    Raises:
        UsageError: It lies in none.
    """
    # A mark is no folder: checkpoints/distill/best stands for the file best.mark beside the checkpoints.
    if place.exists() or place.with_name(f"{place.name}.mark").is_file():
        for folder in (place, *place.parents):
            if (folder / RESOLVED).is_file():
                return folder
    raise UsageError(f"{place} is not a run nor in one: no {RESOLVED} there or above")


def mark_of(place: Path, folder: Path) -> str:
    """What a checkpoint or file of weights is called in names of files."""
    inside = place.parent if place.name == "state.pt" else place
    relative = inside.relative_to(folder)
    return "-".join(part for part in relative.with_suffix("").parts if part != "checkpoints")


def stored_config(folder: Path, *, allow: Sequence[str]) -> dict[str, Any]:
    """The resolved config of a run, with only the given packages allowed.

    Raises:
        UsageError: It cannot be read, has a network whose code lies in a folder, or refers to what is not in it.
    """
    file = folder / RESOLVED
    config = read_yaml(file)
    if refers := next((text for text in _texts(config) if "${" in text), None):
        raise UsageError(
            f"{file} has {refers!r}, and the config of a run is resolved: what stands there could read your "
            f"environment into its files; write out the value"
        )
    if not isinstance(config, dict) or not isinstance(config.setdefault("runtime", {}), dict):
        raise UsageError(f"{file} is not the config of a run")
    config["runtime"].pop("keep_checkpoints", None)  # of earlier versions; it is checkpoint.keep now
    if config["runtime"].pop("tensorboard", True):  # it is a tracker now
        config.setdefault("tracker", {"tensorboard": {"_target_": "distill_app.trackers.TensorBoard"}})
    config["runtime"]["allow"] = [*RuntimeConf().allow, *allow]
    refuse_hub(config, allow=allow, place=file)
    return config


def finished(folder: Path) -> dict[str, Any]:
    """The summary of a run that is finished.

    Raises:
        UsageError: It is not, or has lost what says so; with what to type.
    """
    summary = finished_summary(folder)
    if summary is None:
        why = lost_text(folder) or state_of(Status(folder).read()) or "nothing says what became of it"
        first = "wait for it" if why == "running" else f"first: distill resume {shlex.quote(str(folder))}"
        raise UsageError(f"{folder} is not finished ({why}); {first}")
    return summary


def read_yaml(file: Path) -> Any:
    """What a YAML file of a run holds, as plain containers.

    Raises:
        UsageError: It cannot be read, is not as it was written, or repeats itself by aliases, which nothing of a run
            does: a few lines of them stand for as many values as they like.
    """
    try:
        text = read_text(file)
        if not is_as_written(text):
            raise ValueError(
                "it is not as the run wrote it: damaged, or edited. If you edited it, take out its first line; other "
                "settings in a new folder: distill rerun RUN key=value"
            )
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=_LOADER)):
            raise ValueError("it has YAML aliases (*name); write out what they stand for")
        return OmegaConf.to_container(OmegaConf.load(io.StringIO(text)))
    except (OSError, ValueError, yaml.YAMLError, OmegaConfBaseException, RecursionError) as error:
        raise UsageError(f"{file} cannot be read: {error}") from error


def add_network(parser: argparse.ArgumentParser) -> None:
    """Adds the argument that says which network of a run."""
    parser.add_argument(
        "--network", help="student, teacher or another network of the run (default: the student of the last stage)"
    )


def network_name(config: Mapping[str, Any], asked: str | None) -> str:
    """Which network of a run is meant: what takes the student's part in its last stage, where none was named.

    Raises:
        ConfigError: The config does not fit this version of the program.
    """
    if asked is not None:
        return asked
    plans, errors = plan_stages(to_app(config))
    if errors:
        raise ConfigError(errors)
    return plans[-1].network("student") if plans else "student"


def refuse_hub(config: Any, *, allow: Sequence[str], place: Path) -> None:
    """Refuses a stored config with a network of torch.hub, unless it is allowed by name.

    In a config of your own, a local hubconf.py is your own code; in this one it is whoever's made the run.

    Raises:
        UsageError: It has such a network.
    """
    if "torch.hub.load" not in allow and "torch.hub.load" in _targets(config):
        raise UsageError(
            f"{place} has a network built by torch.hub, which runs code from a folder; if you trust it: "
            f"--allow torch.hub.load"
        )


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)


def _targets(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if "_target_" in value:
            yield str(value["_target_"])
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _targets(item)

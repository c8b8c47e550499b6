"""What can be done with runs that exist: resume, evaluate, export.

A run's folder may have come from somebody else, so its stored config is not trusted with more than a new config is
by default: packages of your own are named again with --allow.
"""

import argparse
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from distill_app.config.schema import RuntimeConf
from distill_app.errors import UsageError
from distill_app.verbs.resume import _resume


def run_verb(verb: str, argv: Sequence[str]) -> int:
    """Parses the arguments of a verb and carries it out.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(prog=f"distill {verb}", description=_TEXTS[verb])
    parser.add_argument("run", help="the folder of a run" + (", or a checkpoint in it" if verb != "resume" else ""))
    parser.add_argument(
        "--allow", action="append", default=[], help="a package from which its config may build objects"
    )
    if verb in ("evaluate", "export"):
        parser.add_argument("--network", default="student", help="student, teacher or another network of the run")
    if verb == "evaluate":
        parser.add_argument("--split", default="test", choices=("test", "validation"), help="default: test")
    if verb == "export":
        parser.add_argument("--output", required=True, help="the file to write, a plain state dict")
    arguments = parser.parse_args(argv)
    place = Path(os.path.abspath(arguments.run))
    folder = _run_folder(place)
    config = _stored_config(folder, allow=arguments.allow)
    if verb == "resume":
        return _resume(folder, config)
    from distill_app.verbs.evaluate import evaluate
    from distill_app.verbs.export import export

    if verb == "evaluate":
        metrics = evaluate(config, place, folder=folder, network=arguments.network, split=arguments.split)
        print(json.dumps(metrics, indent=2))
    else:
        print(export(config, place, folder=folder, network=arguments.network, output=Path(arguments.output)))
    return 0


_TEXTS = {
    "resume": "Goes on with an interrupted run after its last complete epoch; a finished run is left as it is.",
    "evaluate": "Evaluates a network of a run, or of one of its checkpoints, and prints the metrics as JSON.",
    "export": "Writes the weights of a network, of a run or of one of its checkpoints, as a plain state dict.",
}


def _run_folder(place: Path) -> Path:
    """The folder of the run that a path lies in."""
    # A mark is no folder: checkpoints/distill/best stands for the file best.mark beside the checkpoints.
    if place.exists() or place.with_name(f"{place.name}.mark").is_file():
        for folder in (place, *place.parents):
            if (folder / "config_resolved.yaml").is_file():
                return folder
    raise UsageError(f"{place} is not a run nor in one: no config_resolved.yaml there or above")


def _stored_config(folder: Path, *, allow: Sequence[str]) -> dict[str, Any]:
    file = folder / "config_resolved.yaml"
    try:
        config: Any = OmegaConf.to_container(OmegaConf.load(file))
    except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
        raise UsageError(f"{file} cannot be read: {error}") from error
    if not isinstance(config, dict) or not isinstance(config.setdefault("runtime", {}), dict):
        raise UsageError(f"{file} is not the config of a run")
    config["runtime"]["allow"] = [*RuntimeConf().allow, *allow]
    # In a config of your own, a local hubconf.py is your own code; in this one it is whoever's made the run.
    if "torch.hub.load" not in allow and "torch.hub.load" in _targets(config):
        raise UsageError(
            f"{file} has a network built by torch.hub, which runs code from a folder; if you trust it: "
            f"--allow torch.hub.load"
        )
    return config


def _targets(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if "_target_" in value:
            yield str(value["_target_"])
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _targets(item)

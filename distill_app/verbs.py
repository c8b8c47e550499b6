"""What can be done with runs that exist: resume, evaluate, export.

A run's folder may have come from somebody else, so its stored config is not trusted with more than a new config is
by default: packages of your own are named again with --allow.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from distill_app.config import RuntimeConf
from distill_app.records import UsageError


def run_verb(verb: str, argv: Sequence[str]) -> int:
    """Parses the arguments of a verb and carries it out.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(prog=f"distill {verb}", description=_TEXTS[verb])
    parser.add_argument("run", help="the folder of a run" + (", or a checkpoint in it" if verb != "resume" else ""))
    parser.add_argument("--allow", nargs="*", default=[], help="packages from which its config may build objects")
    if verb in ("evaluate", "export"):
        parser.add_argument("--network", default="student", help="student, teacher or another network of the run")
    if verb == "evaluate":
        parser.add_argument("--split", default="test", choices=("test", "validation"), help="default: test")
    if verb == "export":
        parser.add_argument("--output", required=True, help="the file to write, a plain state dict")
    arguments = parser.parse_args(argv)
    place = Path(arguments.run)
    folder = _run_folder(place)
    config = _stored_config(folder, allow=arguments.allow)
    if verb == "resume":
        return _resume(folder, config)
    from distill_app.evaluation import evaluate, export

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


def _resume(folder: Path, config: dict[str, Any]) -> int:
    from distill_app.records import Status
    from distill_app.runner import run_experiment

    if Status(folder).read().get("state") == "done":
        print(f"{folder} is finished; its summary is {folder / 'summary.json'}")
        return 0
    command = folder / "command.txt"
    words = command.read_text(encoding="utf-8").split("\n")[:1] if command.is_file() else ["distill"]
    run_experiment(config, output_dir=str(folder), command=words)
    return 0


def _run_folder(place: Path) -> Path:
    """The folder of the run that a path lies in."""
    for folder in (place, *place.parents):
        if (folder / "config_resolved.yaml").is_file():
            return folder
    raise UsageError(f"{place} is not a run nor in one: no config_resolved.yaml there or above")


def _stored_config(folder: Path, *, allow: Sequence[str]) -> dict[str, Any]:
    config: dict[str, Any] = OmegaConf.to_container(OmegaConf.load(folder / "config_resolved.yaml"))  # type: ignore[assignment]
    config.setdefault("runtime", {})["allow"] = [*RuntimeConf().allow, *allow]
    return config

"""`distill resume`: going on with a run that was interrupted."""

import argparse
import shlex

from distill_app.verbs.stored import add_run, open_run


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments."""
    add_run(parser, checkpoints=False)


def run(arguments: argparse.Namespace) -> int:
    """Goes on with the run, or says that it is finished."""
    _, folder, config = open_run(arguments)
    from distill_app.runs.status import Status

    if Status(folder).read().get("state") == "done":
        print(f"{folder} is finished; its summary is {folder / 'summary.json'}")
        return 0
    from distill_app.training.runner import run_experiment

    command = folder / "command.txt"
    words = shlex.split(command.read_text(encoding="utf-8")) if command.is_file() else ["distill"]
    run_experiment(config, output_dir=str(folder), command=words)
    return 0

"""What can be typed after `distill` in the place of overrides: one file per verb, each with `add` and `run`.

`add(parser)` adds the verb's arguments. `run(arguments)` carries it out and returns the exit code, or the command line
of an experiment to go on with.
"""

import argparse
from collections.abc import Sequence
from importlib import import_module

# Verb: what it does, for --help and at the top of its own -h. Nothing is listed anywhere else.
VERBS = {
    "list": "lists methods, models, other groups; also: distill methods",
    "show": "shows an option in full, and where its values come from",
    "predict": "says what is in images: with a network of a run, or an export",
    "export": "writes a verified file: weights, torch.export, TorchScript, ONNX",
    "evaluate": "evaluates a network of a run; --full: calibration, CKA, cost ...",
    "report": "tables, a picture and a page of many runs, compared by seed",
    "resume": "goes on with an interrupted run where it was saved last",
    "continue": "starts a new run from the weights of a finished one",
    "rerun": "starts a run again in a new folder, with other values",
    "reproduce": "runs a run again and says whether it is the same, bit for bit",
    "jobs": "lists submitted runs: how far each is, and the time left",
    "logs": "prints what the job of a run said; follows it with -f",
    "cancel": "ends the jobs of runs; what runs finishes its step and saves",
    "retry": "submits again what of a sweep is missing or failed",
    "wait": "waits until all runs are over; exit code 0 if all are done",
    "published": "lists what papers report for a benchmark's pairs and methods",
    "data": "check: looks at every image of a data set; a picture too",
    "taps": "prints the modules of a network, and where its taps sit",
    "import-torchdistill": "turns a config of torchdistill into an experiment",
    "cache": "lists, verifies or clears teacher caches",
    "completion": "prints the completion of a shell: bash, zsh or fish",
}


def call(verb: str, words: Sequence[str]) -> int | list[str]:
    """Parses what follows a verb and carries it out.

    Args:
        verb: One of VERBS.
        words: What was typed after it.

    Returns:
        The exit code, or the command line of an experiment to go on with.
    """
    module = import_module(f"distill_app.verbs.{verb.replace('-', '_')}")
    parser = argparse.ArgumentParser(prog=f"distill {verb}", description=f"{VERBS[verb].capitalize()}.")
    module.add(parser)
    # Options may stand between what is positional: distill rerun RUN seed=1 --allow mine
    outcome: int | list[str] = module.run(parser.parse_intermixed_args(words))
    return outcome


def listing() -> str:
    """The verbs and what they do, one a line."""
    width = max(len(verb) for verb in VERBS if len(verb) < 12)  # the one that is longer stands out
    return "\n".join(f"  {verb:<{width}}  {text}" for verb, text in VERBS.items())

"""What can be typed after `distill` in the place of overrides: one file per verb, each with `add` and `run`.

`add(parser)` adds the verb's arguments. `run(arguments)` carries it out and returns the exit code, or the command line
of an experiment to go on with.
"""

import argparse
from collections.abc import Sequence
from importlib import import_module

# Verb: what it does, for --help and at the top of its own -h. Nothing is listed anywhere else.
VERBS = {
    "resume": "goes on with an interrupted run where it was saved last; a finished run is left as it is",
    "continue": "starts a new run from the weights of a finished one; optimiser and schedule begin anew",
    "rerun": "starts a run again in a new folder, with other values for some of its keys",
    "reproduce": "runs a finished run again in a new folder and says whether it came out the same, bit for bit",
    "evaluate": "evaluates a network of a run, or of one of its checkpoints; --full: by class, calibration, CKA ...",
    "export": "writes the weights of a network, of a run or of one of its checkpoints, as a plain state dict",
    "report": "tables, a picture and a page in one file of the results of runs, with comparisons by seed",
    "jobs": "lists submitted runs: what each does, how far it is, its last figure and the time that is left",
    "logs": "prints what the job of a run said, and its train.log; follows them with -f",
    "cancel": "ends the jobs of runs that are queued or running; what runs finishes its step and saves",
    "retry": "submits again what of a sweep is neither done nor queued nor running, as one array",
    "wait": "waits until all runs are over; exit code 0 if all are done",
    "methods": "lists the methods, or says what one does: its stages, its losses and what to know",
    "import-torchdistill": "turns a classification config of torchdistill into an experiment, says what it could not",
    "cache": "lists, verifies or clears teacher caches",
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
    width = max(map(len, VERBS))
    return "\n".join(f"distill {verb:<{width}}  {text}" for verb, text in VERBS.items())

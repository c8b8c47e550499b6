"""`distill evaluate`: the metrics of a network of a run that exists."""

import argparse
import json

from distill_app.verbs.stored import add_run, open_run


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments."""
    add_run(parser, checkpoints=True)
    parser.add_argument("--network", default="student", help="student, teacher or another network of the run")
    parser.add_argument("--split", default="test", choices=("test", "validation"), help="default: test")


def run(arguments: argparse.Namespace) -> int:
    """Prints the metrics as JSON."""
    place, folder, config = open_run(arguments)
    from distill_app.verbs.networks import evaluate

    metrics = evaluate(config, place, folder=folder, network=arguments.network, split=arguments.split)
    print(json.dumps(metrics, indent=2))
    return 0

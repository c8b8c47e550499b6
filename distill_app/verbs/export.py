"""`distill export`: a network's weights as a plain state dict."""

import argparse
from pathlib import Path

from distill_app.verbs.stored import add_run, open_run


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments."""
    add_run(parser, checkpoints=True)
    parser.add_argument("--network", default="student", help="student, teacher or another network of the run")
    parser.add_argument("--output", required=True, help="the file to write, a plain state dict")


def run(arguments: argparse.Namespace) -> int:
    """Writes the file and says what is in it."""
    place, folder, config = open_run(arguments)
    from distill_app.verbs.networks import export

    print(export(config, place, folder=folder, network=arguments.network, output=Path(arguments.output)))
    return 0

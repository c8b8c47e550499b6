"""`distill evaluate`: the metrics of a network of a run that exists, and with --full all that there is to say of it."""

import argparse
import json
import sys

from distill_app.errors import UsageError
from distill_app.runs import evaluations
from distill_app.verbs.stored import add_network, add_run, mark_of, network_name, open_run


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments."""
    add_run(parser, checkpoints=True)
    add_network(parser)
    parser.add_argument("--split", default="test", choices=("test", "validation"), help="default: test")
    parser.add_argument(
        "--eight-bits", action="store_true", help="of a network with a bottleneck: what crosses its cut goes in 8 bits"
    )
    parser.add_argument(
        "--full",
        action="store_true",
        help="by class, confusions, calibration, fidelity and CKA to the teacher, examples; writes RUN/evaluation/",
    )


def run(arguments: argparse.Namespace) -> int:
    """Prints the metrics as JSON; with --full tables, and writes them as JSON and as a picture."""
    place, folder, config = open_run(arguments)
    # Imported here, since torch takes seconds and what is wrong with the folder is told at once.
    from distill_app.verbs.networks import evaluate, evaluate_in_depth

    network = network_name(config, arguments.network)
    asked = {"folder": folder, "network": network, "split": arguments.split}
    if arguments.full and arguments.eight_bits:
        raise UsageError("--eight-bits: is not for --full; evaluate without one of them")
    if not arguments.full:
        print(json.dumps(evaluate(config, place, **asked, eight_bits=arguments.eight_bits), indent=2))
        return 0
    from distill_app.analysis import picture
    from distill_app.analysis.text import depth_text

    found = evaluate_in_depth(config, place, **asked)
    print(depth_text(found))
    mark = "" if place == folder else mark_of(place, folder)
    target = evaluations.place_of(folder, network=network, split=arguments.split, mark=mark)
    image = target.with_name(f"{target.name}.png")
    try:
        files = [evaluations.write(target, {**found, "checkpoint": mark})]
        image.unlink(missing_ok=True)  # a link there is replaced, not followed
        files += [image] if picture.draw(image, found) else []
    except OSError as error:
        print(f"evaluate: cannot write to {target.parent}: {error.strerror or error}", file=sys.stderr)
        return 1
    print("\n" + "\n".join(f"written: {file}" for file in files) + f"\npage:    distill report {folder}")
    return 0

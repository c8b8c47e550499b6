"""`distill evaluate`: the metrics of a network of a run that exists, and with --full all that there is to say of it."""

import argparse
import json
import sys
from pathlib import Path

from distill_app.runs import evaluations
from distill_app.verbs.stored import add_run, open_run


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments."""
    add_run(parser, checkpoints=True)
    parser.add_argument("--network", default="student", help="student, teacher or another network of the run")
    parser.add_argument("--split", default="test", choices=("test", "validation"), help="default: test")
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

    asked = {"folder": folder, "network": arguments.network, "split": arguments.split}
    if not arguments.full:
        print(json.dumps(evaluate(config, place, **asked), indent=2))
        return 0
    from distill_app.analysis import picture
    from distill_app.analysis.text import depth_text

    found = evaluate_in_depth(config, place, **asked)
    print(depth_text(found))
    mark = "" if place == folder else _mark(place, folder)
    target = evaluations.place_of(folder, network=arguments.network, split=arguments.split, mark=mark)
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


def _mark(place: Path, folder: Path) -> str:
    """What a checkpoint or file of weights is called in names of files."""
    inside = place.parent if place.name == "state.pt" else place
    relative = inside.relative_to(folder)
    return "-".join(part for part in relative.with_suffix("").parts if part != "checkpoints")

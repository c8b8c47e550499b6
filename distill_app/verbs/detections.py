"""What `distill predict` says of a detector: the objects of each image, as a table, as JSON or CSV, or drawn."""

import argparse
import csv
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from distill_app.deploy.detected import Detector, Found
from distill_app.words import printable

_BATCH = 4
Read = Callable[[Any, Path], tuple[Any, str]]


@dataclass
class Seen:
    """What was found in an image; `problem` says why it cannot be read."""

    path: Path
    found: list[Found]
    problem: str = ""


def show(arguments: argparse.Namespace, network: Detector, paths: Sequence[Path], *, read: Read) -> list[Seen]:
    """Prints the objects in images, and draws them where that was asked for.

    Args:
        arguments: Of the verb.
        network: The detector.
        paths: Of the images.
        read: An image as a network takes it, or why it cannot be read.
    """
    pictures: list[tuple[Path, Any]] = []
    seen = list(_seen(arguments, network, paths, read=read, pictures=pictures))
    (_as_json if arguments.json else _as_csv if arguments.csv else _as_table)(seen)
    if arguments.grid is not None:
        from distill_app.deploy.grid import draw_pictures

        draw_pictures(arguments.grid, pictures)
        print(f"written: {arguments.grid}", file=sys.stderr)
    return seen


def _seen(
    arguments: argparse.Namespace, network: Detector, paths: Sequence[Path], *, read: Read, pictures: list[Any]
) -> Iterator[Seen]:
    """What is in the images, in their order; batch by batch, since they may be large."""
    above = 0.5 if arguments.score is None else arguments.score
    rest = iter(paths)
    while batch := list(islice(rest, arguments.batch_size or _BATCH)):
        loaded = [read(network, path) for path in batch]
        images = [image for image, problem in loaded if not problem]
        answers = network.kept(network(images), above=above, top=arguments.top) if images else []
        readable = [path for path, (_, problem) in zip(batch, loaded, strict=True) if not problem]
        if arguments.grid is not None and images:
            pictures += zip(readable, network.drawn(images, answers), strict=True)
        each = iter(answers)
        for path, (_, problem) in zip(batch, loaded, strict=True):
            yield Seen(path, [] if problem else network.objects(next(each)), problem)


def _as_table(seen: Sequence[Seen]) -> None:
    rows = [
        [printable(str(image.path)), *cells]
        for image in seen
        if not image.problem
        for cells in [_cells(found) for found in image.found] or [("-", "", "")]
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _cells(found: Found) -> tuple[str, str, str]:
    x1, y1, x2, y2 = found.box
    return printable(found.label), f"{100 * found.score:5.1f}%", f"{x1:.0f} {y1:.0f} {x2:.0f} {y2:.0f}"


def _as_json(seen: Sequence[Seen]) -> None:
    entries = [
        {"image": str(image.path), "error": image.problem}
        if image.problem
        else {
            "image": str(image.path),
            "objects": [{"class": label, "score": score, "box": list(box)} for label, score, box in image.found],
        }
        for image in seen
    ]
    print(json.dumps(entries, indent=2))


def _as_csv(seen: Sequence[Seen]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["image", "rank", "class", "score", "x1", "y1", "x2", "y2"])
    for image in seen:
        for rank, (label, score, box) in enumerate(image.found, start=1):
            writer.writerow([image.path, rank, label, f"{score:.6f}", *(f"{side:.2f}" for side in box)])

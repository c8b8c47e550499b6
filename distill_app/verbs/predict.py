"""`distill predict`: what a network says of images, as a table, as JSON or CSV, or as a picture."""

import argparse
import csv
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from distill_app.data.found import found_images
from distill_app.errors import DataError, UsageError
from distill_app.verbs.stored import add_network
from distill_app.words import printable


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument("network_of", metavar="RUN", help="a run, a checkpoint or weights in it, or an export")
    parser.add_argument("images", nargs="+", metavar="IMAGES", help="folders, patterns ('*.jpg') and files")
    add_network(parser)
    parser.add_argument("--top", type=int, metavar="K", help="the K likeliest classes (default: 1), or surest objects")
    parser.add_argument(
        "--score", type=float, metavar="S", help="of a detector: objects from a score on (default: 0.5)"
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="print JSON instead of the table")
    how.add_argument("--csv", action="store_true", help="print CSV instead of the table")
    parser.add_argument("--grid", type=Path, metavar="PICTURE", help="draw the images with what was found into a file")
    parser.add_argument(
        "--maps", type=Path, metavar="DIR", help="of a segmenter: write the class of every pixel, as PNG"
    )
    parser.add_argument("--batch-size", type=int, help="of images that go through together (default: 32; detectors: 4)")
    parser.add_argument("--allow", action="append", default=[], help="a package from which it may build objects")
    parser.epilog = "Images that cannot be read are named and left out, and the exit code is 1."


@dataclass
class Answer:
    """What came out for one image.

    Attributes:
        path: Of the image.
        guesses: Labels and probabilities, the likeliest first; none where it cannot be read.
        problem: Why it cannot be read.
    """

    path: Path
    guesses: list[tuple[str, float]]
    problem: str = ""


def run(arguments: argparse.Namespace) -> int:
    """Prints what is in the images.

    Returns:
        The exit code: 1 if images could not be read.
    """
    for name in ("top", "batch_size"):
        if getattr(arguments, name) is not None and getattr(arguments, name) < 1:
            raise UsageError(f"--{name.replace('_', '-')}: {getattr(arguments, name)} was given; at least 1 is needed")
    if arguments.grid is not None and arguments.grid.suffix.lower() not in (".png", ".jpg", ".jpeg", ".pdf", ".svg"):
        raise UsageError(f"--grid: {arguments.grid} ends in no suffix of a picture; name it PICTURE.png")
    paths = found_images(arguments.images)
    # Imported here, since torch takes seconds and what is wrong with the paths is told at once.
    from distill_app.deploy.detected import Detector
    from distill_app.verbs.deployment import open_network
    from distill_app.verbs.detections import show as show_objects

    network = open_network(
        Path(os.path.abspath(arguments.network_of)), network=arguments.network, allow=arguments.allow
    )
    if isinstance(network, Detector):
        if arguments.maps is not None:
            raise UsageError("--maps: is of segmenters; boxes and masks of a detector are drawn with --grid")
        seen = show_objects(arguments, network, paths, read=_read)
        return _told([image for image in seen if image.problem], len(paths))
    if arguments.score is not None:
        raise UsageError("--score: is of detectors; of classes take the likeliest with --top")
    network.require_classes()
    maps = _Maps.of(arguments.maps, paths, network=network)
    answers = list(_answers(network, paths, top=arguments.top or 1, size=arguments.batch_size or 32, maps=maps))
    if arguments.json or arguments.csv:
        show = _as_json if arguments.json else _as_csv
        show(answers, value="probability" if maps is None else "share")
    else:
        _as_table(answers)
    if arguments.maps is not None:
        print(f"written: {sum(not answer.problem for answer in answers)} maps in {arguments.maps}", file=sys.stderr)
    if arguments.grid is not None:
        from distill_app.deploy.grid import draw

        read = [(answer.path, answer.guesses) for answer in answers if not answer.problem]
        draw(arguments.grid, read, preprocessing=network.preprocessing)
        print(f"written: {arguments.grid}", file=sys.stderr)
    return _told([answer for answer in answers if answer.problem], len(paths))


@dataclass
class _Maps:
    """Where maps of classes go: image -> file; none where nobody asked for them."""

    files: dict[Path, Path]

    @classmethod
    def of(cls, folder: Path | None, paths: Sequence[Path], *, network: Any) -> "_Maps | None":
        """None for a network of one class an image.

        Raises:
            UsageError: It is one, and maps are asked for; a file that is there; two images of one name; or images that
                are cropped, whose maps would be of a part.
        """
        if network.scores != "pixels":
            if folder is not None:
                raise UsageError("--maps: the network tells no classes of pixels; leave it out")
            return None
        crops = [name for each in network.preprocessing.transforms if "Crop" in (name := str(each.get("_target_")))]
        if folder is not None and crops:
            raise UsageError(f"--maps: images are cropped ({crops[0]}), and maps would be of a part of them")
        files = {} if folder is None else {path: folder / f"{path.stem}.png" for path in paths}
        taken: dict[Path, Path] = {}
        for path, file in files.items():
            if file in taken:
                raise UsageError(f"--maps: {taken[file]} and {path} would both be {file}; predict them one by one")
            if file.exists():
                raise UsageError(f"--maps: {file} is there; name another folder")
            taken[file] = path
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        return cls(files)

    def write(self, path: Path, classes: Any) -> None:
        """The map of an image, in the image's own size."""
        from distill_app.data.opening import open_image
        from distill_app.deploy.maps import write_map

        if path in self.files:
            with open_image(path, header_only=True) as image:
                size = image.size
            write_map(self.files[path], classes, size=size)


def _answers(
    network: Any, paths: Sequence[Path], *, top: int, size: int, maps: _Maps | None = None
) -> Iterator[Answer]:
    """The answers in the order of the paths, batch by batch."""
    rest = iter(paths)
    while batch := list(islice(rest, size)):
        loaded = [_read(network, path) for path in batch]
        images = [image for image, problem in loaded if not problem]
        if maps is None:
            guesses = iter(network.guesses_of(images, top=top))
        else:
            found = network.maps_of(images)
            read = [path for path, (_, problem) in zip(batch, loaded, strict=True) if not problem]
            for path, classes in zip(read, found, strict=True):
                maps.write(path, classes)
            guesses = iter([network.shares_of(classes, top=top) for classes in found])
        for path, (_, problem) in zip(batch, loaded, strict=True):
            yield Answer(path, [] if problem else next(guesses), problem)


def _read(network: Any, path: Path) -> tuple[Any, str]:
    """An image as the network takes it, or why it cannot be read."""
    try:
        return network.preprocessing(path), ""
    except DataError:  # of all images alike, such as values whose white nobody knows
        raise
    except (OSError, RuntimeError, ValueError, SyntaxError, EOFError) as error:
        text = next(iter(str(error).splitlines()), type(error).__name__)
        return None, text.removeprefix(str(path)).lstrip(": ")


def _as_table(answers: Sequence[Answer]) -> None:
    read = [answer for answer in answers if not answer.problem]
    names = {answer.path: printable(str(answer.path)) for answer in read}
    wide = max(map(len, names.values()), default=0)
    labels = [[f"{printable(label)} {100 * share:5.1f}%" for label, share in answer.guesses] for answer in read]
    columns = [max(map(len, column)) for column in zip(*labels, strict=True)] if labels else []
    for answer, line in zip(read, labels, strict=True):
        cells = "  ".join(cell.rjust(width) for cell, width in zip(line, columns, strict=True))
        print(f"{names[answer.path]:<{wide}}  {cells}")


def _as_json(answers: Sequence[Answer], *, value: str) -> None:
    entries = [
        {"image": str(answer.path), "error": answer.problem}
        if answer.problem
        else {
            "image": str(answer.path),
            "classes": [{"class": label, value: share} for label, share in answer.guesses],
        }
        for answer in answers
    ]
    print(json.dumps(entries, indent=2))


def _as_csv(answers: Sequence[Answer], *, value: str) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["image", "rank", "class", value])
    for answer in answers:
        for rank, (label, share) in enumerate(answer.guesses, start=1):
            writer.writerow([answer.path, rank, label, f"{share:.6f}"])


def _told(bad: Sequence[Any], count: int) -> int:
    for answer in bad:
        print(f"cannot be read: {printable(str(answer.path))}: {printable(answer.problem)}", file=sys.stderr)
    if bad:
        print(f"{len(bad)} of {count} images could not be read", file=sys.stderr)
    return int(bool(bad))

"""`distill data check`: what there is in a data set, what is wrong with it, and a picture of what networks see."""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distill_app.check.quick import read
from distill_app.config.plan import StagePlan
from distill_app.config.schema import AppConf
from distill_app.config.tree import compose
from distill_app.data.inspection import Inspection, Seen, look
from distill_app.data.map_files import MapListing
from distill_app.data.own import is_own, own_listing
from distill_app.data.split import hold_out, share_held_out
from distill_app.errors import DataError, DistillError, UsageError
from distill_app.runs.report import summary_table
from distill_app.verbs.list import add_config_dirs, check_config_dirs

# So that nothing but the data can be wrong with the config.
_ALONE = ("method=ce", "prelude=none")
_HUB = ("dataset_dict.json", "state.json")  # what save_to_disk leaves


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument("action", choices=("check",), help="reads every image once")
    parser.add_argument(
        "words",
        nargs="+",
        metavar="DIR or key=value",
        help="a folder of images, a .csv or .parquet file; or overrides, such as dataset=csv dataset.file=FILE",
    )
    parser.add_argument("--json", action="store_true", help="prints all that was found as JSON")
    parser.add_argument(
        "--picture",
        metavar="FILE",
        default="data_check.png",
        help="where images of each class go, as training and test see them (default: %(default)s)",
    )
    parser.add_argument("--no-picture", action="store_true", help="draws none, and is done without importing torch")
    add_config_dirs(parser)


def run(arguments: argparse.Namespace) -> int:
    """Prints what there is, and draws the picture.

    Returns:
        The exit code: 1 if something is wrong.

    Raises:
        UsageError: Words that name no data set.
    """
    check_config_dirs(arguments.config_dir)
    cfg = compose([*_ALONE, *overrides_of(arguments.words)], config_dirs=arguments.config_dir)
    errors, app, plans = read(cfg)
    errors = [text for text in errors if text.startswith("dataset.")]
    if app is None or errors:
        return _refused(errors or ["the config cannot be read: distill dry_run=true says why"], as_json=arguments.json)
    try:
        images, classes, how, doubts = _images(app, plans[0])
    except DataError as error:
        return _refused([str(error)], as_json=arguments.json)
    found = Inspection.of(images, classes)
    wrong, notes = found.wrong(), [*doubts, *found.notes(image_size=app.dataset.image_size)]
    picture = None
    if not arguments.no_picture:
        from distill_app.analysis.class_samples import draw  # torch takes seconds

        try:
            picture = str(draw(app, plans[0], Path(arguments.picture)))
        except (DistillError, OSError) as error:  # all that was read is told all the same
            notes.append(f"there is no picture: {error}")
    if arguments.json:
        print(json.dumps({"split": how, **found.plain(), "wrong": wrong, "notes": notes, "picture": picture}, indent=2))
    else:
        print(told(app.dataset.name, how, found, wrong=wrong, notes=notes, picture=picture))
    return 1 if wrong else 0


def overrides_of(words: Sequence[str]) -> list[str]:
    """The overrides that words stand for: a place says by what lies there which data set it is.

    Raises:
        UsageError: Nothing is there.
    """
    overrides = []
    for word in words:
        place = Path(word)
        if "=" in word and not place.exists():
            overrides.append(word)
        elif place.suffix.lower() in (".csv", ".tsv"):
            overrides += ["dataset=csv", f"dataset.file={_quoted(word)}"]
        elif place.suffix.lower() == ".parquet" or any((place / name).is_file() for name in _HUB) or _parquet_in(place):
            overrides += ["dataset=huggingface", f"dataset.path={_quoted(word)}"]
        else:
            overrides += ["dataset=imagefolder", f"dataset.root={_quoted(word)}"]
    if not any(word.startswith("dataset=") for word in overrides):
        raise UsageError("name a folder of images, or a data set: distill data check dataset=csv dataset.file=FILE")
    return overrides


def _parquet_in(place: Path) -> bool:
    return place.is_dir() and any(place.glob("*.parquet"))


def _quoted(value: str) -> str:
    """A value in the grammar of Hydra's overrides."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _refused(errors: Sequence[str], *, as_json: bool) -> int:
    if as_json:
        print(json.dumps({"wrong": list(errors)}, indent=2))
    else:
        print("\n".join(["wrong:", *(f"  {number}. {text}" for number, text in enumerate(errors, start=1))]))
    return 1


def _images(app: AppConf, plan: StagePlan) -> tuple[Iterator[Seen], list[str], str, list[str]]:
    """The images of a data set with their parts, its classes, how it is divided, and what a run would warn of."""
    conf = app.dataset
    listing = own_listing(conf.train) if is_own(conf.train) else None
    if listing is None or isinstance(listing, MapListing):
        from distill_app.analysis.class_samples import seen_items

        return seen_items(app, plan)
    parts = np.full(len(listing.labels), "train", dtype=object)
    for part, places in listing.division.places.items():
        parts[places] = part
    how = listing.division.how
    fraction = share_held_out(conf.validation_fraction)
    if "validation" not in listing.division.places and fraction:
        train, labels = np.array(listing.division.places["train"]), np.array(listing.labels)
        _, held = hold_out(labels[train], fraction=fraction)
        parts[train[held]] = "validation"
        how += f"; {fraction:g} of each class for validation, of what is for training"
    white = dict.fromkeys(("train", "validation"), conf.train.get("white")) | {"test": conf.test.get("white")}
    return look(listing, parts.tolist(), white=white), listing.classes, how, listing.notes


def told(
    name: str, how: str, found: Inspection, *, wrong: Sequence[str], notes: Sequence[str], picture: str | None
) -> str:
    """All that was found, as text."""
    rows: list[dict[str, Any]] = [
        {"class": title, **{part: counts[label] for part, counts in found.counts.items()}}
        for label, title in enumerate(found.classes)
    ]
    rows.append({"class": "all", **{part: sum(counts) for part, counts in found.counts.items()}})
    lines = [f"{name}: {how}", "", summary_table(rows, list(rows[0])), ""]
    lines += [f"sizes:    {_sizes(found)}", f"modes:    {_counted(found.modes)}"]
    if found.imbalance < float("inf"):
        lines.append(f"balance:  the largest class has {found.imbalance:.1f} times the training images of the smallest")
    lines += [f"note:     {text}" for text in notes]
    lines += [f"picture:  {picture}"] if picture else []
    if not wrong:
        return "\n".join([*lines, "nothing is wrong"])
    return "\n".join([*lines, "wrong:", *(f"  {number}. {text}" for number, text in enumerate(wrong, start=1))])


def _sizes(found: Inspection) -> str:
    shown = ", ".join(f"{count} of {width}x{height}" for (width, height), count in found.sizes.most_common(4))
    if len(found.sizes) <= 4:
        return shown or "none"
    sides = [side for size in found.sizes for side in size]
    spread = f"sides from {min(sides)} to {max(sides)}, the shorter one mostly around {found.median_side}"
    return f"{shown}, and {len(found.sizes) - 4} others; {spread}"


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items(), key=lambda each: -each[1])) or "none"

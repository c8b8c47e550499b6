"""`distill list`: what there is to choose from, with a line for each."""

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from distill_app.config.groups import default_options, file_of, groups, header_of, options_of
from distill_app.config.methods import gains, methods_of
from distill_app.errors import UsageError
from distill_app.words import unknown

# What groups are called that have no plain plural, or stand for more than their word says.
_CALLED = {"loss": "losses", "model/taps": "taps", "stage": "stages", "debug": "debug", "hydra/sweeper": "sweepers"}
_ALSO = {"recipes": "stage", "presets": "experiment", "teachers": "model", "students": "model", "networks": "model"}
_WHAT = {
    "dataset": "images, transforms, and how many labels the student may see",
    "debug": "short runs that look for mistakes",
    "experiment": "complete presets: experiment=NAME",
    "hydra/sweeper": "what chooses the points of a sweep: hydra/sweeper=NAME",
    "launcher": "where a run is carried out",
    "loss": "terms: +loss@method.stages.STAGE.losses.TERM=NAME",
    "method": "what the student learns from the teacher",
    "model": "networks: model@student=NAME, model@teacher=NAME",
    "model/taps": "names of activations of a family: model/taps@student.taps=NAME",
    "optimizer": "optimizer@stage.optimizer=NAME",
    "prelude": "stages that run before the method's",
    "scheduler": "scheduler@stage.scheduler=NAME",
    "stage": "recipes: how to optimise, for all stages that do not say otherwise",
    "tracker": "where a run is shown besides its folder",
}


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument(
        "kind", nargs="?", help="methods, models, datasets, experiments ...; none: what kinds there are"
    )
    add_config_dirs(parser)


def add_config_dirs(parser: argparse.ArgumentParser) -> None:
    """Adds the argument for folders of the user's own."""
    parser.add_argument(
        "--config-dir",
        "-cd",
        action="append",
        default=[],
        help="a folder with groups of your own, as for an experiment",
    )


def run(arguments: argparse.Namespace) -> int:
    """Prints the kinds, or what there is of one.

    Raises:
        UsageError: There is no such kind, or no such folder.
    """
    check_config_dirs(arguments.config_dir)
    kinds = kinds_of(arguments.config_dir)
    if arguments.kind is None:
        counts = {name: len(options_of(group, arguments.config_dir)) for name, group in kinds.items()}
        print(table([(name, f"{counts[name]:>3}", _WHAT.get(group, "")) for name, group in kinds.items()]))
        print("\nof one: distill list methods; one in full: distill show method=at")
        return 0
    names = {**kinds, **{name: group for name, group in _ALSO.items() if group in kinds.values()}}
    names |= {group: group for group in kinds.values()}
    if arguments.kind not in names:
        raise UsageError(unknown("kind", arguments.kind, kinds))
    print(listed(names[arguments.kind], arguments.config_dir))
    return 0


def check_config_dirs(folders: Sequence[str]) -> None:
    """Refuses folders that are not there.

    Raises:
        UsageError: One is not.
    """
    for folder in folders:
        if not Path(folder).is_dir():
            raise UsageError(f"--config-dir: {folder} is no folder")


def kinds_of(config_dirs: Sequence[str] = ()) -> dict[str, str]:
    """What there is a list of: how it is called -> its group; presets lie in folders, which are no groups apart."""
    found = (group for group in groups(config_dirs) if not group.startswith("experiment/") and group != "hydra")
    return {called(group): group for group in found}


def called(group: str) -> str:
    """What the options of a group are called together."""
    return _CALLED.get(group, f"{group}s")


def listed(group: str, config_dirs: Sequence[str]) -> str:
    """The options of a group: name and what it is; of methods, by year, what they are about, need and gave here."""
    if group == "method":
        return table(methods(config_dirs))
    chosen = [option for mount, option in default_options().items() if mount.partition("@")[0] == group]
    rows = []
    for option in options_of(group, config_dirs):
        file = file_of(group, option, config_dirs)
        told = header_of(file) if file is not None else ""
        rows.append((option, f"{told} (default)".strip() if option in chosen else told))
    return table(rows)


def methods(config_dirs: Sequence[str]) -> list[tuple[str, ...]]:
    """A head and a row for each method; the gain over the student alone is in points, on bundled data sets."""
    measured = gains()
    rows = [("method", "kind", *(f"on {name}" for name in measured), "what it is", "needs", "paper")]
    for method in methods_of(config_dirs):
        told = method.about
        found = [gain.get(method.name) if method.shipped else None for gain in measured.values()]
        given = ["-" if value is None else f"{value:+.1f}" for value in found]
        title = told.title or "(its file has no about.title)"
        rows.append((method.name, told.kind or "-", *given, title, told.needs or "-", told.paper or "-"))
    return rows


def table(rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns; at a terminal lines are cut where it ends."""
    wide = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, wide, strict=True)).rstrip() for row in rows]
    if not sys.stdout.isatty():
        return "\n".join(lines)
    width = shutil.get_terminal_size().columns
    return "\n".join(line if len(line) <= width else f"{line[: width - 1]}…" for line in lines)

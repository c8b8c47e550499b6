"""`distill methods`: the methods there are, and what one of them does."""

import argparse
import shutil
import textwrap
from collections.abc import Sequence
from pathlib import Path

from distill_app.config.methods import Method, methods_of, presets_of, stages_of
from distill_app.errors import UsageError
from distill_app.words import unknown


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument("name", nargs="?", help="one method, in full")
    parser.add_argument(
        "--config-dir",
        "-cd",
        action="append",
        default=[],
        help="a folder with groups of your own, as for an experiment",
    )


def run(arguments: argparse.Namespace) -> int:
    """Prints the list, or one method.

    Raises:
        UsageError: There is no method of that name.
    """
    for folder in arguments.config_dir:
        if not Path(folder).is_dir():
            raise UsageError(f"--config-dir: {folder} is no folder")
    methods = methods_of(arguments.config_dir)
    if arguments.name is None:
        print(listed(methods))
        return 0
    names = {method.name: method for method in methods}
    if arguments.name not in names:
        raise UsageError(unknown("method", arguments.name, names))
    print(described(names[arguments.name], arguments.config_dir))
    return 0


def listed(methods: Sequence[Method]) -> str:
    """A line for each: name, title, paper."""
    rows = [(m.name, m.about.title or "(its file has no about.title)", m.about.paper or "") for m in methods]
    wide = [max(len(row[column]) for row in rows) for column in (0, 1)]
    return "\n".join(f"{name:{wide[0]}}  {title:{wide[1]}}  {paper}".rstrip() for name, title, paper in rows)


def described(method: Method, config_dirs: Sequence[str] = ()) -> str:
    """All that is told of a method, and its stages with the defaults of its config."""
    about, width = method.about, min(120, shutil.get_terminal_size((100, 24)).columns)
    told = {
        "paper": about.paper,
        "learns": about.learns,
        "does": about.does,
        "formula": about.formula,
        "matches": about.matches,
        "know": about.know,
        "run": f"distill method={method.name}",
        "presets": ", ".join(f"experiment={preset}" for preset in presets_of(method.name, config_dirs)),
    }
    lines = [f"{method.name}: {about.title}" if about.title else method.name, ""]
    lines += [_field(key, text, width) for key, text in told.items() if text]
    for stage in stages_of(method.name, config_dirs):
        entries = {"trains": [stage.trains], "minimises": stage.minimises, "through": stage.through}
        lines += ["", f"stage {stage.name}"]
        lines += [_field(key, text, width, indent=2) for key, texts in entries.items() for text in texts]
    return "\n".join(lines)


def _field(key: str, text: str, width: int, *, indent: int = 0) -> str:
    head = f"{' ' * indent}{key:<10}"
    return textwrap.fill(
        text,
        width,
        initial_indent=head,
        subsequent_indent=" " * len(head),
        break_on_hyphens=False,
        break_long_words=False,
    )

"""`distill show method=at`: an option in full, as it is composed, and where every value comes from."""

import argparse
import shutil
import textwrap
from collections.abc import Iterator, Sequence

from distill_app.check.command_line import composition_errors
from distill_app.config.groups import groups
from distill_app.config.methods import Method, methods_of, presets_of, stages_of
from distill_app.config.sources import SCHEMA, Traced, traced
from distill_app.errors import ConfigError, UsageError, is_of_composition
from distill_app.verbs.list import add_config_dirs, check_config_dirs
from distill_app.words import unknown

_WIDEST = 60  # columns of a line beside which its source stands in one column with the others


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument(
        "overrides", nargs="+", metavar="group=option", help="such as method=at, model@student=resnet18"
    )
    parser.add_argument("--all", action="store_true", help="also what nobody has set: the defaults of the schema")
    add_config_dirs(parser)
    parser.epilog = (
        "Every group=option is shown; key=value beside it changes what it is composed with. "
        "The whole config: distill --cfg job"
    )


def run(arguments: argparse.Namespace) -> int:
    """Prints the options.

    Raises:
        UsageError: Nothing that was typed chooses an option.
        ConfigError: It does not compose.
    """
    check_config_dirs(arguments.config_dir)
    known = groups(arguments.config_dir)
    chosen = [override for override in arguments.overrides if _mount(override).partition("@")[0] in known]
    if not chosen:
        first = _mount(arguments.overrides[0])
        raise UsageError(f"{unknown('group', first, known)}; write distill show method=at")
    try:
        found = traced(arguments.overrides, config_dirs=arguments.config_dir)
    except Exception as error:
        if not is_of_composition(error):
            raise
        wrong = composition_errors(error, arguments.overrides, config_dirs=arguments.config_dir, quick=True)
        raise ConfigError(list(wrong)) from error
    texts = []
    for override in chosen:
        mount, option = _mount(override), override.partition("=")[2]
        if mount == "method":
            texts.append(_method(option, arguments.config_dir))
        texts.append(composed(found, mount, whole=arguments.all))
    print("\n\n".join(texts))
    return 0


def _mount(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]


def composed(found: Traced, mount: str, *, whole: bool) -> str:
    """The part of the config that an option is mounted at, with where its values come from; of a preset all of it.

    Args:
        found: The config.
        mount: Of the option.
        whole: Whether to show what nobody has set, too.
    """
    group, _, place = mount.partition("@")
    place = place or ("" if group in ("experiment", "debug") else group.replace("/", "."))
    lines = [line for line in found.shown(place) if not line.key.startswith("method.about")]
    shown = lines if whole else [line for line in lines if line.source != SCHEMA]
    told = {key for line in shown for key in _above(line.key)}  # of sections that have something in them
    texts = [
        ("  " * line.key.count(".") + line.text, line.source + line.resolved if line.source else "")
        for line in lines
        if (line.key in told if not line.source else line in shown)
    ]
    column = min(max((len(text) for text, source in texts if source), default=0), _WIDEST)
    head = [f"{'  ' * number}{name}:" for number, name in enumerate(place.split(".") if place else [])]
    body = [f"{text:<{column}}  # {source}" if source else text for text, source in texts]
    left = len(lines) - len(texts)
    return "\n".join([*head, *body, *([f"# and {left} defaults that nobody changed: --all"] if left else [])])


def _above(key: str) -> Iterator[str]:
    parts = key.split(".")
    return (".".join(parts[:end]) for end in range(1, len(parts)))


def _method(name: str, config_dirs: Sequence[str]) -> str:
    methods = {method.name: method for method in methods_of(config_dirs)}
    return described(methods[name], config_dirs)


def described(method: Method, config_dirs: Sequence[str] = ()) -> str:
    """All that is told of a method, and its stages with the defaults of its config."""
    about, width = method.about, min(120, shutil.get_terminal_size((100, 24)).columns)
    told = {
        "paper": about.paper,
        "kind": about.kind,
        "learns": about.learns,
        "needs": about.needs,
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

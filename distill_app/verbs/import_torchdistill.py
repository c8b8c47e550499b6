"""`distill import-torchdistill`: a config of torchdistill as an experiment of this program."""

import argparse
from collections.abc import Mapping
from pathlib import Path

from distill_app.config.groups import options_of
from distill_app.config.tree import compose
from distill_app.errors import ConfigError, UsageError
from distill_app.migration.experiment import Imported, convert

HEAD = "imported"


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument("file", type=Path, help="a config of torchdistill, of version 0 or 1")
    parser.add_argument("--output", type=Path, default=Path(HEAD), help=f"a folder of configs (default: {HEAD})")
    parser.add_argument("--name", help="of the experiment (default: that of the file)")
    parser.add_argument("--check", action="store_true", help="composes the experiment and checks it, with its data")


def run(arguments: argparse.Namespace) -> int:
    """Writes the files and tells what was left out, and what means something else.

    Returns:
        0, or 1 if something was left out.

    Raises:
        UsageError: No config for classification, a name that cannot be used, or files that are there.
        ConfigError: With --check, what is wrong with the experiment.
    """
    name = arguments.name
    if name is not None and not name.replace("-", "_").isidentifier():
        raise UsageError(f"--name: {name!r} is no name of an experiment; letters, digits, - and _")
    imported = convert(arguments.file, name=name)
    _write(imported, arguments.output)
    print(f"\nto run it: distill --config-dir {arguments.output} experiment={imported.name}")
    _tell("left out", imported.ledger.left_out)
    _tell("means something else here", imported.ledger.differs)
    if arguments.check:
        _check(imported, arguments.output)
    return 1 if imported.ledger.left_out else 0


def _write(imported: Imported, folder: Path) -> None:
    """Writes the files that are not there already, just so; none where one is there with other text."""
    shadowed = [
        name for name in imported.files if Path(name).parts[0] != "experiment" and Path(name).stem in _shipped(name)
    ]
    if shadowed:
        raise UsageError(f"{shadowed[0]} has the name of a file of this package; choose another by --name")
    texts = {folder / name: text for name, text in imported.files.items()}
    other = [path for path, text in texts.items() if path.exists() and path.read_text(encoding="utf-8") != text]
    if other:
        raise UsageError(f"{other[0]} is there and is another one; remove it, or choose another --name or --output")
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(path)


def _shipped(name: str) -> list[str]:
    return options_of(Path(name).parent.as_posix())


def _tell(what: str, found: Mapping[str, str]) -> None:
    if found:
        print(f"\n{what} ({len(found)}):")
        for key, text in found.items():
            print(f"  {key}: {text}")


def _check(imported: Imported, folder: Path) -> None:
    """The whole check of a run; without its data, of all that needs none."""
    from distill_app.check.quick import check
    from distill_app.data.presence import missing_data

    cfg = compose([f"experiment={imported.name}"], config_dirs=[str(folder)])
    errors, absent = list(check(cfg)), missing_data(cfg.dataset)
    if set(errors) - set(absent):
        raise ConfigError(errors)
    print(f"\nchecked but for what needs the data: {'; '.join(absent)}" if absent else "\nchecked: it can run")

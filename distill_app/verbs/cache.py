"""`distill cache list|verify|clear`: what teacher caches there are, whether they are whole, and away with them."""

import argparse
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from distill_app.cache.layout import ARRAYS, layout_of
from distill_app.cache.store import CHECKS, META, TapStore, read_meta
from distill_app.config.schema import CacheConf
from distill_app.errors import CacheError, UsageError
from distill_app.words import size_text

FILES = (META, CHECKS, *(f"{name}.npy" for name in ARRAYS))


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument(
        "action",
        choices=("list", "verify", "clear"),
        help="list them; verify every row against its check; clear them, which costs no more than filling them again",
    )
    parser.add_argument(
        "folder",
        nargs="?",
        default=CacheConf().folder,
        help=f"one cache, or a folder of caches (default: {CacheConf().folder})",
    )


def run(arguments: argparse.Namespace) -> int:
    """Carries out the action.

    Returns:
        The exit code: 1 if damage was found.
    """
    place = Path(arguments.folder)
    caches = list(_caches(place))
    if not caches and (arguments.action != "list" or not place.is_dir()):
        raise UsageError(f"{place} is no cache and holds none")
    return {"list": _list, "verify": _verify, "clear": _clear}[arguments.action](caches)


def _caches(place: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The caches at a place or right below it; links are not followed."""
    for folder in (place, *(sorted(place.iterdir()) if place.is_dir() else ())):
        meta = read_meta(folder)
        if meta is not None and "parts" in meta and (folder == place or not folder.is_symlink()):
            yield folder, meta


def _taps(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    for inside in sorted(folder.iterdir()):
        meta = read_meta(inside)
        if meta is not None and not inside.is_symlink():
            yield inside, meta


def _store(folder: Path, meta: dict[str, Any]) -> TapStore:
    return TapStore(folder, layout=layout_of(meta), salt=str(meta.get("salt", "")), about={}, writable=False)


def _list(caches: list[tuple[Path, dict[str, Any]]]) -> int:
    total = 0
    for folder, meta in caches:
        print(f"{folder}: {_whose(meta)}")
        for inside, about in _taps(folder):
            try:
                store = _store(inside, about)
            except CacheError as error:
                print(f"  {inside.name}: {error}")
                continue
            size = _on_disk(inside)
            total += size
            rows = f"{store.filled():,} of {store.layout.views * store.layout.samples:,} rows"
            print(f"  {inside.name}: {rows} ({store.layout.views} views), {size_text(size)}")
    print(f"{len(caches)} caches, {size_text(total)}")
    return 0


def _whose(meta: Mapping[str, Any]) -> str:
    """The network and the images of a cache, as far as its `meta.json`, which anybody may have written, says."""
    samples = _entry(meta, "parts", "data", "samples")
    target = str(_entry(meta, "parts", "network", "net", "_target_")).rsplit(".", 1)[-1]
    count = f"{samples:,}" if isinstance(samples, int) else "?"
    return f"{meta.get('network')} ({target}) on {_entry(meta, 'parts', 'data', 'name')}, {count} images"


def _entry(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _on_disk(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.iterdir() if path.is_file())


def _verify(caches: list[tuple[Path, dict[str, Any]]]) -> int:
    bad = 0
    for folder, _ in caches:
        for inside, about in _taps(folder):
            try:
                store = _store(inside, about)
                damaged = store.damaged()
                text = f"{store.filled():,} rows, {damaged:,} damaged"
            except CacheError as error:
                damaged, text = 1, str(error)
            bad += damaged
            print(f"{inside}: {text}")
    if bad:
        print("damaged rows are never used: the next run that needs them computes them again", file=sys.stderr)
    return 1 if bad else 0


def _clear(caches: list[tuple[Path, dict[str, Any]]]) -> int:
    """Takes away what the program has written and nothing else; a folder with more in it stays."""
    for folder, _ in caches:
        for inside, _ in _taps(folder):
            _remove(inside)
        for unfinished in folder.glob(".new-*"):
            if not unfinished.is_symlink():
                _remove(unfinished)
        _remove(folder)
        print(f"{'kept, since there is more in it' if folder.exists() else 'cleared'}: {folder}")
    return 0


def _remove(folder: Path) -> None:
    for name in FILES:
        (folder / name).unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()

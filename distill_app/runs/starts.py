"""Which files of weights the networks of a run start from, and of which runs they are: `weights.json`."""

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from distill_app.runs.claim import CONFIG, stored_config
from distill_app.runs.files import read_object, write_json
from distill_app.runs.settings import fingerprint

WEIGHTS = "weights.json"
_LEVELS = 4  # from a file up to the folder of its run: RUN/checkpoints/STAGE/EPOCH/state.pt


def write_starts(output_dir: str | os.PathLike[str], config: Mapping[str, Any]) -> None:
    """Writes down every file that a network's `checkpoint` names, with its hash and the run that it is from.

    What is written stays: a run that goes on has begun with the file as it was then. Without such files nothing is.

    Args:
        output_dir: The run's folder.
        config: Its resolved config.
    """
    place = Path(output_dir) / WEIGHTS
    before = read_object(place) or {}
    found = {}
    for key, file in named_files(config):
        kept = before.get(key)
        same = isinstance(kept, Mapping) and kept.get("file") == str(file)
        found[key] = kept if same else start_of(file)
    if found:
        write_json(place, found)


def named_files(config: Mapping[str, Any]) -> Iterator[tuple[str, Path]]:
    """The files that are there and that networks start from, each with the config key that names it."""
    owners: list[tuple[str, Any]] = [("", config), *((f"{part}.", config.get(part)) for part in ("prelude", "method"))]
    for prefix, owner in owners:
        for name, network in _networks(owner, roles=not prefix):
            checkpoint = network.get("checkpoint") if isinstance(network, Mapping) else None
            if isinstance(checkpoint, str) and (file := _path(checkpoint)).is_file():
                yield f"{prefix}{name}.checkpoint", file


def _networks(owner: Any, *, roles: bool) -> Iterator[tuple[str, Any]]:
    if not isinstance(owner, Mapping):
        return
    yield from ((name, owner.get(name)) for name in (("student", "teacher") if roles else ()))
    extra = owner.get("extra_models")
    yield from ((f"extra_models.{name}", each) for name, each in (extra.items() if isinstance(extra, Mapping) else ()))


def _path(checkpoint: str) -> Path:
    """The absolute path of a checkpoint, which may be a file:// URL."""
    local = unquote(urlparse(checkpoint).path) if checkpoint.startswith("file://") else checkpoint
    return Path(os.path.abspath(os.path.expanduser(local)))


def start_of(file: Path) -> dict[str, Any]:
    """What is recorded of one file: its bytes as a hash, and whose run it is from, where it lies in one."""
    with open(file, "rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    return {"file": str(file), "sha256": digest, **_described(run_of(file))}


def run_of(file: Path) -> Path | None:
    """The folder of the run that a file of weights lies in, None where it lies in none."""
    return next((each for each in list(file.parents)[:_LEVELS] if (each / CONFIG).is_file()), None)


def _described(folder: Path | None) -> dict[str, Any]:
    config = stored_config(folder) if folder is not None else None
    if config is None:
        return {"run": None}
    name = method.get("name") if isinstance(method := config.get("method"), Mapping) else None
    return {"run": str(folder), "settings": fingerprint(config), "seed": config.get("seed"), "method": name}

"""Checkpoints that survive crashes, full disks and flipped bits, and that run no code when loaded.

On disk, below the folder: `<stage>/<epoch>/state.pt` and `manifest.json` (sha256, size, a counter), and marks
such as `distill/best.mark`, small text files that hold the name of a checkpoint. A name that ends in `_step_0000120`
is of a place within an epoch.
"""

import errno
import json
import os
import re
import shutil
import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from distill_app.errors import CheckpointError, SettingError, Unusable
from distill_app.runs.files import remove_leftovers, write_json, write_text
from distill_app.runs.statefile import (
    MANIFEST,
    STATE,
    load_file,
    plain,
    read_state,
    save_weights,
    sync_folder,
    write_state,
)
from distill_app.runs.untrusted import read_text
from distill_app.words import warn

__all__ = ["CheckpointError", "Checkpoints", "load_file", "plain", "save_weights"]
_TEMPORARY, _ASIDE = ".tmp-", ".old"


class Checkpoints:
    """The checkpoints of a run, grouped by stage, with marks.

    `keep` is the number of unmarked checkpoints of whole epochs kept per stage, beside the marked ones: with `last` on
    the newest, keep=1 leaves one to fall back to. Of those within epochs as many are kept, of the epoch under way only.
    One process may save (see `status.run_lock`), any may load.
    """

    def __init__(self, folder: str | os.PathLike[str], *, keep: int = 1) -> None:
        if keep < 0:
            raise SettingError(f"checkpoint.keep is {keep}; it must be 0 or more")
        self.folder = Path(folder)
        self.keep = keep

    def save(self, state: Mapping[str, Any], *, name: str, mark: tuple[str, ...] = ("last",)) -> int:
        """Writes a checkpoint under `name` (`distill/epoch_0003`), then moves the marks, then prunes.

        Returns:
            Its size in bytes.

        Raises:
            CheckpointError: It could not be written; older checkpoints and marks are as they were.
            TypeError: The state holds something other than tensors and plain types.
        """
        target = self._path(name)
        content = plain(state)
        temporary: Path | None = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._remove_leftovers()
            temporary = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=self.folder))
            manifest: dict[str, Any] = {"name": name, "counter": self._next_counter(), "torch": str(torch.__version__)}
            manifest |= write_state(content, temporary / STATE, archive_checksums=False)
            write_json(temporary / MANIFEST, manifest)
            temporary.chmod(0o755)
            sync_folder(temporary)
            _replace_folder(temporary, target)
            for each in mark:
                self._set_mark(each, name)
            self._prune()
        except OSError as error:
            raise CheckpointError(self._describe(error, name)) from error
        finally:
            if temporary is not None:
                shutil.rmtree(temporary, ignore_errors=True)
        return int(manifest["size"])

    def load(self, mark_or_name: str = "last", *, map_location: str | torch.device = "cpu") -> dict[str, Any]:
        """Reads the checkpoint of a mark or name; falls back, with a warning, when its content is damaged.

        The fallback is the newest valid checkpoint of the same stage (for a mark or name that has one), else
        of the run.

        Raises:
            CheckpointError: There is no such mark or name, or no valid checkpoint at all.
        """
        if not self.has(mark_or_name):
            known = ", ".join([*self.marks(), *self.names()]) or "none"
            raise CheckpointError(f"no checkpoint {mark_or_name!r} in {self.folder}; there are: {known}")
        wanted = self._wanted(mark_or_name)
        stage = mark_or_name.rpartition("/")[0]
        others = sorted(
            (name for name in self.names() if name != wanted),
            key=lambda name: (bool(stage) and _stage_of(name) == stage, self._counter(name)),
            reverse=True,
        )
        reasons = []
        for name in ([wanted] if wanted else []) + others:
            try:
                state = read_state(self.folder / name / STATE, map_location=map_location)
            except (Unusable, OSError) as error:
                reasons.append(f"{name}: {error}")
                continue
            if reasons or wanted is None:
                why = "; ".join(reasons) or f"the mark {mark_or_name} is unreadable"
                warn(f"checkpoint {mark_or_name}: {why}; using {name} instead")
            return state
        raise CheckpointError(f"no valid checkpoint in {self.folder}: {'; '.join(reasons)}")

    def has(self, mark_or_name: str) -> bool:
        """Whether there is such a mark or checkpoint (its content is verified by `load`)."""
        return self._mark_file(mark_or_name).is_file() or self._path(mark_or_name).is_dir()

    def resolve(self, mark: str) -> str | None:
        """The name that a mark stands for; None where it is missing or damaged."""
        try:
            name, _, digest = read_text(self._mark_file(mark)).strip().partition("\n")
            self._path(name)
        except (OSError, ValueError):
            return None
        return name if digest in ("", _digest(name)) else None

    def names(self) -> list[str]:
        """All checkpoints, oldest first."""
        found = []
        for file in self.folder.glob("**/" + MANIFEST):
            name = file.parent.relative_to(self.folder).as_posix()
            if not name.startswith(_TEMPORARY) and name != ".":
                found.append(name)
        return sorted(found, key=lambda name: (self._counter(name), name))

    def marks(self) -> list[str]:
        """All marks."""
        files = (file.relative_to(self.folder) for file in self.folder.glob("**/*.mark"))
        return sorted(file.with_suffix("").as_posix() for file in files)

    def _path(self, name: str) -> Path:
        parts = PurePosixPath(name).parts
        if not parts or name.startswith(("/", ".")) or ".." in parts or "\\" in name or not name.isprintable():
            raise ValueError(f"{name!r} is no checkpoint name; names look like distill/epoch_0003")
        return self.folder.joinpath(*parts)

    def _mark_file(self, mark: str) -> Path:
        path = self._path(mark)
        return path.with_name(path.name + ".mark")

    def _wanted(self, mark_or_name: str) -> str | None:
        if self._mark_file(mark_or_name).is_file():
            return self.resolve(mark_or_name)
        return mark_or_name

    def _set_mark(self, mark: str, name: str) -> None:
        file = self._mark_file(mark)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, f"{name}\n{_digest(name)}\n")

    def _counter(self, name: str) -> int:
        try:
            return int(json.loads(read_text(self.folder / name / MANIFEST))["counter"])
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
            return -1

    def _next_counter(self) -> int:
        return 1 + max((self._counter(name) for name in self.names()), default=-1)

    def _prune(self) -> None:
        marked = {self.resolve(mark) for mark in self.marks()}
        unmarked: dict[tuple[str, bool], list[str]] = {}
        for name in self.names():
            if name not in marked:
                unmarked.setdefault((_stage_of(name), _is_within_epoch(name)), []).append(name)
        newest = {_stage_of(name): name for name in self.names() if not _is_within_epoch(name)}
        for (stage, within), names in unmarked.items():
            over = [name for name in names if within and self._counter(name) < self._counter(newest.get(stage, ""))]
            for name in {*over, *names[: len(names) - self.keep]}:
                shutil.rmtree(self.folder / name, ignore_errors=True)

    def _remove_leftovers(self) -> None:
        for folder in self.folder.glob(_TEMPORARY + "*"):
            shutil.rmtree(folder, ignore_errors=True)
        for aside in self.folder.glob(f"**/*{_ASIDE}"):
            if aside.with_suffix("").is_dir():
                shutil.rmtree(aside, ignore_errors=True)
        remove_leftovers(*self.folder.glob("**/"))

    def _describe(self, error: OSError, name: str) -> str:
        what = f"cannot save checkpoint {name} in {self.folder}: {error.strerror or error}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            what += f" ({shutil.disk_usage(self.folder).free / 1e6:.0f} MB free)"
        return f"{what}; earlier checkpoints are intact: make room or make it writable, then resume the run"


def _replace_folder(temporary: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(target.name + _ASIDE)
    if target.exists():
        # Folders are not replaced in one step; between the two the old one is a checkpoint named .old.
        shutil.rmtree(aside, ignore_errors=True)
        os.rename(target, aside)
    try:
        os.rename(temporary, target)
    except OSError:
        if aside.exists():
            os.rename(aside, target)
        raise
    sync_folder(target.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _digest(name: str) -> str:
    """Of the name in a mark, so that a flipped bit makes it no name of another checkpoint."""
    return f"{zlib.crc32(name.encode()):08x}"


def _is_within_epoch(name: str) -> bool:
    return re.search(r"_step_\d+(\.old)?$", name) is not None


def _stage_of(name: str) -> str:
    return name.rpartition("/")[0]

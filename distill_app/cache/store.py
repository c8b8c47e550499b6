"""The store of the teacher cache: one folder per fingerprint, in it one folder per tap. Imports no torch.

    outputs/cache/<fingerprint>/meta.json            whose outputs, of which images: the fingerprint's parts, readable
    outputs/cache/<fingerprint>/<tap>-<hash>/
        meta.json                                    shapes and types
        values.npy                                   float16 (views, samples, *shape)
        indices.npy                                  with top_k only: the classes that the values are of
        checks.npy                                   uint32 (views, samples): 0 says not there, else the checksum

A row belongs to a view and to an image, by its index in the unsplit data set: label budgets, stages and runs share it.
The checksum covers the row's bytes and starts from the fingerprint and the row's place, so that neither damage nor a
row of elsewhere passes. Any number of processes may fill a folder: it appears whole or not at all, a row's check is
written last, and whoever writes a row writes the same, to rounding; a mixture of two fails its check. Ranks have
disjoint rows.
"""

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from distill_app.cache.checksum import Checksum
from distill_app.cache.layout import Layout, at_once, block_size, count_of, files_of, touched
from distill_app.errors import CacheError, IrregularFile
from distill_app.runs.files import read_object, to_json, write_json
from distill_app.runs.untrusted import open_regular

KIND = "distill-app teacher cache"
META, CHECKS = "meta.json", "checks.npy"


def digest(value: Any, *, size: int = 8) -> str:
    """A short hash of plain values, the same in every process."""
    return hashlib.blake2b(to_json(_sorted(value)).encode(), digest_size=size).hexdigest()


def _sorted(value: Any) -> Any:
    """The same with keys in order, so that the order in a file plays no part."""
    if isinstance(value, Mapping):
        return {str(key): _sorted(value[key]) for key in sorted(value, key=str)}
    return [_sorted(item) for item in value] if isinstance(value, list | tuple) else value


class Records(NamedTuple):
    """What reading rows gave: array name -> (B, *shape), which rows are good, and how many failed their check."""

    arrays: dict[str, np.ndarray] | None
    good: np.ndarray
    damaged: int = 0


class TapStore:
    """The records of one tap.

    Args:
        folder: Where they lie; made if it is not there.
        layout: What a row looks like.
        salt: What the checks start from: the fingerprint and the tap.
        about: Further entries of its `meta.json`.
        sparse: Few of the rows will be written.
        writable: False opens what is there for reading alone.

    Raises:
        CacheError: What is there has another layout.
        OSError: It cannot be made or opened.
    """

    def __init__(
        self,
        folder: Path,
        *,
        layout: Layout,
        salt: str,
        about: Mapping[str, Any],
        sparse: bool = False,
        writable: bool = True,
    ):
        self.folder, self.layout, self._block = folder, layout, block_size(sparse)
        if writable:
            _create(folder, layout, {**about, "salt": salt})
        self.writable = writable and os.access(folder / CHECKS, os.W_OK)
        self._handles: dict[str, int] = {}
        self._taken: dict[str, np.ndarray] = {}  # which blocks this process knows to have their room
        self._offsets: dict[str, int] = {}
        self._arrays = {name: self._open(name, *kind_and_shape) for name, kind_and_shape in files_of(layout)}
        self._checks = self._arrays.pop("checks")
        sizes = {name: np.dtype(kind).itemsize * count_of(shape) for name, (kind, shape) in layout.arrays.items()}
        self._checksum = Checksum(salt, sizes)

    def _open(self, name: str, kind: str, shape: tuple[int, ...]) -> np.ndarray:
        path = self.folder / f"{name}.npy"
        try:
            with open_regular(path, writable=self.writable) as file:
                offset = _header_end(file, kind=kind, shape=shape)
                if os.fstat(file.fileno()).st_size < (size := offset + np.dtype(kind).itemsize * count_of(shape)):
                    if not self.writable:
                        raise ValueError("the end is missing")
                    file.truncate(size)  # what is missing then reads as zeros, which pass no check
                if self.writable and not at_once(size):
                    self._handles[name] = os.dup(file.fileno())
                    self._taken[name] = np.zeros(-(-size // self._block), dtype=bool)
                self._offsets[name] = offset
                mode = "r+" if self.writable else "r"
                # As a plain array: indexing is slower in the subclass.
                return np.asarray(np.memmap(file, dtype=kind, mode=mode, offset=offset, shape=shape))  # type: ignore[call-overload]
        except (ValueError, FileNotFoundError, PermissionError, IrregularFile) as error:
            raise CacheError(
                f"cache: {path}: {error}; to begin anew: distill cache clear {self.folder.parent}"
            ) from error

    def read(self, view: int, rows: np.ndarray) -> "Records":
        """The records of some images in one view.

        Args:
            view: Counted from 0.
            rows: int64 (B,), indices in the unsplit data set.

        Returns:
            The records; without arrays unless every row is there and undamaged.
        """
        checks = self._checks[view].take(rows)
        there = checks != 0
        if not there.all():
            return Records(None, there)
        arrays = {name: array[view].take(rows, axis=0) for name, array in self._arrays.items()}
        good = checks == self._checksum(self._places(view, rows), arrays)
        return Records(arrays, good) if good.all() else Records(None, good, damaged=int((~good).sum()))

    def write(self, view: int, rows: np.ndarray, arrays: Mapping[str, np.ndarray]) -> None:
        """Stores records; the check of a row last, so that half a row is none.

        Raises:
            OSError: The disk is full, or the like.
        """
        stored = {name: np.ascontiguousarray(arrays[name], dtype=array.dtype) for name, array in self._arrays.items()}
        checks = self._checksum(self._places(view, rows), stored)
        for name, data in {**stored, "checks": checks}.items():
            self._write_rows(name, view, rows, data)

    def _places(self, view: int, rows: np.ndarray) -> np.ndarray:
        return view * self.layout.samples + rows.astype(np.int64)

    def _write_rows(self, name: str, view: int, rows: np.ndarray, data: np.ndarray) -> None:
        store = self._checks if name == "checks" else self._arrays[name]
        if name in self._handles:
            self._take_room(name, self._places(view, rows), data.itemsize * count_of(data.shape[1:]))
        store[view][rows] = data

    def _take_room(self, name: str, places: np.ndarray, size: int) -> None:
        """A write into a map kills the process when the disk is full; asking for the room is an error instead."""
        taken, handle, block = self._taken[name], self._handles[name], self._block
        lie_in = touched(self._offsets[name] + places * size, size, block)
        missing = lie_in[~taken[lie_in]]
        if not len(missing):
            return
        end = os.fstat(handle).st_size
        for number in set(missing.tolist()):
            os.posix_fallocate(handle, number * block, min(block, end - number * block))
            taken[number] = True

    def filled(self, rows: np.ndarray | None = None) -> int:
        """How many rows are there in all views, of some images or of all."""
        return int(np.count_nonzero(self._checks if rows is None else self._checks[:, rows]))

    def damaged(self) -> int:
        """How many rows are there and do not pass their check; reads all of them."""
        bad = 0
        for view in range(self.layout.views):
            present = np.flatnonzero(self._checks[view])
            for part in np.array_split(present, max(1, len(present) // 4096)):
                bad += self.read(view, part).damaged
        return bad

    def close(self) -> None:
        """Gives the files back; rows can be read still."""
        for handle in self._handles.values():
            os.close(handle)
        self._handles, self.writable = {}, False


def _header_end(file: BinaryIO, *, kind: str, shape: tuple[int, ...]) -> int:
    """Where the values of an array begin.

    Raises:
        ValueError: It is no file of NumPy's, or an array of another type or shape.
    """
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("not version 1.0 of the format")
    there, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    if (there, fortran, dtype) != (shape, False, np.dtype(kind)):
        raise ValueError(f"holds {dtype} {there}, expected {kind} {shape}")
    return file.tell()


def _create(folder: Path, layout: Layout, about: Mapping[str, Any]) -> None:
    """Makes the files, large ones of holes, under another name and renames them: nobody sees half of them."""
    if folder.is_dir():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".new-"))
    try:
        os.chmod(made, folder.parent.stat().st_mode & 0o7777)
        for name, (kind, shape) in files_of(layout):
            path = made / f"{name}.npy"
            offset = np.lib.format.open_memmap(path, mode="w+", dtype=kind, shape=shape, version=(1, 0)).offset
            if at_once(size := path.stat().st_size):
                with open(path, "r+b") as file:
                    file.seek(offset)
                    file.write(bytes(size - offset))
        write_json(made / META, {"kind": KIND, **about, **asdict(layout), "row_bytes": layout.row_bytes})
        made.rename(folder)
    except OSError:
        if not folder.is_dir():  # else another process was first, with the same
            raise
    finally:
        shutil.rmtree(made, ignore_errors=True)


def tap_folder(tap: str, *, spec: Any, layout: Layout) -> str:
    """The name of a tap's folder: readable, and different for another module path or another way to store it."""
    return f"{re.sub(r'[^A-Za-z0-9_.-]', '_', tap)}-{digest([tap, spec, layout.arrays], size=4)}"


def read_meta(folder: Path) -> dict[str, Any] | None:
    """What the `meta.json` of a cache, or of a tap in it, says; None where there is none of ours."""
    meta = read_object(folder / META)
    return meta if meta is not None and meta.get("kind") == KIND else None


def differences(needed: Any, there: Any, path: str = "") -> list[str]:
    """The parts in which two fingerprints differ: `path: there is x, needed is y`."""
    if isinstance(needed, Mapping) and isinstance(there, Mapping):
        keys = dict.fromkeys([*needed, *there])
        prefix = f"{path}." if path else ""
        return [text for key in keys for text in differences(needed.get(key), there.get(key), f"{prefix}{key}")]
    return [] if needed == there else [f"{path}: there is {_short(there)}, needed is {_short(needed)}"]


def _short(value: Any) -> str:
    text = to_json(value)
    return text if len(text) <= 100 else f"{text[:97]}..."

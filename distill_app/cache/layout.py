"""What the records of a tap look like, and how much room they take on a disk. Imports no torch."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from distill_app.errors import CacheError

ARRAYS = ("values", "indices")
KINDS = {"<f2", "<u2", "<u4"}
CHECK_BYTES = 4
LARGEST_ROW = 2**30  # of what meta.json may claim: more than anybody keeps of an image
ALLOCATED = 2**26  # files up to here take their room at once
# Larger ones take it in pieces, when a row in one is first written: large pieces where most rows will come, and those
# of file systems where few will, which lie apart.
BLOCK, SMALL_BLOCK = 2**16, 2**12


@dataclass(frozen=True)
class Layout:
    """What the records of a tap look like: array name -> numpy type and shape of a row."""

    views: int
    samples: int
    arrays: dict[str, tuple[str, tuple[int, ...]]]

    @property
    def row_bytes(self) -> int:
        """Bytes of one row with its check."""
        return CHECK_BYTES + sum(np.dtype(kind).itemsize * count_of(shape) for kind, shape in self.arrays.values())


def count_of(shape: Sequence[int]) -> int:
    """How many values an array of this shape has."""
    return math.prod(shape)


def at_once(size: int) -> bool:
    """Whether a file of this size takes its room when it is made."""
    return size <= ALLOCATED


def block_size(sparse: bool) -> int:
    """In which pieces a large file takes its room."""
    return SMALL_BLOCK if sparse else BLOCK


def touched(begin: np.ndarray, size: int, block: int) -> np.ndarray:
    """The blocks that rows lie in: those of every `block`-th of a row's bytes and of its last one."""
    return np.concatenate([(begin + step) // block for step in (*range(0, size, block), size - 1)])


def room_of(layout: Layout, rows: np.ndarray, *, sparse: bool, taken: bool = True) -> int:
    """Bytes that some images take on the disk in all views, which is more than their rows where these lie apart.

    Args:
        layout: Of the tap.
        rows: int64 (N,), indices in the unsplit data set.
        sparse: As the store is opened.
        taken: With the files that have had their room since they were made.
    """
    total, block = 0, block_size(sparse)
    for _, (kind, shape) in files_of(layout):
        size = np.dtype(kind).itemsize * count_of(shape[2:])
        whole = size * layout.views * layout.samples
        if not at_once(whole) and len(rows) < layout.samples:
            begin = np.sort(rows) * size
            first, last = begin // block, (begin + size - 1) // block
            shared = np.count_nonzero(first[1:] == last[:-1])
            whole = min(whole, layout.views * block * int((last - first + 1).sum() - shared))
        if len(rows) and (taken or not at_once(size * layout.views * layout.samples)):
            total += whole
    return total


def files_of(layout: Layout) -> Iterator[tuple[str, tuple[str, tuple[int, ...]]]]:
    """Every file of a tap: name -> type and shape."""
    for name, (kind, shape) in layout.arrays.items():
        yield name, (kind, (layout.views, layout.samples, *shape))
    yield "checks", ("<u4", (layout.views, layout.samples))


def layout_of(meta: Mapping[str, Any]) -> Layout:
    """The layout that a tap's `meta.json` claims; the files are held against it when they are opened."""
    try:
        arrays = {name: (str(kind), tuple(map(int, shape))) for name, (kind, shape) in meta["arrays"].items()}
        layout = Layout(int(meta["views"]), int(meta["samples"]), arrays)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise CacheError(f"cache: meta.json is damaged ({error})") from error
    numbers = [layout.views, layout.samples, *(size for _, shape in arrays.values() for size in shape)]
    if not set(arrays) <= set(ARRAYS) or min(numbers) < 0 or not {kind for kind, _ in arrays.values()} <= KINDS:
        raise CacheError("cache: meta.json claims arrays that no cache has")
    if layout.row_bytes > LARGEST_ROW:
        raise CacheError(f"cache: meta.json claims rows of {layout.row_bytes:,} bytes")
    return layout

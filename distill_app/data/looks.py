"""A look at some items of a data set, before anything is trained on them."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from distill_app.data.samples import Samples
from distill_app.errors import CorruptImageError, DataError
from distill_app.seeds import generator_kept

_READ = 16
_SIZED = 8


def some_items(dataset: Any) -> Iterator[tuple[int, Any, Any]]:
    """Number, image and target of some items that lie evenly in a data set; random numbers stay as they were.

    Those that cannot be read are left out: what becomes of them is the business of `runtime.corrupt_images`.

    Raises:
        DataError: Of an item, where its data set says what is wrong with all of them.
    """
    positions = np.unique(np.linspace(0, len(dataset) - 1, min(_READ, len(dataset))).astype(int)).tolist()
    with generator_kept():
        for index in positions:
            try:
                item = dataset[index]
            except DataError:
                raise
            except (OSError, ValueError, SyntaxError, RuntimeError):
                continue
            image, target = (item["input"], item["target"]) if isinstance(item, Mapping) else item[:2]
            yield index, image, target


def sizes_behind(samples: Samples, *, views: int = 1) -> list[tuple[int, int]]:
    """Height and width of some images behind the transforms, in each of some views.

    They lie evenly in the split, and the largest and smallest that the data set knows of are among them. Those that
    cannot be read are left out.
    """
    sizes: list[tuple[int, int]] = []
    for position in _positions(samples):
        for view in range(views):
            try:
                found = samples.__getitems__([(position, view)])
            except CorruptImageError:  # the business of `runtime.corrupt_images`
                break
            sizes += [tuple(sample["input"].shape[-2:]) for sample in found]
    return sizes


def _positions(samples: Samples) -> list[int]:
    count = len(samples)
    chosen = {*np.linspace(0, count - 1, min(_SIZED, count)).astype(int).tolist()}
    if (known := getattr(samples.dataset, "sizes", None)) is not None:
        sides = np.array([known[index] for index in samples.indices]).reshape(count, -1)
        chosen |= {*sides.argmax(axis=0).tolist(), *sides.argmin(axis=0).tolist()} if count else set()
    return sorted(chosen)

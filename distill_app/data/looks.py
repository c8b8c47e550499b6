"""A look at some items of a data set, before anything is trained on them."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from distill_app.errors import DataError
from distill_app.seeds import generator_kept

_READ = 16


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

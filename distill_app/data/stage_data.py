"""The data of one stage: its loaders, and what its losses may ask for."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.utils.data import default_collate

from distill_app.data.loading import Loader, with_place
from distill_app.data.order import Order
from distill_app.data.resident import ResidentLoader
from distill_app.errors import CorruptImageError, DistillError
from distill_app.seeds import generator_kept


@dataclass
class StageData:
    """Loaders of a stage, and what its losses may ask for."""

    task: Any
    train: Loader | ResidentLoader
    order: Order
    judge: Loader | ResidentLoader
    judged_on: str  # validation, or test where nothing is held out
    labels: np.ndarray | None  # of the training samples, in their order; None where samples have no single label
    indices: np.ndarray  # of the training samples in the underlying data set
    collate: Callable[[list[Any]], Any] = default_collate
    identity: dict[str, Any] = field(default_factory=dict)

    def example_batch(self, task: Any, *, device: torch.device, count: int = 2) -> dict[str, Any]:
        """The first training samples, as a task prepares them."""
        return self._first(self.train.dataset, task, device=device, count=count)

    def example_to_judge(self, *, device: torch.device, count: int = 2) -> dict[str, Any]:
        """The first samples of the split that judges epochs, prepared."""
        return self._first(self.judge.dataset, self.task, device=device, count=count)

    def one_by_one(self, *, device: torch.device, count: int) -> Iterator[dict[str, Any]]:
        """The first samples of the split that judges epochs, prepared, each as a batch of its own."""
        return one_by_one(self.judge.dataset, self.task, collate=self.collate, device=device, count=count)

    def sample_images(self, count: int) -> torch.Tensor | None:
        """The first training images as the first epoch shows them, uint8 (N, 3, H, W); None where inputs are others.

        Nothing depends on them, so that an image that cannot be read is no reason to end.
        """
        samples: Any = self.train.dataset
        chosen = [(position, 0) for position in range(min(count, len(samples)))]
        try:
            with generator_kept():
                batch = self.collate(samples.__getitems__(chosen))
        except DistillError:
            return None
        images = batch.get("input") if isinstance(batch, Mapping) else None
        if not isinstance(images, torch.Tensor) or images.dtype != torch.uint8:
            return None
        images = images.flatten(0, 1)[:count] if images.dim() == 5 else images
        return images if images.dim() == 4 and images.shape[1] == 3 else None

    def _first(self, samples: Any, task: Any, *, device: torch.device, count: int) -> dict[str, Any]:
        keys = [(position % len(samples), 0) for position in range(count)]
        loaded = samples.__getitems__(keys)
        if not loaded:
            raise CorruptImageError("none of the first images can be read")
        batch = self.collate(loaded)
        return prepared(with_place(batch, view=0), task, device=device)

    def arguments(self, *, num_classes: int) -> dict[str, Any]:
        """What constructors of losses and adapters may ask for by name."""
        labels = {} if self.labels is None else {"labels": self.labels}
        return {
            "num_classes": num_classes,
            "num_samples": len(self.indices),
            "sample_indices": self.indices,
            **labels,
        }


def prepared(batch: Mapping[str, Any], task: Any, *, device: torch.device) -> dict[str, Any]:
    """A batch of a loader as its task prepares it, with its place kept for the host."""
    return {**task.prepare(batch, device=device), "view": batch["view"], "rows": batch["rows"]}


def one_by_one(
    samples: Any, task: Any, *, collate: Callable[[list[Any]], Any], device: torch.device, count: int
) -> Iterator[dict[str, Any]]:
    """The first samples, prepared, each as a batch of its own; those that cannot be read and are left out are not."""
    for position in range(min(count, len(samples))):
        if loaded := samples.__getitems__([(position, 0)]):
            yield prepared(with_place(collate(loaded), view=0), task, device=device)

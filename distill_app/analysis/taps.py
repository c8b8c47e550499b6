"""The activations of two networks beside each other, over a sample of the data."""

from collections.abc import Mapping
from contextlib import ExitStack, closing
from typing import Any

import torch
from torch import Tensor

from distill_app.analysis.similarity import LEAST, Alignment
from distill_app.networks.modes import evaluating
from distill_app.networks.network import Network
from distill_app.seeds import permutation
from distill_app.tasks.base import Task

IMAGES = 1024  # at most, evenly from all batches: a test set of folders is in the order of its classes
_BATCH = 128


class Sample:
    """Some of the samples of a data set, in random order.

    Args:
        batches: What they will be taken from; without a length, its first ones are.
    """

    def __init__(self, batches: Any):
        count = len(batches) if hasattr(batches, "__len__") else 1
        self._quota = max(1, -(-IMAGES // max(1, count)))
        self._parts: list[dict[str, Tensor]] = []
        self._count = 0

    def add(self, raw: Mapping[str, Any]) -> None:
        """Takes some samples of a batch; of what is not one tensor row for each sample nothing is taken."""
        size = len(raw["target"])
        chosen = torch.as_tensor(permutation(size, "sample", self._count)[: self._quota].copy())
        rows = {key: value for key, value in raw.items() if isinstance(value, Tensor) and len(value.shape) > 0}
        if "input" in rows and self._count < IMAGES + self._quota:
            part = {key: value[chosen.to(value.device)].cpu() for key, value in rows.items() if len(value) == size}
            self._parts.append(part)
            self._count += len(chosen)

    def batches(self) -> list[dict[str, Tensor]]:
        """The samples in batches.

        Raises:
            ValueError: There are too few.
        """
        if self._count < LEAST:
            raise ValueError(f"{self._count} samples that are tensors, and {LEAST} are needed")
        whole = {key: torch.cat([part[key] for part in self._parts]) for key in self._parts[0]}
        order = torch.as_tensor(permutation(self._count, "sample order").copy())
        return [{key: value[rows] for key, value in whole.items()} for rows in order.split(_BATCH)]


def similarity(
    task: Task, network: Network, teacher: Network, sample: Sample, *, device: torch.device
) -> dict[str, Any]:
    """CKA of every tap of a network with every tap of its teacher.

    Taps in front of an activation (`stage1_pre`) say nearly the same as those behind it and are left out, and so are
    those that hold several tensors.

    Args:
        task: Prepares batches and calls networks.
        network: The student: its taps are rows.
        teacher: Its taps are columns.
        sample: Of the data.
        device: Where to run.

    Raises:
        TapError: A tap that cannot be read.
        ValueError: There are too few samples.
    """
    found: Alignment | None = None
    with ExitStack() as opened:
        tapped = [_opened(opened, each) for each in (network, teacher)]
        for raw in sample.batches():
            batch = task.prepare(raw, device=device)
            both = [
                task.call(hooked, batch, name=each.name)
                for hooked, each in zip(tapped, (network, teacher), strict=True)
            ]
            if found is None:
                found = Alignment(*(_tensors(values, len(raw["target"])) for values in both))
            found.add(*both)
    assert found is not None  # there is a batch, or the sample has refused
    return {"rows": found.rows, "columns": found.columns, "cka": found.values(), "images": found.count}


def _opened(stack: ExitStack, network: Network) -> Any:
    # Small networks have one module under several names.
    first = {spec: name for name, spec in reversed(network.taps.items()) if not name.endswith("_pre")}
    names = [name for name in network.taps if name in first.values()]
    stack.enter_context(evaluating(network.module))
    return stack.enter_context(closing(network.tapped(names, stage="evaluation"))).eval()


def _tensors(values: Mapping[str, Any], size: int) -> list[str]:
    return [name for name, value in values.items() if isinstance(value, Tensor) and len(value) == size]

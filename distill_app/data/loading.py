"""The loader of one stage: workers, pinned memory, and an error that says what to do when a worker dies."""

import os
import signal
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.data import DataLoader, default_collate

from distill_app.data.order import Order
from distill_app.errors import CorruptImageError, DataError, WorkerDied

_END: Any = object()


class Loader(DataLoader):
    """A DataLoader whose errors are for the user to read.

    Attributes:
        how: how the images are loaded, for the plan.
    """

    how = "sample by sample"

    @property
    def will_fork(self) -> bool:
        """Whether the next iteration starts the processes that load."""
        return self.num_workers > 0 and self._iterator is None

    def close(self) -> None:
        """Ends the workers; left to the garbage collector, each is waited for in turn for seconds."""
        if self._iterator is not None and self.num_workers:
            self._iterator._shutdown_workers()  # type: ignore[attr-defined]
        self._iterator = None

    def __iter__(self) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        view = self.batch_sampler.view  # type: ignore[union-attr]
        try:
            batches = super().__iter__()
            while True:
                with deaths_told(self.num_workers, loading=True):
                    batch = next(batches, _END)
                if batch is _END:
                    return
                if batch is not None:
                    yield with_place(batch, view=view)
        except (CorruptImageError, DataError) as error:
            # From a worker it arrives with the worker's traceback in its text.
            raise type(error)(str(error).rstrip().rsplit(f"{type(error).__name__}: ", 1)[-1]) from error
        except (TypeError, RuntimeError) as error:
            if _is_of_collate(error):
                raise DataError(_uncollated(error)) from error
            raise


@contextmanager
def deaths_told(num_workers: int, *, loading: bool = False) -> Iterator[None]:
    """Says what to do about a process that loads data and has died: torch raises that wherever the main one is.

    Args:
        num_workers: How many there are.
        loading: Whether nothing is done inside but to wait for them, so that a broken line is one to them.

    Raises:
        WorkerDied: One has.
    """
    try:
        yield
    except (RuntimeError, ConnectionError, EOFError) as error:
        # So says the process that has lost it; a worker's own errors come as "in DataLoader worker process".
        broken = loading and num_workers and isinstance(error, ConnectionError | EOFError)
        lost = broken or "DataLoader worker (pid" in str(error)
        if not lost or "in DataLoader worker process" in str(error) or isinstance(error, WorkerDied):
            raise
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise WorkerDied(
            f"runtime.num_workers={num_workers}: a data loading worker died ({reason}). "
            "Killed usually means out of memory (use fewer workers), a bus error too little /dev/shm; "
            "runtime.num_workers=0 shows the worker's own error"
        ) from error


def with_place(batch: dict[str, Any], *, view: int) -> dict[str, Any]:
    """The batch, and for the host in which `view` it shows which `rows` of the underlying data set, int64 (B,)."""
    return {**batch, "view": view, "rows": batch["index"].numpy()}


def _is_of_collate(error: Exception) -> bool:
    """Whether samples could be loaded and not be put together; an error of a worker has its traceback as text."""
    frames = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
    return "default_collate" in frames or "in default_collate" in str(error)


def _uncollated(error: Exception) -> str:
    reason = str(error).rstrip().splitlines()[-1].removeprefix(f"{type(error).__name__}: ")
    if "equal size" in reason or "not resizable" in reason:
        return (
            f"dataset: images, or what wrappers add to them, come out in several sizes ({reason}); end the transforms "
            f"of the data set with one that gives one size, such as torchvision.transforms.v2.RandomResizedCrop"
        )
    return f"dataset: what the samples of a batch hold, labels or other things, is not of one kind: {reason}"


class Collate:
    """A collate function that is not torch's own: its batches keep the indices of their samples, and are dicts.

    Args:
        function: Makes a batch of a list of samples.
        key: Config key of where it comes from, for messages.
    """

    def __init__(self, function: Callable[[list[Any]], Any], *, key: str):
        self.function, self.key = function, key

    def __call__(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        """One batch.

        Raises:
            DataError: It is no dict with `input` and `target`.
        """
        batch = self.function(samples)
        if not isinstance(batch, Mapping) or not {"input", "target"} <= batch.keys():
            what = f"the keys {sorted(map(str, batch))}" if isinstance(batch, Mapping) else type(batch).__name__
            raise DataError(f"{self.key}: a batch is a dict with the keys input and target; it returned {what}")
        index = torch.tensor([sample["index"] for sample in samples])
        return {"index": index, **batch}


class _WhatIsThere:
    """Collates a batch of which samples may be missing; of none at all there is no batch."""

    def __init__(self, collate: Callable[[list[Any]], Any]):
        self._collate = collate

    def __call__(self, samples: list[Any]) -> Any:
        return self._collate(samples) if samples else None


def make_loader(
    samples: Any,
    *,
    order: Order,
    num_workers: int,
    device: torch.device,
    collate: Callable[[list[Any]], Any] = default_collate,
) -> Loader:
    """A loader of collated batches, in the given order.

    Args:
        samples: `Samples` or a wrapper of it.
        order: where each epoch's keys come from; call its `set_epoch` before iterating.
        num_workers: processes that load; they live as long as the loader. 0: this process loads.
        device: where the batches will go; memory is pinned for cuda only.
        collate: makes a batch of a list of samples.
    """
    leaves_out = getattr(samples, "corrupt", "") == "leave_out"
    return Loader(
        samples,
        collate_fn=_WhatIsThere(collate) if leaves_out else collate,
        batch_sampler=order,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=device.type == "cuda",
        worker_init_fn=_quiet_worker,
        # DataLoader draws a seed for its workers each epoch, by default from torch's global generator.
        generator=torch.Generator().manual_seed(0),
    )


def _quiet_worker(worker: int) -> None:
    """Leaves signals to the main process, and one core to each worker.

    Schedulers and terminals signal the whole process group. A worker killed by SIGTERM would raise in the
    middle of the main process's last step; one that exits with 0 does not, and torch can still terminate it.
    """
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(0))
    for number in (signal.SIGHUP, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)

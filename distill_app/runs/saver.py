"""Saves checkpoints beside the training: it waits for a copy of the tensors, and for the disk only in the next save."""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from distill_app.errors import CheckpointError
from distill_app.runs.checkpoint import Checkpoints
from distill_app.runs.statefile import plain
from distill_app.words import size_text, warn


class Saver:
    """Writes one checkpoint at a time, in a thread of its own.

    Args:
        checkpoints: Where they go.
        note: Is told of each one that has been written, with its size and how long that took.
    """

    def __init__(self, checkpoints: Checkpoints, *, note: Callable[[str], None]):
        self.checkpoints, self._note = checkpoints, note
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="save")
        self._pending: Future[str] | None = None

    def save(self, state: Mapping[str, Any], *, name: str, mark: tuple[str, ...], wait: bool = False) -> None:
        """Takes a copy of a state and writes it.

        Args:
            state: Tensors and plain types.
            name: Of the checkpoint.
            mark: What stands for it from then on.
            wait: Until it is on the disk.

        Raises:
            CheckpointError: It could not be written, or the one before it could not.
        """
        self.finish()
        began = time.perf_counter()
        content = copied(plain(state))
        copying = time.perf_counter() - began
        self._pending = self._thread.submit(self._write, content, name, mark, copying)
        if wait:
            self.finish()

    def _write(self, content: Any, name: str, mark: tuple[str, ...], copying: float) -> str:
        began = time.perf_counter()
        size = self.checkpoints.save(content, name=name, mark=mark)
        writing = time.perf_counter() - began
        return f"saved {name}: {size_text(size)}, copied in {copying:.2f} s, written in {writing:.2f} s"

    def finish(self) -> None:
        """Waits for what is being written.

        Raises:
            CheckpointError: It could not be written.
        """
        pending = self._pending
        if pending is not None:
            try:
                told = pending.result()
            except CheckpointError:
                self._pending = None
                raise
            self._pending = None  # not before: a signal may end the waiting
            self._note(told)

    def close(self) -> None:
        """Waits, and ends the thread; what could not be written is a warning, since another error may be on its way."""
        self._thread.shutdown(wait=True)
        pending, self._pending = self._pending, None
        if pending is not None:
            try:
                self._note(pending.result())
            except CheckpointError as error:
                warn(str(error))


def copied(state: Any) -> Any:
    """The same nesting with a copy of every tensor on the host, which later steps do not change."""
    content = _copied(state)
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()  # copies from GPUs have been started, all together
    return content


def _copied(state: Any) -> Any:
    if isinstance(state, Tensor):
        host = torch.empty_like(state, device="cpu", pin_memory=state.is_cuda)
        return host.copy_(state, non_blocking=True)
    if isinstance(state, dict):
        fresh = type(state)((key, _copied(value)) for key, value in state.items())
        if (versions := getattr(state, "_metadata", None)) is not None:
            fresh._metadata = versions  # type: ignore[attr-defined]
        return fresh
    if isinstance(state, list | tuple):
        return type(state)(_copied(value) for value in state)
    return state

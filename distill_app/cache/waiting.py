"""Rows of the teacher cache that are still on a GPU."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distill_app.cache.store import TapStore


@dataclass
class Waiting:
    """Rows on their way from the GPU: the host has no need to wait for them within the step."""

    store: TapStore
    view: int
    rows: np.ndarray
    missing: np.ndarray
    arrays: dict[str, Tensor]
    arrived: Any = None

    @classmethod
    def of(
        cls, store: TapStore, view: int, rows: np.ndarray, missing: np.ndarray, arrays: Mapping[str, Tensor]
    ) -> "Waiting":
        """Starts the copies to the host."""
        on_gpu = any(tensor.is_cuda for tensor in arrays.values())
        copies = {key: tensor.to("cpu", non_blocking=on_gpu) for key, tensor in arrays.items()}
        arrived = torch.cuda.Event() if on_gpu else None
        if arrived is not None:
            arrived.record()
        return cls(store, view, rows, missing, copies, arrived)

"""The losses over maps and relations since 2020: how each is built and fed, and which reference cases it equals."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from distill_app import losses

Compute = Callable[[SimpleNamespace], Tensor]


def pair(loss: nn.Module, student: str = "student_feat", teacher: str = "teacher_feat") -> Compute:
    """The loss of two of the golden inputs."""
    return lambda g: loss(student=getattr(g, student), teacher=getattr(g, teacher))


GOLDENS: dict[str, list[tuple[list[str], Compute]]] = {
    "cwd": [
        (["mmrazor_tau1", "authors_tau1", "cirkd_tau1"], pair(losses.ChannelwiseKL(1.0))),
        (["mmrazor_tau4", "authors_tau4", "cirkd_tau4"], pair(losses.ChannelwiseKL())),
        (["authors_spatial_tau4"], pair(losses.ChannelwiseKL(over="channels"))),
    ],
}
# Cases that are not what we define: file, case, what ours gives.
QUIRKS: list[tuple[str, str, Compute]] = []
# Those of a loss behind adapters: file, case, the loss of (the numbers, the case).
MODULES: list[tuple[str, str, Callable[[Any, str], Tensor]]] = []
# Cases of edge_cases.npz: which input, and the loss that gives their values.
EDGES: dict[str, tuple[str, nn.Module]] = {"cwd": ("feat", losses.ChannelwiseKL(1.0))}
# Method -> files of golden numbers, where they are not called after the method.
FILES: dict[str, list[str]] = {}


def tensor(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def maps(student: tuple[int, ...], teacher: tuple[int, ...] | None = None) -> Callable[[int], dict[str, Tensor]]:
    """Random maps of both networks for a batch size; shapes are without the batch dimension."""
    return lambda batch: {
        "student": tensor(batch, *student, seed=1),
        "teacher": tensor(batch, *(teacher or student), seed=2),
    }


# Name -> a fresh loss, its inputs for a batch size.
MAKE: dict[str, tuple[Callable[[], nn.Module], Callable[[int], dict[str, Any]]]] = {
    "cwd": (losses.ChannelwiseKL, maps((4, 4, 4), (4, 8, 8))),
    "cwd_channels": (lambda: losses.ChannelwiseKL(over="channels"), maps((4, 4, 4))),
}

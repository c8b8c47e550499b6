"""What running networks is about: who calls one, and what comes out of all of them."""

from collections.abc import Mapping
from typing import Any, Protocol

from torch import nn

Namespace = dict[str, Any]


class Call(Protocol):
    """How a task runs a network on a prepared batch; every network may be asked in a way of its own."""

    def __call__(self, network: nn.Module, batch: Mapping[str, Any], *, name: str) -> Any: ...

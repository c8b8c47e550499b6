"""How much of a network's arithmetic a stage runs."""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


class FlopCounter(TorchDispatchMode):
    """Counts the floating-point operations of convolutions, matrix products and attention within the block.

    torch's own FlopCounterMode follows modules, and a forward that stops early leaves it with open ones.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            self.total += count(*args, **(kwargs or {}), out_val=out)
        return out


def flops(run: Callable[[], Any]) -> int:
    """The operations of one call, without gradient; a multiplication and an addition are two."""
    with torch.no_grad(), FlopCounter() as counter:
        run()
    return counter.total

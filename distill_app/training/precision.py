"""The number format that networks compute in: autocast around forwards, float32 for losses, a scaler for fp16."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from distill_app.errors import NonFiniteLoss
from distill_app.networks.taps import map_tensors

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
SHORT = (torch.bfloat16, torch.float16)
STUCK = 50  # steps in a row that fp16 leaves out, after which nothing is to be hoped for
CPU = torch.device("cpu")


class Precision:
    """What `runtime.precision` stands for on a device.

    Parameters, gradients and the optimiser stay float32. bf16 and fp16 run networks and adapters under autocast; loss
    terms get float32. fp16, whose gradients underflow, multiplies the loss with a factor that adapts itself
    (Micikevicius et al. 2018, https://arxiv.org/abs/1710.03740).

    Args:
        name: fp32, bf16 or fp16.
        device: Where the networks are.
    """

    def __init__(self, name: str = "fp32", device: torch.device = CPU):
        self.dtype, self._device = DTYPES[name], device
        self._scaler = torch.amp.GradScaler(device.type, enabled=name == "fp16")
        self._factor, self._steps, self._left_out = self._scaler.get_scale(), 0, 0

    @property
    def reduced(self) -> bool:
        """Whether networks compute in fewer bits than float32."""
        return self.dtype != torch.float32

    @property
    def scaled(self) -> bool:
        """Whether losses are scaled before backward."""
        return self._scaler.is_enabled()

    def forward(self) -> AbstractContextManager[Any]:
        """The context in which networks and adapters run."""
        return torch.autocast(self._device.type, self.dtype) if self.reduced else nullcontext()

    def for_losses(self, values: Any) -> Any:
        """The same nesting with float32 in the place of shorter floats."""
        return map_tensors(values, lambda value: value.float() if value.dtype in SHORT else value)

    def scale(self, loss: Tensor) -> Tensor:
        """The loss as backward needs it."""
        return self._scaler.scale(loss)

    def unscale(self, optimizer: Optimizer) -> None:
        """Gives gradients their true size, for clipping."""
        self._scaler.unscale_(optimizer)

    def step(self, optimizer: Optimizer) -> None:
        """An optimiser step; left out where fp16 gradients overflowed, and then the factor falls."""
        self._scaler.step(optimizer)
        self._scaler.update()
        self._steps += 1

    def refuse_stuck(self, stage: str) -> None:
        """Looks, where that may wait for the device, at whether any of the last steps has been taken.

        Raises:
            NonFiniteLoss: Too many in a row have been left out; the factor halves with each of them.
        """
        if not self.scaled or not self._steps:
            return
        factor = self._scaler.get_scale()
        none_taken = factor <= self._factor * self._scaler.get_backoff_factor() ** self._steps
        self._left_out = self._left_out + self._steps if none_taken else 0
        self._factor, self._steps = factor, 0
        if self._left_out >= STUCK:
            raise NonFiniteLoss(
                f"runtime.precision=fp16: the gradients of the last {self._left_out} steps of stage {stage!r} were not "
                f"finite and no step was taken, down to a factor of {factor:.3g}; the weights are those before. "
                f"runtime.precision=bf16 has the range of float32; else lower stage.lr"
            )

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs: the factor and its growth, empty without a scaler."""
        return self._scaler.state_dict()

    def load(self, state: Mapping[str, Any]) -> None:
        """Restores what `state` returned."""
        if state and self._scaler.is_enabled():
            self._scaler.load_state_dict(dict(state))
            self._factor = self._scaler.get_scale()

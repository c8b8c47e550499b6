"""Golden numbers: losses and gradients of reference implementations, float64, in tests/goldens."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

DATA = Path(__file__).parents[1] / "goldens"


class Golden:
    """One file: inputs as leaf tensors (attributes of `inputs`), and what each case must give."""

    def __init__(self, name: str):
        with np.load(DATA / f"{name}.npz") as file:
            self.arrays = {key: torch.from_numpy(file[key]) for key in file.files}
        inputs = {key[3:]: value.clone() for key, value in self.arrays.items() if key.startswith("in/")}
        for value in inputs.values():
            value.requires_grad_(value.is_floating_point())
        self.inputs = SimpleNamespace(**inputs)
        self.loaded: list[tuple[str, nn.Parameter]] = []

    def below(self, prefix: str) -> dict[str, Tensor]:
        return {key[len(prefix) :]: value for key, value in self.arrays.items() if key.startswith(prefix)}

    def load(self, module: nn.Module, case: str, part: str = "") -> nn.Module:
        """Fills a module, in float64, with a case's parameters and buffers whose names start with `part`, in order."""
        module.double()
        for kind, tensors in (("param", module.parameters()), ("buffer", module.buffers())):
            given = self.below(f"{case}/{kind}/{part}")
            mine = list(tensors)
            assert kind == "buffer" or len(given) == len(mine), (list(given), len(mine))
            for (name, value), tensor in zip(given.items(), mine, strict=False):
                tensor.data.copy_(value.view_as(tensor))
                if kind == "param":
                    self.loaded.append((f"{part}{name}", tensor))
        return module

    def check(self, case: str, loss: Tensor) -> None:
        """Value, gradients at the inputs and at the loaded parameters, wherever the case stores them."""
        torch.testing.assert_close(loss.detach(), self.arrays[f"{case}/loss"], rtol=1e-9, atol=1e-12)
        loss.backward()
        # Where a gradient is zero by cancellation, what is left is rounding in proportion to the loss.
        noise = 1e-14 * max(float(loss.detach()), 1.0)
        for name, wanted in self.below(f"{case}/grad/").items():
            self._close(getattr(self.inputs, name).grad, wanted, f"{case}: gradient at {name}", noise)
        wanted = self.below(f"{case}/pgrad/")
        for name, parameter in self.loaded:
            if name in wanted:
                self._close(parameter.grad, wanted[name].view_as(parameter), f"{case}: gradient at {name}", noise)

    @staticmethod
    def _close(got: Tensor | None, wanted: Tensor, what: str, noise: float) -> None:
        assert got is not None, f"{what} is missing"
        scale = float(wanted.abs().max())
        torch.testing.assert_close(
            got, wanted, rtol=1e-8, atol=1e-8 * scale + noise, msg=lambda text: f"{what}\n{text}"
        )


@pytest.fixture
def golden():
    """Opens a file of golden numbers."""
    return Golden

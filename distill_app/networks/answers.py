"""What a network answers: what its tap says, whatever else it returns, and in whichever order."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from distill_app.config.plan import ROLES
from distill_app.errors import SettingError
from distill_app.networks.hooks import TappedModel
from distill_app.networks.network import Network
from distill_app.networks.taps import shapes_in, tensors_in


class Answers(nn.Module):
    """A network that returns its answer: called as the network itself is, and no part of it changes.

    The answer is the activation at a tap. Where the network returns that very tensor, as most do, it runs without hooks
    from the second batch on. Without such a tap it is what the network returns, if that holds one tensor.

    Args:
        network: The network.
        tap: The name of the tap that answers; `output.KEY`: what the network returns, or the entry KEY of it where it
            returns a mapping; None: whatever the network returns.

    Raises:
        TapError: The tap leads nowhere.
    """

    def __init__(self, network: Network, tap: str | None):
        super().__init__()
        self.module, self._owner, self._tap = network.module, network.name, tap
        self._key = entry_of(tap)
        self._tapped: list[TappedModel] = []  # in a list: it is no further part of this module
        if tap in network.taps and not self._key:
            paths = network.paths(["output", tap])
            self._tapped = [TappedModel(network.module, paths, stop=False, owner=network.name)]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the network.

        Raises:
            SettingError: It returns several tensors, and no tap says which of them is the answer.
            TapError: The tap never ran.
        """
        if not self._tapped:
            return self._returned(self.module(*args, **kwargs))
        values = self._tapped[0](*args, **kwargs)
        answer = values[self._tap]
        if _same(values["output"], answer):
            self.close()
            return values["output"]
        return answer

    def _returned(self, output: Any) -> Any:
        output = entry_at(output, self._key)
        if self._tap is None or isinstance(output, Tensor):
            return output
        tensors = tensors_in(output)
        if len(tensors) == 1:
            return tensors[0]
        if self._key:
            raise SettingError(
                f"{self._owner}: the network returns {shapes_in(output)}, and a tensor, or a mapping with the entry "
                f"{self._key!r}, is needed as its answer"
            )
        key = f"{self._owner}.taps" if self._owner in ROLES else f"the taps of {self._owner}"
        entry = f"'+{key}.{self._tap}=PATH'" if self._owner in ROLES else f"{self._tap}: PATH there"
        raise SettingError(
            f"{key}: the network returns {len(tensors)} tensors ({shapes_in(output)}), and no tap {self._tap!r} says "
            f"which of them is the answer; set {entry}, to the path of the module that gives it"
        )

    def close(self) -> None:
        """Takes the hooks out."""
        for tapped in self._tapped:
            tapped.close()
        self._tapped = []


def entry_of(tap: str | None) -> str:
    """The key of the entry that answers, of a tap `output.KEY`; '' of others."""
    return (tap or "").removeprefix("output.") if (tap or "").startswith("output.") else ""


def entry_at(output: Any, key: str) -> Any:
    """The entry of a mapping, where it has one of this key; everything else as it is."""
    return output[key] if key and isinstance(output, Mapping) and key in output else output


def _same(output: Any, answer: Any) -> bool:
    """Whether a network returns what the tap says, perhaps flattened."""
    if output is answer:
        return True
    if not isinstance(output, Tensor) or not isinstance(answer, Tensor) or output.numel() != answer.numel():
        return False
    return output.is_meta or torch.equal(output.flatten(), answer.flatten())

"""An average of a network's weights over the steps of a stage."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from distill_app.config.plan import StagePlan
from distill_app.training.experiment import Parts


class WeightAverage:
    """The exponential moving average of a network, buffers included: a <- decay a + (1 - decay) w after every step.

    It begins with the weights that the first step leaves, and is judged, tested and exported beside the network.

    One that teaches is that of mean teacher (Tarvainen and Valpola 2017, https://arxiv.org/abs/1703.01780): behind step
    n the decay is min(decay, 1 - 1 / (n + 1)), the plain average at first, of the weights before the first step too;
    and buffers are its own, from forwards of its own. Where the network begins with random weights, so does it, with
    others, as in the authors' code.

    Args:
        network: The bare network, without hooks: a copy of it is made.
        decay: In [0, 1); 0.999 averages over about 1,000 steps.
        teaches: Whether the network learns from it.
    """

    def __init__(self, network: nn.Module, *, decay: float, teaches: bool = False):
        self._network, self._decay, self._teaches = network, decay, teaches
        self._steps: int | None = None  # that have been taken up; read from the state, which may be restored until then
        self.model = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
        self.model.requires_grad_(False).eval()

    @classmethod
    def of(
        cls, name: str, plan: StagePlan, parts: Parts, *, start: Mapping[str, Tensor] | None = None
    ) -> "WeightAverage":
        """The average of a network in a stage; kept among the parts, where the end of the run finds it.

        Args:
            name: Of the network.
            plan: The stage.
            parts: Where networks are.
            start: The weights to begin with; None: the network's.
        """
        decay, teaches = float(plan.conf.ema.decay or 0.0), name in plan.average_taps
        average = cls(parts.networks[name].module, decay=decay, teaches=teaches)
        if start is not None:
            average.module.load_state_dict(start)
        parts.averages[name] = average.model
        return average

    @property
    def module(self) -> nn.Module:
        """The network with the averaged weights."""
        return self.model.module

    def update(self, step: int, batch: Mapping[str, Any], activations: Mapping[str, Any]) -> None:
        """Takes up the weights of the step that has just been taken."""
        if not self._teaches:
            self.model.update_parameters(self._network)
            return
        self._steps = (int(self.model.n_averaged) if self._steps is None else self._steps) + 1
        self.model.n_averaged.fill_(self._steps)
        share = 1 - min(self._decay, 1 - 1 / (self._steps + 1))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.module.parameters()), list(self._network.parameters()), share)

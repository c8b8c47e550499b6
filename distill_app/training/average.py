"""An average of a network's weights over the steps of a stage."""

from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from distill_app.config.plan import StagePlan
from distill_app.training.experiment import Parts


class WeightAverage:
    """The exponential moving average of a network, buffers included: a <- decay a + (1 - decay) w after every step.

    It begins with the weights that the first step leaves (Tarvainen and Valpola 2017, https://arxiv.org/abs/1703.01780,
    who use it as a teacher; here it is judged, tested and exported beside the network).

    Args:
        network: The bare network, without hooks: a copy of it is made.
        decay: In [0, 1); 0.999 averages over about 1,000 steps.
    """

    def __init__(self, network: nn.Module, *, decay: float):
        self._network = network
        self.model = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
        self.model.requires_grad_(False).eval()

    @classmethod
    def of(cls, name: str, plan: StagePlan, parts: Parts) -> "WeightAverage":
        """The average of a network in a stage; kept among the parts, where the end of the run finds it."""
        average = cls(parts.networks[name].module, decay=float(plan.conf.ema.decay or 0.0))
        parts.averages[name] = average.model
        return average

    @property
    def module(self) -> nn.Module:
        """The network with the averaged weights."""
        return self.model.module

    def update(self, step: int, batch: Mapping[str, Any], activations: Mapping[str, Any]) -> None:
        """Takes up the weights of the step that has just been taken."""
        self.model.update_parameters(self._network)

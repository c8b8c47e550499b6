"""One experiment, opened once: config, plans, builder, device, data, parts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from distill_app.config.build import Builder
from distill_app.config.plan import StagePlan
from distill_app.config.schema import AppConf
from distill_app.data.stage_data import DataSource
from distill_app.networks.network import Network


@dataclass
class Parts:
    """Everything with weights that lives as long as the run; a later stage finds it here by name."""

    networks: dict[str, Network] = field(default_factory=dict)
    adapters: dict[str, nn.Module] = field(default_factory=dict)
    losses: dict[str, nn.Module] = field(default_factory=dict)
    confs: dict[str, Any] = field(default_factory=dict)  # what an adapter or a loss was built from

    def state(self) -> dict[str, dict[str, dict[str, Tensor]]]:
        """The state dicts of all of it, by kind and name."""
        return {
            kind: {name: module.state_dict() for name, module in group.items()}
            for kind, group in self._groups().items()
        }

    def _groups(self) -> dict[str, dict[str, nn.Module]]:
        networks = {name: network.module for name, network in self.networks.items()}
        return {"networks": networks, "adapters": self.adapters, "losses": self.losses}

    def load(self, state: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
        """Restores what `state` returned, strictly; what exists only here keeps its weights."""
        for kind, group in self._groups().items():
            for name, module in group.items():
                if name in state[kind]:
                    module.load_state_dict(state[kind][name])


def to_app(config: Mapping[str, Any]) -> AppConf:
    """The typed config from plain containers."""
    merged = OmegaConf.merge(OmegaConf.structured(AppConf), OmegaConf.create(dict(config)))
    app = OmegaConf.to_object(merged)
    assert isinstance(app, AppConf)  # for the type checker: the schema is the root
    return app


@dataclass
class Run:
    """What the stages of a run share."""

    app: AppConf
    plans: list[StagePlan]
    device: torch.device
    builder: Builder
    data: DataSource
    parts: Parts = field(default_factory=Parts)

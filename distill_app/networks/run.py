"""Running networks that are not trained."""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from distill_app.networks.hooks import TappedModel

Namespace = dict[str, Any]
Call = Callable[[TappedModel, Mapping[str, Any]], dict[str, Any]]


@torch.no_grad()
def run_frozen(networks: Mapping[str, TappedModel], batch: Mapping[str, Any], call: Call) -> Namespace:
    """The taps of the networks that are not trained, without gradient; they are in eval mode already."""
    return {name: call(network, batch) for name, network in networks.items()}

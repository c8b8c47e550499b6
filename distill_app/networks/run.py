"""What running networks is about: who calls one, and what comes out of all of them."""

from collections.abc import Callable, Mapping
from typing import Any

from distill_app.networks.hooks import TappedModel

Namespace = dict[str, Any]
Call = Callable[[TappedModel, Mapping[str, Any]], dict[str, Any]]

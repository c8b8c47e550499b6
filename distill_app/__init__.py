"""Hydra-composed experiments in knowledge distillation for vision.

    from distill_app import TappedModel, compose, load, load_half, run

Importing the package imports neither torch nor Hydra; the names above are imported when they are first used.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    **dict.fromkeys(("compose", "load", "load_half", "run"), "distill_app.api"),
    "TappedModel": "distill_app.networks.hooks",
}
__all__ = ["TappedModel", "compose", "load", "load_half", "run"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'distill_app' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)

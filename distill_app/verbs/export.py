"""`distill export`: a network's weights as a plain state dict."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distill_app.runs.statefile import save_weights
from distill_app.verbs.evaluate import _network


def export(config: Mapping[str, Any], place: Path, *, folder: Path, network: str, output: Path) -> str:
    """Writes a network's weights as a plain state dict; it loads into the bare architecture with `strict=True`.

    Raises:
        UsageError: No such network, or no weights of it.
    """
    loaded, source = _network(config, place, folder=folder, name=network)
    save_weights(loaded.module, output)
    return f"{network} of {source} -> {output}"

"""`distill export`: a network's weights as a plain state dict."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distill_app.runs.statefile import save_weights
from distill_app.training.experiment import Experiment
from distill_app.verbs.evaluate import stored_network


def export(config: Mapping[str, Any], place: Path, *, folder: Path, network: str, output: Path) -> str:
    """Writes a network's weights as a plain state dict; it loads into the bare architecture with `strict=True`.

    Raises:
        UsageError: No such network, or no weights of it.
    """
    with Experiment.of(config) as experiment:
        loaded, source = stored_network(experiment, place, folder=folder, name=network)
    save_weights(loaded.module, output)
    return f"{network} of {source} -> {output}"

"""The application from Python: compose a config from overrides, and run it."""

import tempfile
from typing import Any

from omegaconf import DictConfig

from distill_app.config.tree import compose

__all__ = ["compose", "run"]


def run(cfg: DictConfig, *, output_dir: str | None = None) -> dict[str, Any]:
    """Checks and runs a composed config in this process or wherever its launcher says.

    Args:
        cfg: From `compose`.
        output_dir: The run's folder; a folder that holds an unfinished run resumes it. None: a new one.

    Returns:
        The summary: method, seed, rows with accuracies in [0, 1], files.

    Raises:
        ConfigError: All that is wrong with the config.
    """
    from distill_app.app import carry_out

    folder = output_dir or tempfile.mkdtemp(prefix="distill-")
    return carry_out(cfg.copy(), output_dir=folder, command=["distill_app.run"])

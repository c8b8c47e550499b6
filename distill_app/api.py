"""The application from Python: compose a config from overrides, and run it."""

import tempfile
from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig

from distill_app.check.command_line import composition_errors
from distill_app.config import tree
from distill_app.errors import ConfigError, is_of_composition

__all__ = ["compose", "run"]


def compose(overrides: Sequence[str] = (), *, config_dirs: Sequence[str] = ()) -> DictConfig:
    """Composes a config as the command line does; a Hydra application that this is called in stays as it is.

    Args:
        overrides: As typed after `distill`, for example `["method=at", "seed=1"]`.
        config_dirs: Folders with groups of your own, as `--config-dir`.

    Returns:
        The config; change it before `run` as you like.

    Raises:
        ConfigError: All that is wrong with the overrides, in the words of the command line.
    """
    try:
        return tree.compose(overrides, config_dirs=config_dirs)
    except Exception as error:
        if not is_of_composition(error):
            raise
        raise ConfigError(list(composition_errors(error, overrides, config_dirs=config_dirs, quick=True))) from error


def run(cfg: DictConfig, *, output_dir: str | None = None) -> dict[str, Any]:
    """Checks and runs a composed config in this process or wherever its launcher says.

    Args:
        cfg: From `compose`.
        output_dir: The run's folder; a folder that holds an unfinished run resumes it. None: a new one.

    Returns:
        The summary: method, seed, rows with the figures of every network, files.

    Raises:
        ConfigError: All that is wrong with the config.
    """
    from distill_app.app import carry_out

    folder = output_dir or tempfile.mkdtemp(prefix="distill-")
    return carry_out(cfg.copy(), output_dir=folder, command=["distill_app.run"])

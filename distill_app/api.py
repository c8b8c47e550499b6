"""The application from Python: compose a config from overrides, and run it."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from distill_app.config import conf_dir, register


def compose(overrides: Sequence[str] = (), *, config_dirs: Sequence[str] = ()) -> DictConfig:
    """Composes a config as the command line does.

    Args:
        overrides: As typed after `distill`, for example `["method=at", "seed=1"]`.
        config_dirs: Folders with groups of your own, as `--config-dir`.

    Returns:
        The config; change it before `run` as you like.
    """
    register()
    GlobalHydra.instance().clear()
    search = [f"hydra.searchpath=[{','.join('file://' + str(Path(d).resolve()) for d in config_dirs)}]"]
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        return hydra_compose("config", [*(search if config_dirs else []), *overrides])


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


def options_of(group: str, config_dirs: Sequence[str] = ()) -> list[str]:
    """The options of a config group; those in folders, as experiment's, with the folder."""
    found = set()
    for root in (conf_dir(), *config_dirs):
        folder = Path(root, group)
        files = list(folder.glob("*.yaml")) or list(folder.glob("**/*.yaml"))
        found |= {file.relative_to(folder).with_suffix("").as_posix() for file in files}
    return sorted(found)


def groups(config_dirs: Sequence[str] = ()) -> list[str]:
    """The config groups."""
    folders = {folder.relative_to(root) for root in (conf_dir(), *config_dirs) for folder in Path(root).glob("**/")}
    return sorted(folder.as_posix() for folder in folders if folder.parts)

"""The application from Python: compose a config from overrides, run it, and use the network that came of it."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from distill_app.check.command_line import composition_errors
from distill_app.config import tree
from distill_app.errors import ConfigError, is_of_composition

if TYPE_CHECKING:
    from distill_app.deploy.deployed import Deployed
    from distill_app.deploy.detected import Detector
    from distill_app.deploy.half import Half

__all__ = ["compose", "load", "load_half", "run"]


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


def load(
    place: str | os.PathLike[str], *, network: str | None = None, allow: Sequence[str] = ()
) -> "Deployed | Detector":
    """A network of a run, or an export, in eval mode and with its preprocessing.

    Args:
        place: The folder of a run, a checkpoint or weights in it, or an export: its file or its folder.
        network: Which network of a run; None: what takes the student's part in its last stage.
        allow: Packages from which its config may build objects; `torch.export.load` or `torch.jit.load` to run exports
            that are programs.

    Returns:
        A module: called with prepared images, it gives the network's answers. `preprocessing` prepares images,
        `predict` takes paths and gives classes, of a detector objects, `module` is the bare network.

    Raises:
        UsageError: There is no such network.
        SettingError: A package is missing.
    """
    from distill_app.verbs.deployment import open_network

    return open_network(Path(os.path.abspath(place)), network=network, allow=allow)


def load_half(place: str | os.PathLike[str], part: str, *, allow: Sequence[str] = ()) -> "Half":
    """The head or the tail of a network that `distill export --to split` has cut in two, in eval mode.

    Args:
        place: The folder of the split.
        part: head or tail.
        allow: Packages from which its config may build objects; `torch.export.load` to run halves that are programs.

    Returns:
        A module. The head, called with images as its `preprocessing` makes them, gives what crosses the cut, tensors by
        name; the tail, called with these, gives what the whole network would.

    Raises:
        UsageError: There is no such half.
    """
    from distill_app.verbs.deployment import open_half

    return open_half(Path(os.path.abspath(place)), part, allow=allow)

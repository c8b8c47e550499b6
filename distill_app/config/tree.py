"""The config tree: where it lies, what it offers, and composing it."""

from collections.abc import Sequence
from pathlib import Path

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from distill_app.config.schema import AppConf


def register() -> None:
    """Makes the schema known to Hydra as `schema`, the first entry of the defaults list."""
    ConfigStore.instance().store(name="schema", node=AppConf)


def conf_dir() -> str:
    """The absolute path of the config tree: the installed one, else the checkout's."""
    package = Path(__file__).resolve().parents[1]
    for candidate in (package / "conf", package.parent / "conf"):
        if (candidate / "config.yaml").is_file():
            return str(candidate)
    raise FileNotFoundError(f"no config tree beside {package}: reinstall distill-app")


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

"""The config tree: where it lies, what it offers, and composing it."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobRuntime
from hydra.version import VersionBase
from omegaconf import DictConfig, OmegaConf, open_dict

from distill_app.config.groups import conf_dir, options_of
from distill_app.config.schema import AppConf

# Groups that may be left out: null and none both choose nothing.
OPTIONAL = ("benchmark", "debug", "experiment", "prelude")
# What Hydra holds once per process of one application; its plugins may serve several.
_STATE = (ConfigStore, GlobalHydra, HydraConfig, JobRuntime, VersionBase)


def register() -> None:
    """Makes known to Hydra: the schema, first of the defaults list, and the option `none` of optional groups."""
    store = ConfigStore.instance()
    store.store(name="schema", node=AppConf)
    for group in OPTIONAL:
        if not Path(conf_dir(), group, "none.yaml").is_file():
            store.store(group=group, name="none", node={}, package="_global_")
    if not OmegaConf.has_resolver("new_folder"):  # who only looks at a config makes no folder
        OmegaConf.register_new_resolver("new_folder", str)


def with_none(overrides: Sequence[str]) -> list[str]:
    """The overrides with `none` where an optional group is set to null, which Hydra takes for no option."""
    return [_with_none(override) for override in overrides]


def _with_none(override: str) -> str:
    key, equals, value = override.partition("=")
    if key.lstrip("+").split("@")[0] not in OPTIONAL:
        return override
    return f"{key}{equals}{','.join('none' if each.strip() == 'null' else each for each in value.split(','))}"


def compose(
    overrides: Sequence[str] = (), *, config_dirs: Sequence[str] = (), config_name: str = "config"
) -> DictConfig:
    """Composes a config as the command line does; a Hydra application that this runs in stays as it is.

    Args:
        overrides: As typed after `distill`, for example `["method=at", "seed=1"]`.
        config_dirs: Folders with groups of your own, as `--config-dir`.
        config_name: The file to begin with, as `--config-name`.

    Returns:
        The config; change it before `run` as you like.
    """
    return compose_mounted(overrides, config_dirs=config_dirs, config_name=config_name)[0]


def compose_mounted(
    overrides: Sequence[str] = (), *, config_dirs: Sequence[str] = (), config_name: str = "config"
) -> tuple[DictConfig, dict[str, str]]:
    """As `compose`, with the chosen options by group and place: {"model@teacher": "resnet50", "stage": "digits"}."""
    with opened(overrides, config_dirs=config_dirs) as line:
        cfg = hydra_compose(config_name, line, return_hydra_config=True)
    choices = OmegaConf.to_container(cfg.hydra.runtime.choices)
    with open_dict(cfg):
        del cfg["hydra"]
    return cfg, {str(mount): str(option) for mount, option in choices.items()}  # type: ignore[union-attr]


@contextmanager
def opened(overrides: Sequence[str], *, config_dirs: Sequence[str] = ()) -> Iterator[list[str]]:
    """A Hydra of its own that is ready to compose; gives the overrides as it takes them."""
    search = [f"hydra.searchpath=[{','.join('file://' + str(Path(d).resolve()) for d in config_dirs)}]"]
    with _own_hydra(), initialize_config_dir(conf_dir(), version_base="1.3"):
        yield [*(search if config_dirs else []), *with_none(overrides)]


@contextmanager
def _own_hydra() -> Iterator[None]:
    """A Hydra without a past, but for its plugins and what was registered; the one that was there is put back."""
    registered = ConfigStore.instance().repo
    before = Singleton._instances
    Singleton._instances = {kind: one for kind, one in before.items() if kind not in _STATE}
    ConfigStore.instance().repo = {
        name: dict(entry) if isinstance(entry, dict) else entry for name, entry in registered.items()
    }
    try:
        register()
        yield
    finally:
        Singleton._instances = before


def mount_line(
    key: str, value: Any, *, mounts: Mapping[str, str] | None = None, config_dirs: Sequence[str] = ()
) -> str | None:
    """The override that chooses a group's option where its name was given as a value; None where it is no option.

    Args:
        key: Where it was given: `stage.optimizer`, `student.net`, `method.stages.distill.losses.kd`.
        value: What was given.
        mounts: Which options the config has, by group and place; None: not known.
        config_dirs: Folders with groups of the user's own.
    """
    for place, group in places_of(key):
        if str(value) in options_of(group, config_dirs):
            mount = group if group == place else f"{group}@{place}"
            there = mount in mounts if mounts is not None else not place.endswith((".optimizer", ".scheduler", ".data"))
            return f"{'' if there or place.startswith('stage.') else '+'}{mount}={value}"
    return None


def places_of(key: str) -> Iterator[tuple[str, str]]:
    """Where a group may be mounted that fills a key, with the group, the innermost place first."""
    parts = key.split(".")
    for end in range(len(parts), 0, -1):
        group = _group_at(parts[:end])
        if group is not None:
            yield ".".join(parts[:end]), group


def _group_at(parts: Sequence[str]) -> str | None:
    """The group whose options have the form of what stands at a key."""
    last, owner = parts[-1], parts[-2] if len(parts) > 1 else ""
    if owner in ("losses", "extra_models"):
        return {"losses": "loss", "extra_models": "model"}[owner]
    if last == "loss" and owner:  # the criterion of a term, which the group fills as a whole
        return None
    named = {"student": "model", "teacher": "model", "data": "dataset"}.get(last, last)
    return named if Path(conf_dir(), named).is_dir() else None

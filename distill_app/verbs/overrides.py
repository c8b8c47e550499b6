"""Overrides of runs that exist: the old ones with new ones in their place, or new ones over a stored config."""

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from distill_app.check.command_line import composition_errors
from distill_app.check.quick import read
from distill_app.config.groups import conf_dir, groups
from distill_app.config.schema import AppConf, StageConf
from distill_app.config.tree import compose
from distill_app.errors import ConfigError, is_of_composition

STORED = "stored_run"


def merged(stored: Sequence[str], new: Sequence[str]) -> list[str]:
    """The stored overrides with the new ones in the place of those of the same key.

    A key that the run added with + is added again with its new value, and one that `~key` takes out again is left out.
    """
    signs = {key_of(override): override[: len(override) - len(override.lstrip("+"))] for override in stored}
    keys = {key_of(override) for override in new}
    words = []
    for override in new:
        sign = signs.get(key_of(override), "")
        if override.startswith("~") and sign:
            continue
        words.append(override if override[:1] in "+~" else sign + override)
    return [*(override for override in stored if key_of(override) not in keys), *words]


def key_of(override: str) -> str:
    """The key of an override, or the group with the place where it is mounted."""
    return override.lstrip("+~").partition("=")[0]


def is_sweep(override: str) -> bool:
    """Whether it gives a key several values."""
    try:
        return OverridesParser.create().parse_override(override).is_sweep_override()
    except HydraException:
        return False


def chosen_groups(overrides: Sequence[str]) -> list[str]:
    """Those that choose an option of a group, which a stored config has no more."""
    known = groups()
    return [override for override in overrides if key_of(override).split("@")[0] in known]


def composed(overrides: Sequence[str], flags: Sequence[str]) -> AppConf | None:
    """The typed config of a line, None where it cannot be composed or read: what is wrong is told elsewhere."""
    options = dict(zip(flags[::2], flags[1::2], strict=True))
    folders = [options["--config-dir"]] if "--config-dir" in options else []
    try:
        cfg = compose(overrides, config_dirs=folders, config_name=options.get("--config-name", "config"))
    except Exception as error:
        if not is_of_composition(error):
            raise
        return None
    return read(cfg)[1]


def begin_with(config: Mapping[str, Any]) -> None:
    """Makes a config the one that `--config-name stored_run` begins with."""
    defaults = ["schema", "_self_", {"override hydra/job_logging": "none"}, {"override hydra/hydra_logging": "none"}]
    shipped: Any = OmegaConf.to_container(OmegaConf.load(Path(conf_dir(), "config.yaml")))
    node = {**config, "dry_run": False, "defaults": defaults, "hydra": shipped["hydra"]}
    ConfigStore.instance().store(name=STORED, node=node)


def over(config: Mapping[str, Any], overrides: Sequence[str]) -> tuple[DictConfig, dict[str, Any]]:
    """Overrides over a config: composed, and resolved as plain containers.

    Raises:
        ConfigError: All that is wrong with the overrides and with what comes of them.
    """
    begin_with(config)
    try:
        cfg = compose(overrides, config_name=STORED)
    except Exception as error:
        if not is_of_composition(error):
            raise
        line = ["--config-name", STORED, *overrides]
        raise ConfigError(list(composition_errors(error, line, quick=True))) from error
    errors, app, _ = read(cfg)
    if errors or app is None:
        raise ConfigError(errors)
    return cfg, asdict(app)


def unresolved(config: dict[str, Any], *, linked: bool = True) -> dict[str, Any]:
    """A resolved config in which what is inherited is inherited again, so that stage.lr=0.1 reaches the stages.

    Args:
        config: The config of a run.
        linked: Whether networks that are configured as the student follow the student.
    """
    config = copy.deepcopy(config)
    for part in ("prelude", "method"):
        method = config.get(part) or {}
        for stage in (method.get("stages") or {}).values():
            for each in fields(StageConf):
                source = re.fullmatch(r"\$\{(\w+)\.(\w+)\}", str(each.default))
                if source and stage.get(each.name) == (config.get(source[1]) or {}).get(source[2]):
                    stage.pop(each.name, None)
        for name, network in (method.get("extra_models") or {}).items() if linked else ():
            if network == config.get("student"):
                method["extra_models"][name] = "${student}"
    return config

"""A composed config, and for every value of it the file or the override that it comes from."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from distill_app.config.groups import content_of, file_of, leaves
from distill_app.config.tree import compose_mounted, opened

SCHEMA = "default"


@dataclass(frozen=True)
class Traced:
    """A composed config.

    Attributes:
        cfg: The config, not resolved.
        mounts: The chosen options by group and place.
        sources: Dotted key -> `method/kd.yaml`, or the override.
    """

    cfg: DictConfig
    mounts: Mapping[str, str]
    sources: Mapping[str, str]

    def source(self, key: str) -> str:
        """Where a value comes from; what no file says is a default of the schema."""
        parts = key.split(".")
        places = (".".join(parts[:end]) for end in range(len(parts), 0, -1))
        return next((self.sources[place] for place in places if place in self.sources), SCHEMA)

    def shown(self, place: str) -> list["Line"]:
        """A part of the config in lines of YAML."""
        return list(self._lines(OmegaConf.select(self.cfg, place) if place else self.cfg, place))

    def _lines(self, section: Any, place: str) -> Iterator["Line"]:
        value = OmegaConf.to_container(section)
        for name, item in value.items() if isinstance(value, Mapping) else ():
            name = str(name)
            key = f"{place}.{name}" if place else name
            if isinstance(item, Mapping) and item:
                yield Line(key, f"{name}:")
                yield from self._lines(OmegaConf.select(self.cfg, key), key)
            else:
                yield Line(key, f"{name}: {_text(item)}", self.source(key), self._resolved(key, item))

    def _resolved(self, key: str, item: Any) -> str:
        """What an interpolation comes to here."""
        if not isinstance(item, str) or "${" not in item:
            return ""
        try:
            return f", = {_text(OmegaConf.select(self.cfg, key))}"
        except OmegaConfBaseException:
            return ""


@dataclass(frozen=True)
class Line:
    """A line of a config: its key, itself in YAML, and, where it has a value, where that is from and comes to."""

    key: str
    text: str
    source: str = ""
    resolved: str = ""


def traced(overrides: Sequence[str], *, config_dirs: Sequence[str] = ()) -> Traced:
    """Composes a config and finds out where its values come from.

    Raises:
        HydraException, OmegaConfBaseException: It cannot be composed.
    """
    cfg, mounts = compose_mounted(overrides, config_dirs=config_dirs)
    with opened(overrides, config_dirs=config_dirs) as line:
        loader = GlobalHydra.instance().config_loader()
        found = loader.compute_defaults_list("config", line, RunMode.RUN).defaults
    sources: dict[str, str] = {}
    for entry in found:
        group, _, option = str(entry.config_path).rpartition("/")
        file = _file(str(entry.config_path), config_dirs)
        package = "" if entry.package in (None, "_global_") else str(entry.package)
        content = {key: value for key, value in content_of(file).items() if key not in ("defaults", "hydra")}
        for key, _ in leaves(content, package):
            sources[key] = f"{group}/{option}.yaml" if group else f"{option}.yaml"
    known = {mount.partition("@")[0] for mount in mounts}
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0]
        if key.partition("@")[0] not in known:
            sources[key] = override
    return Traced(cfg, mounts, sources)


def _file(path: str, config_dirs: Sequence[str]) -> Path | None:
    group, _, option = path.rpartition("/")
    return file_of(group, option, config_dirs)


def _text(value: Any) -> str:
    """A value as YAML has it in one line."""
    plain = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
    if isinstance(plain, list | dict):
        return json.dumps(plain, default=str)
    text: str = yaml.safe_dump(plain, width=10**6, allow_unicode=True)
    return text.removesuffix("...\n").strip()

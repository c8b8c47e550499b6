"""Which file an argument came from that its target does not take: dicts merge, so that a replaced target keeps them."""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from distill_app.config.groups import conf_dir, options_of
from distill_app.config.tree import places_of


def left_over(key: str, name: str, conf: Mapping[str, Any]) -> str | None:
    """Says from where an argument is left over, and what to type; None where it was not a file that set it.

    Args:
        key: The config key of what is built: `method.stages.distill.losses.kd.loss`.
        name: The argument that its target does not take.
        conf: What is built.
    """
    for place, group in places_of(key):
        inside = key[len(place) + 1 :]
        found = [
            (option, target)
            for option in _options(group, place)
            for target in _definitions(group, option, inside, name, conf)
        ]
        if found:
            files = " or ".join(dict.fromkeys(f"{group}/{option}.yaml" for option, _ in found))
            made = f" ({found[0][1]})" if len(found) == 1 else ""
            return f"{name!r} is left over from {files}{made}, since dicts merge; {_ways_out(key, name, conf)}"
    return None


def _ways_out(key: str, name: str, conf: Mapping[str, Any]) -> str:
    value = f"{key}.{name}=0 " if conf[name] is None else ""  # Hydra takes out only what has a value
    ways = [f"take it out: {value}'~{key}.{name}'"]
    for place, group in places_of(key):
        inside = key[len(place) + 1 :]
        mount = group if group == place else f"{group}@{place}"
        same = [
            option for option in options_of(group, _folders()) if _target(group, option, inside) == conf["_target_"]
        ]
        ways += [f"choose '{mount}={option}'" for option in same[:1] if f"{mount}={option}" not in _chosen_lines()]
        if group == "loss":
            losses, _, term = place.rpartition(".")
            ways.append(f"write a term of another name into {losses} of a method file, and {term}: null beside it")
            break
    return ", or ".join(ways)


def _definitions(group: str, option: str, inside: str, name: str, conf: Mapping[str, Any]) -> Iterator[str]:
    """The target that a file sets together with the argument, if that is another than the one at hand."""
    section = _section(group, option, inside)
    if section is None or name not in section or not section.keys() <= conf.keys():
        return  # dicts merge: what a file sets beside it would be left over too
    value, target = section[name], section.get("_target_")
    same = value == conf[name] or (isinstance(value, str) and "${" in value)
    if same and target != conf["_target_"]:
        yield str(target or "no target of its own")


def _target(group: str, option: str, inside: str) -> str | None:
    section = _section(group, option, inside)
    return None if section is None else section.get("_target_")


def _section(group: str, option: str, inside: str) -> dict[str, Any] | None:
    """A section of a file merged with those of the group's options that it is based on."""
    merged: dict[str, Any] = {}
    for file in _with_bases(group, option, _folders()):
        try:
            section = OmegaConf.select(file, inside) if inside else file
            merged.update(OmegaConf.to_container(section) if isinstance(section, DictConfig) else {})  # type: ignore
        except OmegaConfBaseException:
            continue
    return merged or None


@lru_cache(maxsize=512)
def _with_bases(group: str, option: str, folders: tuple[str, ...]) -> list[DictConfig]:
    """The files of an option, those that it is based on first."""
    path = next(
        (path for root in (*folders, conf_dir()) if (path := Path(root, group, f"{option}.yaml")).is_file()), None
    )
    try:
        file = OmegaConf.load(path) if path is not None else None
    except (OSError, ValueError, YAMLError, OmegaConfBaseException):
        return []
    if not isinstance(file, DictConfig):
        return []
    bases = [name for name in file.get("defaults", []) if isinstance(name, str) and name not in ("_self_", option)]
    return [*(each for base in bases for each in _with_bases(group, base, folders)), file]


def _options(group: str, place: str) -> Sequence[str]:
    """The option that was chosen for a place; all of them where that is not known."""
    mount = group if group == place else f"{group}@{place}"
    chosen = _choices().get(mount)
    return options_of(group, _folders()) if chosen is None else [str(chosen)]


def _chosen_lines() -> list[str]:
    return [f"{mount}={option}" for mount, option in _choices().items()]


def _choices() -> dict[str, Any]:
    """The options that the command line and the files chose, as Hydra knows them while it calls the program."""
    return dict(HydraConfig.get().runtime.choices) if HydraConfig.initialized() else {}


def _folders() -> tuple[str, ...]:
    """Folders with config of the user's own, where they are known."""
    sources = HydraConfig.get().runtime.config_sources if HydraConfig.initialized() else []
    return tuple(each.path for each in sources if each.schema == "file" and each.path != conf_dir())

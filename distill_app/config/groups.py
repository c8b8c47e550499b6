"""The files of the config tree: where they lie, which groups and options there are, and what each says of itself.

Neither torch nor Hydra is imported: completion on the command line reads them at every press of a key.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def conf_dir() -> str:
    """The absolute path of the config tree: the installed one, else the checkout's."""
    package = Path(__file__).resolve().parents[1]
    for candidate in (package / "conf", package.parent / "conf"):
        if (candidate / "config.yaml").is_file():
            return str(candidate)
    raise FileNotFoundError(f"no config tree beside {package}: reinstall distill-app")


def options_of(group: str, config_dirs: Sequence[str] = ()) -> list[str]:
    """The options of a config group; those in folders, as experiment's, with the folder."""
    found = set()
    for root in (conf_dir(), *config_dirs):
        folder = Path(root, group)
        files = list(folder.glob("*.yaml")) or list(folder.glob("**/*.yaml"))
        found |= {file.relative_to(folder).with_suffix("").as_posix() for file in files}
    return sorted(found)


def bringing(group: str, config_dirs: Sequence[str] = ()) -> list[str]:
    """The experiments that bring along a group that the primary config has no place for."""
    found = set()
    for root in (conf_dir(), *config_dirs):
        folder = Path(root, "experiment")
        for file in folder.glob("**/*.yaml"):
            if f"\n  - /{group}: " in file.read_text(encoding="utf-8"):
                found.add(file.relative_to(folder).with_suffix("").as_posix())
    return sorted(found)


def groups(config_dirs: Sequence[str] = ()) -> list[str]:
    """The config groups."""
    folders = {folder.relative_to(root) for root in (conf_dir(), *config_dirs) for folder in Path(root).glob("**/")}
    return sorted(folder.as_posix() for folder in folders if folder.parts)


def file_of(group: str, option: str, config_dirs: Sequence[str] = ()) -> Path | None:
    """The file of an option, of two of one name that of the package, as Hydra has it; None where there is none."""
    files = (Path(root, group, f"{option}.yaml") for root in (conf_dir(), *config_dirs))
    return next((file for file in files if file.is_file()), None)


def content_of(file: Path | None) -> dict[str, Any]:
    """What a file holds; nothing where it cannot be read, or is no mapping."""
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), Loader=_LOADER) if file is not None else None
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}


def header_of(file: Path) -> str:
    """What the first comment of a file says of it, without the command that it begins with."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return ""
    comments = [line.removeprefix("#").strip() for line in lines if line.startswith("#")]
    first = next((line for line in comments if not line.startswith("@package")), "")
    return re.sub(r"^distill [^:]*: (?=\S)", "", first)


def mounts() -> dict[str, str | None]:
    """Where the shipped `config.yaml` mounts groups, and the option that it chooses: {"model@teacher": "cres_w24"}."""
    entries = content_of(Path(conf_dir(), "config.yaml")).get("defaults", [])
    pairs = [pair for entry in entries if isinstance(entry, Mapping) for pair in entry.items()]
    return {str(key): value for key, value in pairs if not str(key).startswith("override ")}


def default_options() -> dict[str, str]:
    """The options that it chooses: mount -> option."""
    return {mount: str(option) for mount, option in mounts().items() if option is not None}


def merged_content(group: str, option: str, config_dirs: Sequence[str] = ()) -> dict[str, Any]:
    """An option with the options that it is based on and those that it mounts, as far as files say it.

    What depends on other choices is left out: it is for showing keys, and Hydra alone composes.
    """
    return _merged(group, option, tuple(config_dirs), seen=())


def _merged(group: str, option: str, config_dirs: tuple[str, ...], *, seen: tuple[str, ...]) -> dict[str, Any]:
    if (name := f"{group}/{option}") in seen:
        return {}
    content = content_of(file_of(group, option, config_dirs))
    found: dict[str, Any] = {}
    for entry in content.get("defaults") or ():
        for place, base_group, base in _mounted(entry, group):
            part = _merged(base_group, base, config_dirs, seen=(*seen, name))
            for step in reversed(place.split(".") if place else ()):
                part = {step: part}
            _update(found, part)
    _update(found, {key: value for key, value in content.items() if key != "defaults"})
    return found


def _mounted(entry: Any, group: str) -> Iterator[tuple[str, str, str]]:
    """Where an entry of a defaults list is mounted, with group and option."""
    if isinstance(entry, str) and entry != "_self_":
        yield "", group, entry
    for key, option in entry.items() if isinstance(entry, Mapping) else ():
        base, _, place = str(key).removeprefix("optional ").partition("@")
        if not isinstance(option, str) or base.startswith("override "):
            continue
        absolute = base.startswith("/")
        inner = base.lstrip("/") if absolute else f"{group}/{base}"
        yield place or ("" if absolute else base.rpartition("/")[2]), inner, option


def _update(target: dict[str, Any], other: Mapping[str, Any]) -> None:
    for key, value in other.items():
        if isinstance(value, dict) and isinstance(target.get(key), dict):
            _update(target[key], value)
        else:
            target[key] = value


def leaves(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys of all that is no mapping, and of empty mappings."""
    if not isinstance(value, Mapping) or not value:
        yield prefix, value
        return
    for key, item in value.items():
        yield from leaves(item, f"{prefix}.{key}" if prefix else str(key))

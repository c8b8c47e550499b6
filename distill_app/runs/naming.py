"""What a run is called where many are listed: its method and what was typed for it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from distill_app.runs.claim import stored_config
from distill_app.runs.settings import is_neutral, settings_of
from distill_app.runs.untrusted import read_limited

_LONGEST = 120
_PLAIN = ("loss", "module", "net")  # of losses.kd.loss.temperature, the name of the term says more


@dataclass(frozen=True)
class RunFacts:
    """What a tracker is told of a run.

    Attributes:
        folder: Of the run.
        name: Its method, and what was typed for it: `kd kd.loss.temperature=4 seed=1`.
        group: What belongs together: the sweep, or the folder that it lies in.
        config: All of it, resolved.
        settings: Key -> value as text: method, data set, networks and seed, and what was typed for it. Of a sweep these
            are the keys that its points differ in, among others.
    """

    folder: Path
    name: str
    group: str
    config: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: Path) -> "RunFacts":
        """The facts of a run, from what lies in its folder."""
        place, config = folder.resolve(), stored_config(folder) or {}
        typed = _typed(folder)
        known = settings_of(config)
        about = {key: known.get(f"{key}.name") for key in ("method", "dataset", "teacher", "student")}
        about |= {"seed": known.get("seed")}
        settings = {**{key: value for key, value in about.items() if value is not None}, **typed}
        return cls(folder, _name(settings, typed, folder=place), place.parent.name, config, settings)


def _typed(folder: Path) -> dict[str, str]:
    """The overrides of a run of the command line that are settings, or choose a group."""
    try:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        overrides = yaml.load(read_limited(folder / ".hydra/overrides.yaml"), Loader=loader)
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return {}
    lines = [str(each).lstrip("+").partition("=") for each in overrides] if isinstance(overrides, list) else []
    return {key: value for key, sign, value in lines if sign and not is_neutral(key.replace("@", "."))}


def _name(settings: Mapping[str, str], typed: Mapping[str, str], *, folder: Path) -> str:
    names = short_names(typed)
    shown = {key: names[key] for key in typed if key not in ("method", "seed")}
    parts = [settings.get("method") or folder.name, *(f"{short}={typed[key]}" for key, short in shown.items())]
    if not typed:
        parts += [settings[key] for key in ("dataset", "student") if key in settings]
    end = f" seed={settings['seed']}" if "seed" in settings else ""
    text, room = " ".join(map(str, parts)), _LONGEST - len(end)
    text = f"{text if len(text) <= room else f'{text[: room - 3]}...'}{end}"
    return "".join(sign if sign.isprintable() else "?" for sign in text)


def short_names(keys: Sequence[str] | Mapping[str, Any]) -> dict[str, str]:
    """Key -> its last parts, two that say something at least, and as many as tell it from the others.

    `method.stages.distill.losses.kd.loss.temperature` is `kd.loss.temperature`, `stage.lr` stays as it is.
    """
    keys = list(keys)
    return {key: _short(key, [other for other in keys if other != key]) for key in keys}


def _short(key: str, others: Sequence[str]) -> str:
    parts = key.split(".")
    for count in range(1, len(parts)):
        ending = parts[-count:]
        name = ".".join(ending)
        telling = [part for part in ending if part not in _PLAIN]
        if len(telling) >= 2 and not any(other == name or other.endswith(f".{name}") for other in others):
            return name
    return key

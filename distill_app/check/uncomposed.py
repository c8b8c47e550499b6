"""The words for what Hydra cannot compose: the key, what was given, the nearest match, what to type."""

import re
from dataclasses import dataclass, fields

from hydra.errors import OverrideParseException
from omegaconf import DictConfig, OmegaConf

from distill_app.check.line import Line, is_interval, split
from distill_app.check.quoting import quoted
from distill_app.check.suggest import Suggestions, typed
from distill_app.config import schema
from distill_app.config.groups import bringing, options_of
from distill_app.errors import one_line
from distill_app.extras import EXTRAS, install, missing, not_installed
from distill_app.words import some, unknown

MOUNTED = {"LossTermConf": "loss", "ModelConf": "model"}


@dataclass(frozen=True)
class Words:
    """The message for one exception; `line` is the command line, without its culprit where it is composed for it."""

    error: Exception
    culprit: str | None
    line: Line
    composed: Suggestions | None = None

    @property
    def known(self) -> Suggestions:
        """The config to look for keys in."""
        return self.composed or self.line.suggestions

    def text(self) -> str:
        """One line: the key, what was given, the nearest match, what to type."""
        text = one_line(self.error)
        if found := re.search(r"In '(?P<file>[^']+)': Could not (find|load) '(?P<path>[^']+)'", text):
            if found["path"].startswith("hydra/sweeper/optuna"):
                return f"hydra/sweeper: Optuna's sweeper is not installed; {install('optuna')}"
            return self._option(found["file"], found["path"])
        if found := re.search(r"In '(?P<file>[^']+)': .*Key '(?P<key>[^']+)' not in '(?P<schema>\w+)'", text):
            if self.culprit is not None and found["key"] == split(self.culprit)[0]:
                return self._group(*split(self.line.typed(self.culprit)))
            names = [each.name for each in fields(getattr(schema, found["schema"]))]
            return f"{found['file']}: {unknown('key', found['key'], names)}"
        if found := re.search(r"Cannot find primary config '(?P<name>[^']+)'", text):
            return f"--config-name: {unknown('config', found['name'], options_of('', self.line.config_dirs))}"
        if (found := re.search(r"Error locating target '(?P<package>\w+)\.", text)) and found["package"] in EXTRAS:
            return f"hydra/sweeper: {not_installed(found['package'])}"  # all else that Hydra itself builds is its own
        if self.culprit is None:
            key = getattr(self.error, "full_key", None)
            cause = one_line(self.error.__cause__) if text.startswith("Error merging override") else ""
            return f"{key}: {text}" if key else ": ".join(filter(None, (text, cause)))
        if isinstance(self.error, OverrideParseException):
            return self._unreadable(text)
        return self._override(text, *split(self.culprit), whole=split(self.line.typed(self.culprit))[1])

    def _unreadable(self, text: str) -> str:
        """What Hydra's grammar does not take: a value that needs quotes, else no override at all."""
        assert self.culprit is not None
        key, value = split(self.culprit)
        if line := quoted(self.culprit):
            return f"{key}: {value!r} has signs that need quotes; write {typed(line)}"
        reason = text.removeprefix(f"Error parsing override {self.culprit!r} ")
        return f"{self.culprit!r} is no override; write key=value ({reason})"

    def _override(self, text: str, key: str, value: str, *, whole: str) -> str:
        """What is wrong with `key=value`, of which in a sweep `key=whole` was typed."""
        known = self.known
        if "requires --multirun" in text:
            if self.culprit is not None and is_interval(self.culprit):
                return f"{key}: {of_a_search(value)}, with -m"
            return f"{key}: {value!r} are several values; sweep over them with -m"
        if "Ambiguous value" in text:
            return f"{key}: {value!r} are several values; {self._several(key, value)}"
        if (self.culprit or "").startswith("~") and "Could not delete" not in text:
            return f"{key}: {self._kept(key)}"
        if "Could not delete" in text and key in known.keys:
            there = OmegaConf.select(known.cfg, key, throw_on_missing=False)
            if there is None:
                return f"{key}: is null, and Hydra takes out only what has a value; write {key}=0 '~{key}'"
            return f"{key}: is {there!r} and not {value}, so that nothing is taken out; write '~{key}'"
        if "Could not delete" in text:
            return f"{key}: {known.key(key)}, so there is nothing to take out"
        if any(words in text for words in ("Could not append", "Multiple values", "appears more than once")):
            return f"{key}: is there already; write '{key}={whole}', without +"
        if "config group" in text.lower() and "does not exist" in text:
            return f"{key}: {unknown('group', key.split('@')[0], known.groups)}"
        if "Config group override" in text:
            return f"{key}: {unknown('option', value, options_of(key.split('@')[0], self.line.config_dirs))}{_off(key)}"
        if "Could not override" in text:
            if key in known.groups:
                return self._group(key, whole)
            if key not in known.keys:
                return f"{key}: {self._unknown_key(key, whole)}"
        return f"{key}: {self._value(text, key, value)}"

    def _kept(self, key: str) -> str:
        """What `~key` cannot take out, since the config would be none without it."""
        if key in self.known.mounts:
            return f"cannot be taken out, since there has to be one; write {key}=NAME"
        there = OmegaConf.select(self.known.cfg, key, throw_on_missing=False)
        if isinstance(there, DictConfig) and there:
            entries = some(f"'~{key}.{name!s}'" for name in there)
            return f"cannot be taken out; take out its entries: {entries}"
        return f"cannot be taken out, since it is always there; write {key}=VALUE, or {key}=null where it may be empty"

    def _group(self, key: str, value: str) -> str:
        """A group that is mounted somewhere else than at its own name, typed as a key."""
        known = self.known
        places = [mount for mount in known.mounts if mount.split("@")[0] == key]
        options = options_of(key, self.line.config_dirs)
        wrong = [each for each in value.split(",") if each not in options]
        words = f"{key}: {unknown('option', wrong[0], options)}" if wrong else f"{key}: is a group and no key"
        if not places and (experiments := bringing(key, self.line.config_dirs)):
            return f"{words}; it belongs to an experiment: write experiment={experiments[0]} {key}={value}"
        return f"{words}{known.hint(key, value) or '; write ' + ' or '.join(f'{each}=NAME' for each in places)}"

    def _unknown_key(self, key: str, value: str) -> str:
        known = self.known
        if "@" in key:
            return f"{known.key(key)}; to mount the group at a new place, write '+{key}={value}'"
        owner = OmegaConf.select(known.cfg, key.rpartition(".")[0], throw_on_missing=False)
        if isinstance(owner, DictConfig) and "_target_" in owner:
            return f"{known.key(key)}; to add an argument of {owner._target_}, write '+{key}={value}'"
        if lines := known.lines(key, value):
            nearest = known.key(key)  # left out where something else than the line to type is nearest
            agrees = f"did you mean {lines[0].partition('=')[0]!r}" in nearest
            return f"{nearest if agrees else f'unknown key {key!r}'}{known.hint(key, value)}"
        group = key.split(".")[0]
        places = sorted(mount.partition("@")[2] for mount in known.mounts if mount.split("@")[0] == group)
        return known.key(key) + (f"; the group {group} is at {', '.join(filter(None, places))}" if any(places) else "")

    def _value(self, text: str, key: str, value: str) -> str:
        """What a key that is there cannot be."""
        cause = one_line(self.error.__cause__)
        if line := self.known.mounted(key, value):
            return f"cannot be {value!r}, which is an option of a group; write {typed(line)}"
        if "to string" in cause and self.culprit and (line := quoted(self.culprit)):
            return f"{value!r} has signs that need quotes; write {typed(line)}"
        hint = f"; to add an entry, write '+{key}={value}'" if "is not in struct" in cause else self._mount(key, cause)
        return f"cannot be {value!r}: {cause or text}{hint}"

    def _several(self, key: str, value: str) -> str:
        """What to do about a comma; in the name of a file it is part of a text."""
        text = f"sweep over them with -m, or write [{value}] for a list"
        plain = key.split("@")[0] in self.known.groups or re.fullmatch(r"[-+\d.,eE ]+", value)
        line = None if plain or self.culprit is None else quoted(self.culprit)
        return f"{text}, or {typed(line)} for one text" if line else text

    def _option(self, file: str, path: str) -> str:
        """An option that is not there, chosen on the command line or in the defaults list of a file."""
        where, (group, _, option) = file, path.rpartition("/")
        key, value = split(self.culprit or "")
        if path in [f"{key.split('@')[0]}/{each}" for each in value.split(",")]:
            where, group = key, key.split("@")[0]
            option = path.removeprefix(f"{group}/")
        return f"{where}: {unknown('option', option, options_of(group, self.line.config_dirs))}"

    def _mount(self, key: str, cause: str) -> str:
        """How a new entry of a typed dict comes about."""
        found = re.search(r"not a subclass of (\w+)", cause)
        if not found:
            return ""
        parts = key.split(".")
        entry = getattr(self.error.__cause__, "full_key", None) or parts[-1]
        place = ".".join(parts[: parts.index(entry) + 1]) if entry in parts else key
        if group := MOUNTED.get(found[1]):
            if (mount := f"{group}@{place}") in self.known.mounts:
                return f"; it comes from a file of the group {group}: '{mount}=NAME'"
            return f"; a new entry comes from a file of the group: '+{mount}=NAME'"
        return "; a new entry comes from a config file"


def of_a_search(value: str) -> str:
    """What an interval needs, which no grid can enumerate."""
    absent = f" ({not_installed('optuna')})" if missing("optuna") else ""
    return f"{value!r} is an interval, from which a search chooses: add hydra/sweeper=search{absent}"


def _off(mount: str) -> str:
    """How a term or adapter that a group filled is switched off."""
    place = mount.partition("@")[2]
    off = place.split(".")[-2:-1] in (["losses"], ["adapters"])
    return f"; to switch it off, write '{place}=null'" if off else ""

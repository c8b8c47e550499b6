"""Errors of composition, in words: Hydra stops at the first thing that it cannot compose, here all of them are told."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf

from distill_app.check.flags import Ordered, flag_errors
from distill_app.check.halfway import halfway
from distill_app.check.quick import check, read
from distill_app.check.quoting import quoted
from distill_app.check.suggest import Suggestions, typed
from distill_app.config import schema
from distill_app.config.groups import bringing, groups, options_of
from distill_app.config.tree import compose_mounted
from distill_app.errors import is_of_composition, one_line
from distill_app.words import some, unknown

MOUNTED = {"LossTermConf": "loss", "ModelConf": "model"}


def composition_errors(
    error: Exception, arguments: Sequence[str], *, config_dirs: Sequence[str] = (), quick: bool = False
) -> Iterator[str]:
    """Everything that is wrong with a command line, one message each.

    What cannot be composed is taken out, one override at a time, until the rest composes and can be checked. Overrides
    that fit no key or no type are all known from the one composition that failed.

    Args:
        error: What Hydra raised.
        arguments: The command line.
        config_dirs: Folders with config of the user's own, beside that of the command line.
        quick: Whether to leave out what needs the import of torch.
    """
    line = _Line.parse(arguments)
    line = replace(line, config_dirs=(*line.config_dirs, *config_dirs))
    if missing := [folder for folder in line.config_dirs if not Path(folder).is_dir()]:
        yield f"--config-dir: {missing[0]} is not a folder ({Path(missing[0]).absolute()})"
        return
    while True:
        if not line.sweep and (found := halfway(error)):
            known = Suggestions(found.cfg, found.mounts, line.config_dirs)
            yield from (_Words(each, override, line, known).text() for override, each in found.failures)
            yield from read(found.cfg)[0] if quick else check(found.cfg)
            return
        culprit = line.culprit(error)
        rest = line if culprit is None else line.without(culprit)
        yield _Words(error, culprit, rest).text()
        if culprit is None:
            return
        line = rest
        outcome = _compose(line)
        if isinstance(outcome, Exception):
            error = outcome
        else:
            yield from read(outcome.cfg)[0] if quick else check(outcome.cfg)
            return


def refused(line: Ordered) -> Iterator[str]:
    """Everything that is wrong with a command line that has flags which there are not, one message each."""
    rest = _Line.parse(line.arguments)
    yield from flag_errors(line, rest.suggestions)
    outcome = _compose(rest)
    if isinstance(outcome, Exception):
        yield from composition_errors(outcome, line.arguments, quick=True)
    else:
        yield from read(outcome.cfg)[0]


@dataclass(frozen=True)
class _Line:
    """A command line: its overrides and the folders with config of the user's own."""

    overrides: tuple[str, ...]
    config_dirs: tuple[str, ...]
    sweep: bool
    config_name: str

    @classmethod
    def parse(cls, arguments: Sequence[str]) -> "_Line":
        parsed, _ = get_args_parser().parse_known_args(list(arguments))
        folders = (parsed.config_dir,) if parsed.config_dir else ()
        return cls(tuple(parsed.overrides), folders, parsed.multirun, parsed.config_name or "config")

    def without(self, override: str) -> "_Line":
        """The line with an override taken out."""
        return replace(self, overrides=tuple(each for each in self.overrides if each != override))

    def culprit(self, error: Exception) -> str | None:
        """The override that an exception is about: the one that it names, else the one without which it is gone."""
        if isinstance(error, OverrideParseException) and error.override in self.overrides:
            return error.override
        text = str(error)
        about = re.sub(r"^In '[^']+': ", "", text)  # a file that an override chose right may name what is wrong
        for override in sorted(self.overrides, key=lambda each: not each.startswith("+")):
            if any(name in about for name in _names(override)):
                return override
        # A sweep may fail at a later point than the first, which is the one that is composed here.
        if self.failure() != text:
            return None
        return next((each for each in self.overrides if self.without(each).failure() != text), None)

    def failure(self) -> str | None:
        """What composing the line raises."""
        outcome = _compose(self)
        return str(outcome) if isinstance(outcome, Exception) else None

    @property
    def suggestions(self) -> Suggestions:
        """The config to look for keys in: the whole line's, else that of the groups it chooses, else the default."""
        known = groups(self.config_dirs)
        options = tuple(each for each in self.overrides if _split(each)[0].split("@")[0] in known)
        for line in (self, replace(self, overrides=options), replace(self, overrides=())):
            outcome = _compose(line)
            if not isinstance(outcome, Exception):
                return outcome
            error = outcome
        raise error


@lru_cache(maxsize=16)
def _compose(line: _Line) -> Suggestions | Exception:
    """The composed config, in a sweep that of its first point; or what was raised."""
    overrides = [_first_point(each) if line.sweep else each for each in line.overrides]
    try:
        cfg, mounts = compose_mounted(overrides, config_dirs=line.config_dirs, config_name=line.config_name)
    except Exception as error:
        if not is_of_composition(error):
            raise
        return error
    return Suggestions(cfg, mounts, line.config_dirs)


@dataclass(frozen=True)
class _Words:
    """The message for one exception; `line` is the command line, without its culprit where it is composed for it."""

    error: Exception
    culprit: str | None
    line: _Line
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
                return "hydra/sweeper: Optuna's sweeper is not installed; pip install 'distill-app[optuna]'"
            return self._option(found["file"], found["path"])
        if found := re.search(r"In '(?P<file>[^']+)': .*Key '(?P<key>[^']+)' not in '(?P<schema>\w+)'", text):
            if self.culprit is not None and found["key"] == _split(self.culprit)[0]:
                return self._group(*_split(self.culprit))
            names = [each.name for each in fields(getattr(schema, found["schema"]))]
            return f"{found['file']}: {unknown('key', found['key'], names)}"
        if found := re.search(r"Cannot find primary config '(?P<name>[^']+)'", text):
            return f"--config-name: {unknown('config', found['name'], options_of('', self.line.config_dirs))}"
        if self.culprit is None:
            key = getattr(self.error, "full_key", None)
            return f"{key}: {text}" if key else text
        if isinstance(self.error, OverrideParseException):
            return self._unreadable(text)
        return self._override(text, *_split(self.culprit))

    def _unreadable(self, text: str) -> str:
        """What Hydra's grammar does not take: a value that needs quotes, else no override at all."""
        assert self.culprit is not None
        key, value = _split(self.culprit)
        if line := quoted(self.culprit):
            return f"{key}: {value!r} has signs that need quotes; write {typed(line)}"
        reason = text.removeprefix(f"Error parsing override {self.culprit!r} ")
        return f"{self.culprit!r} is no override; write key=value ({reason})"

    def _override(self, text: str, key: str, value: str) -> str:
        known = self.known
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
            return f"{key}: is there already; write '{key}={value}', without +"
        if "config group" in text.lower() and "does not exist" in text:
            return f"{key}: {unknown('group', key.split('@')[0], known.groups)}"
        if "Config group override" in text:
            return f"{key}: {unknown('option', value, options_of(key.split('@')[0], self.line.config_dirs))}{_off(key)}"
        if "Could not override" in text:
            if key in known.groups:
                return self._group(key, value)
            if key not in known.keys:
                return f"{key}: {self._unknown_key(key, value)}"
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
        key, value = _split(self.culprit or "")
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


def _split(override: str) -> tuple[str, str]:
    key, _, value = override.partition("=")
    return key.lstrip("+~"), value


def _names(override: str) -> list[str]:
    """How Hydra's messages may name an override."""
    key, value = _split(override)
    options = [f"'{key.split('@')[0]}/{option}'" for option in value.split(",")]
    words = [f"'{key}'", f"'{override}'", f"values for {key}.", f"{key} appears more"]
    return [*words, f"override {override}", f"Override {override} ", *options]


def _first_point(override: str) -> str:
    """The override of the first point of a sweep."""
    try:
        parsed = OverridesParser.create().parse_override(override)
    except HydraException:
        return override
    if not parsed.is_sweep_override():
        return override
    first = next(iter(parsed.sweep_string_iterator()))
    return f"{override.partition('=')[0]}={first}"


def _off(mount: str) -> str:
    """How a term or adapter that a group filled is switched off."""
    place = mount.partition("@")[2]
    off = place.split(".")[-2:-1] in (["losses"], ["adapters"])
    return f"; to switch it off, write '{place}=null'" if off else ""

"""Errors of composition, in words: Hydra stops at the first thing that it cannot compose, here all of them are told."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf

from distill_app.check.quick import check
from distill_app.config import schema
from distill_app.config.tree import compose, groups, options_of
from distill_app.errors import is_of_composition, one_line
from distill_app.words import unknown

MOUNTED = {"LossTermConf": "loss", "ModelConf": "model"}


def composition_errors(error: Exception, arguments: Sequence[str]) -> Iterator[str]:
    """Everything that is wrong with a command line, one message each.

    What cannot be composed is taken out, one override at a time, until the rest composes and can be checked.

    Args:
        error: What Hydra raised.
        arguments: The command line.
    """
    line = _Line.parse(arguments)
    if missing := [folder for folder in line.config_dirs if not Path(folder).is_dir()]:
        yield f"--config-dir: {missing[0]} is not a folder ({Path(missing[0]).absolute()})"
        return
    while True:
        culprit = line.culprit(error)
        yield _Words(error, culprit, line).text()
        if culprit is None:
            return
        line = line.without(culprit)
        try:
            cfg = line.compose()
        except Exception as another:
            if not is_of_composition(another):
                raise
            error = another
        else:
            yield from check(cfg)
            return


@dataclass(frozen=True)
class _Line:
    """A command line: its overrides and the folders with config of the user's own."""

    overrides: tuple[str, ...]
    config_dirs: tuple[str, ...]
    sweep: bool

    @classmethod
    def parse(cls, arguments: Sequence[str]) -> "_Line":
        parsed, _ = get_args_parser().parse_known_args(list(arguments))
        folders = (parsed.config_dir,) if parsed.config_dir else ()
        return cls(tuple(parsed.overrides), folders, parsed.multirun)

    def without(self, override: str) -> "_Line":
        """The line with an override taken out."""
        return replace(self, overrides=tuple(each for each in self.overrides if each != override))

    def compose(self) -> DictConfig:
        """The config, in a sweep that of its first point."""
        overrides = [_first_point(each) if self.sweep else each for each in self.overrides]
        return compose(overrides, config_dirs=self.config_dirs)

    def culprit(self, error: Exception) -> str | None:
        """The override that an exception is about: the one that it names, else the one without which it is gone."""
        if isinstance(error, OverrideParseException) and error.override in self.overrides:
            return error.override
        text = str(error)
        for override in sorted(self.overrides, key=lambda each: not each.startswith("+")):
            if any(name in text for name in _names(override)):
                return override
        # A sweep may fail at a later point than the first, which is the one that is composed here.
        if self.failure() != text:
            return None
        return next((each for each in self.overrides if self.without(each).failure() != text), None)

    def failure(self) -> str | None:
        """What composing the line raises."""
        try:
            self.compose()
        except Exception as error:
            return str(error)
        return None

    @property
    def chosen(self) -> DictConfig:
        """The config with the groups that the command line chooses, to look up keys in."""
        known = groups(self.config_dirs)
        options = tuple(each for each in self.overrides if _split(each)[0].split("@")[0] in known)
        return _compose_options(replace(self, overrides=options))

    @property
    def keys(self) -> list[str]:
        """All keys of that config."""
        return list(_keys(self.chosen, ""))


@lru_cache(maxsize=4)
def _compose_options(line: _Line) -> DictConfig:
    try:
        return line.compose()
    except Exception as error:
        if not is_of_composition(error):
            raise
        return compose()


@dataclass(frozen=True)
class _Words:
    """The message for one exception."""

    error: Exception
    culprit: str | None
    line: _Line

    def text(self) -> str:
        """One line: the key, what was given, the nearest match, what to type."""
        text = one_line(self.error)
        if found := re.search(r"In '(?P<file>[^']+)': Could not (find|load) '(?P<path>[^']+)'", text):
            return self._option(found["file"], found["path"])
        if found := re.search(r"In '(?P<file>[^']+)': .*Key '(?P<key>[^']+)' not in '(?P<schema>\w+)'", text):
            names = [each.name for each in fields(getattr(schema, found["schema"]))]
            return f"{found['file']}: {unknown('key', found['key'], names)}"
        if self.culprit is None:
            key = getattr(self.error, "full_key", None)
            return f"{key}: {text}" if key else text
        if isinstance(self.error, OverrideParseException):
            reason = text.removeprefix(f"Error parsing override {self.culprit!r} ")
            return f"{self.culprit!r} is no override; write key=value ({reason})"
        return self._override(text, *_split(self.culprit))

    def _override(self, text: str, key: str, value: str) -> str:
        cause = one_line(self.error.__cause__)
        if "Ambiguous value" in text:
            return f"{key}: {value!r} are several values; sweep over them with -m, or write [{value}] for a list"
        if "Could not delete" in text:
            return f"{key}: {self._near(key)}, so there is nothing to take out"
        if any(words in text for words in ("Could not append", "Multiple values", "appears more than once")):
            return f"{key}: is there already; write '{key}={value}', without +"
        if "config group" in text.lower() and "does not exist" in text:
            return f"{key}: {unknown('group', key.split('@')[0], groups(self.line.config_dirs))}"
        if "Config group override" in text:
            return f"{key}: {unknown('option', value, options_of(key.split('@')[0], self.line.config_dirs))}"
        if "Could not override" in text and key not in self.line.keys:
            return f"{key}: {self._near(key)}{self._addition(key, value)}"
        hint = f"; to add an entry, write '+{key}={value}'" if "is not in struct" in cause else self._mount(key, cause)
        return f"{key}: cannot be {value!r}: {cause or text}{hint}"

    def _option(self, file: str, path: str) -> str:
        """An option that is not there, chosen on the command line or in the defaults list of a file."""
        where, (group, _, option) = file, path.rpartition("/")
        key, value = _split(self.culprit or "")
        if path in [f"{key.split('@')[0]}/{each}" for each in value.split(",")]:
            where, group = key, key.split("@")[0]
            option = path.removeprefix(f"{group}/")
        return f"{where}: {unknown('option', option, options_of(group, self.line.config_dirs))}"

    def _near(self, key: str) -> str:
        group, at, _ = key.partition("@")
        known = [f"{group}@{each}" for each in self.line.keys] if at else self.line.keys
        return unknown("key", key, known).split(" (there are")[0]

    def _addition(self, key: str, value: str) -> str:
        """How to add the key, where a key may be added."""
        if "@" in key:
            return f"; to mount the group at a new place, write '+{key}={value}'"
        owner = OmegaConf.select(self.line.chosen, key.rpartition(".")[0], throw_on_missing=False)
        if isinstance(owner, DictConfig) and "_target_" in owner:
            return f"; to add an argument of {owner._target_}, write '+{key}={value}'"
        return ""

    def _mount(self, key: str, cause: str) -> str:
        """How a new entry of a typed dict comes about."""
        found = re.search(r"not a subclass of (\w+)", cause)
        if not found:
            return ""
        parts = key.split(".")
        entry = getattr(self.error.__cause__, "full_key", None) or parts[-1]
        place = ".".join(parts[: parts.index(entry) + 1]) if entry in parts else key
        if group := MOUNTED.get(found[1]):
            return f"; a new entry comes from a file of the group: '+{group}@{place}=NAME'"
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


def _keys(node: Any, prefix: str) -> Iterator[str]:
    if isinstance(node, DictConfig) and not (node._is_none() or node._is_missing() or node._is_interpolation()):
        for name in node:
            path = f"{prefix}.{name!s}" if prefix else str(name)
            yield path
            yield from _keys(node._get_node(name), path)

"""Parts of a method that are there once for each of several names, `each: peers`, and the words in braces. No torch.

`params: {peers: 2}` lists peer_1 and peer_2, `params: {peers: [wide, deep]}` what it says; an empty list is
warned of. A network, stage, adapter or loss term with `each: peers` is there once for each of them: a network under
that name, unless there is one of the name already, anything else as `<entry>_<name>`, but for a stage that is there
once only and keeps its name. The schedule names the entry. In the strings of such a part stand

    {each}            the name
    {before}          the one before it in the list; the part is left out for the first, which has none
    {before|teacher}  the same, and teacher for the first

and everywhere in the method

    {peers.first} {peers.last}      of the list; {peers.last|teacher}: teacher where the list is empty
    {peers} in an item of a list    the item once for each
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, TypeVar

from distill_app.errors import ConfigError
from distill_app.words import unknown, warn

ROLES = ("student", "teacher")
MOST = 100  # of a list that is given as a number: each is a network, stage or loss term
_WORD = re.compile(r"\{(\w+)(?:\.(first|last))?(?:\|(\w+))?\}")

App = TypeVar("App")


def written_out(app: App) -> App:
    """The same config with all that is there once for each of several names; doing so again changes nothing.

    Args:
        app: The typed config, its interpolations resolved.

    Raises:
        ConfigError: A list that is none, or a word that stands for nothing.
    """
    errors: list[str] = []
    empty: list[str] = []
    parts = {part: _method(getattr(app, part), part, errors, empty) for part in ("prelude", "method")}
    if errors:
        raise ConfigError(list(dict.fromkeys(errors)))
    for param in dict.fromkeys(empty):
        warn(f"{param} is empty: of what is there once for each of its names nothing is there")
    return replace(app, **parts)  # type: ignore[type-var]


def names_of(value: Any, *, param: str) -> list[str]:
    """The names that a parameter of a method lists: a list of them, or a number n for `<singular>_1` to `_n`.

    Raises:
        ValueError: It is neither.
    """
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST:
        return [f"{param.removesuffix('s')}_{number}" for number in range(1, value + 1)]
    named = isinstance(value, list | tuple) and all(isinstance(name, str) and name.isidentifier() for name in value)
    if not named or len(set(value)) != len(value):
        raise ValueError(f"must be a number from 0 to {MOST}, or a list of different names, got {value!r}")
    return list(value)


@dataclass(frozen=True)
class _Scope:
    """Where a string stands: what its words may mean, its config key, and where errors and empty lists are noted."""

    params: Mapping[str, Any]
    part: str
    key: str
    errors: list[str]
    empty: list[str]
    each: str | None = None
    before: str | None = None

    def at(self, name: str) -> "_Scope":
        return replace(self, key=f"{self.key}.{name}")

    def names(self, param: str) -> list[str]:
        if param not in self.params:
            self.errors.append(f"{self.key}: {unknown('list', param, self.params)} in {self.part}.params")
            return []
        try:
            if not (names := names_of(self.params[param], param=param)):
                self.empty.append(f"{self.part}.params.{param}")
            return names
        except ValueError as error:
            self.errors.append(f"{self.part}.params.{param}: {error}")
            return []


def _method(method: Any, part: str, errors: list[str], empty: list[str]) -> Any:
    scope = _Scope(method.params, part, part, errors, empty)
    networks, stages = scope.at("extra_models"), scope.at("stages")
    schedule: list[str] = []
    for entry in method.schedule:
        conf = method.stages.get(entry)
        several = conf is not None and conf.each is not None
        schedule += [name for name, _ in _instances(entry, conf, stages)] if several else [entry]
    return replace(
        method,
        extra_models=_entries(method.extra_models, networks),
        stages=_entries(method.stages, stages),
        schedule=schedule,
    )


def _entries(entries: Mapping[str, Any], scope: _Scope) -> dict[str, Any]:
    """Named parts, those with `each` once for each name; one that the config has itself stands for that of its name."""
    repeated = {
        name: (entry, own)
        for entry, conf in entries.items()
        if getattr(conf, "each", None) is not None
        for name, own in _instances(entry, conf, scope)
    }
    found: dict[str, Any] = {}
    for entry, conf in entries.items():
        if getattr(conf, "each", None) is None:
            own = repeated[entry][1] if entry in repeated else scope
            found[entry] = _write(conf, replace(own, key=scope.at(entry).key))
            continue
        for name, (of, own) in repeated.items():
            if of == entry and (name not in entries or name == entry):
                found[name] = replace(_write(conf, replace(own, key=scope.at(entry).key)), each=None)
    return found


def _instances(entry: str, conf: Any, scope: _Scope) -> Iterator[tuple[str, _Scope]]:
    """The names of what an entry stands for, each with what the words in it mean."""
    network, names = hasattr(conf, "net"), scope.at(entry).names(conf.each)
    only = hasattr(conf, "losses") and len(names) == 1
    chained = any(word[1] == "before" and not word[3] for text in _strings(conf) for word in _WORD.finditer(text))
    before = None
    for name in names:
        if not (chained and before is None) and not (network and name in ROLES):
            called = name if network else entry if only else f"{entry}_{name}"
            yield called, replace(scope, each=name, before=before)
        before = name


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif is_dataclass(value) and not isinstance(value, type):
        yield from (text for each in fields(value) for text in _strings(getattr(value, each.name)))
    elif isinstance(value, Mapping):
        yield from (text for item in value.values() for text in _strings(item))
    elif isinstance(value, list | tuple):
        yield from (text for item in value for text in _strings(item))


def _write(value: Any, scope: _Scope) -> Any:
    """The same part of the config with what its words stand for."""
    if isinstance(value, str):
        return _WORD.sub(lambda word: _meaning(word, scope), value)
    if is_dataclass(value) and not isinstance(value, type):
        own = {each.name: getattr(value, each.name) for each in fields(value)}
        return replace(value, **{name: _write(item, scope.at(name)) for name, item in own.items()})
    if isinstance(value, Mapping):
        if any(getattr(item, "each", None) is not None for item in value.values()):
            return _entries(value, scope)
        return {key: _write(item, scope.at(str(key))) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [written for item in value for written in _items(item, scope)]
    return value


def _items(item: Any, scope: _Scope) -> list[Any]:
    """An item of a list, once for each name of the list that it names."""
    words = _WORD.finditer(item) if isinstance(item, str) else ()
    params = dict.fromkeys(word[1] for word in words if not word[2] and word[1] in scope.params)
    if not params:
        return [_write(item, scope)]
    param = next(iter(params))
    return [_write(item.replace(f"{{{param}}}", name), scope) for name in scope.names(param)]


def _meaning(word: re.Match[str], scope: _Scope) -> str:
    name, end, otherwise = word.groups()
    if name in ("each", "before") and not end:
        found = scope.each if name == "each" else scope.before
        if found is None and otherwise is None:
            scope.errors.append(f"{scope.key}: {word[0]} stands for nothing here: no part around it says each: LIST")
        return found or otherwise or word[0]
    if end:
        names = scope.names(name)
        if not otherwise and f"{scope.part}.params.{name}" in scope.empty:
            scope.errors.append(f"{scope.part}.params.{name}: is empty, and {scope.key} reads its {end} ({word[0]})")
        return (names[0 if end == "first" else -1] if names else otherwise) or word[0]
    if name in scope.params:
        told = f"stands for several names; make it an item of a list, or say each: {name} and {{each}}"
    else:
        told = f"{unknown('list', name, scope.params)} in {scope.part}.params"
    scope.errors.append(f"{scope.key}: {word[0]}: {told}")
    return word[0]

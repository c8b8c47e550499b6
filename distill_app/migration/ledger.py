"""Reading a config without losing any of it: every key is used, told of, or found at the end."""

import math
import reprlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from distill_app.errors import UsageError
from distill_app.migration.dialect import Tagged

Path = tuple[str, ...]
T = TypeVar("T")
MOST = 2**63  # no count of anything comes near
REQUIRED: Any = object()  # in the place of a default: there has to be a value


@dataclass
class Ledger:
    """What was read of a file, what is left out of it, and what is done otherwise.

    Attributes:
        left_out: Key and reason of what has no counterpart.
        differs: Key and what it means here, of what is taken over and means something else.
    """

    left_out: dict[str, str] = field(default_factory=dict)
    differs: dict[str, str] = field(default_factory=dict)
    _read: set[Path] = field(default_factory=set)

    def mark(self, path: Path) -> None:
        """Notes that a value was used, with all below it."""
        self._read.add(path)

    def leave(self, path: Path, reason: str) -> None:
        """Notes that a value is left out, with all below it."""
        self.mark(path)
        self.left_out[dotted(path)] = reason

    def differ(self, key: str, meaning: str) -> None:
        """Notes that a value, or what stands in no file, means something else here."""
        self.differs.setdefault(key, meaning)

    def leave_unread(self, root: Any) -> None:
        """Names what nothing has read."""
        for path in self._unread(root, ()):
            self.left_out[dotted(path)] = "nothing here reads this key"

    def _unread(self, value: Any, path: Path) -> Iterator[Path]:
        if path in self._read:
            return
        below = list(_children(value))
        if not below:
            yield path
            return
        found = [inner for name, child in below for inner in self._unread(child, (*path, name))]
        # A subtree of which nothing was read is one thing to tell.
        yield from [path] if path and not self.touched(path) and found else found

    def has_read(self, path: Path) -> bool:
        """Whether a value was used or left out as a whole."""
        return path in self._read

    def touched(self, path: Path) -> bool:
        """Whether a value, or anything below it, was read."""
        return any(read[: len(path)] == path for read in self._read)


def _children(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        yield from ((str(name), child) for name, child in value.items())
    elif isinstance(value, list):
        yield from ((str(place), child) for place, child in enumerate(value))


def dotted(path: Path) -> str:
    """A path as it is told: train.stage1.criterion."""
    return ".".join(path)


class Node:
    """A value of the file and its place.

    What reads a value says of which kind it has to be, and counts it as used. All raise a `UsageError` that names the
    key where it is of another kind, or null without being allowed to.
    """

    def __init__(self, value: Any, ledger: Ledger, path: Path = ()):
        self.value, self.ledger, self.path = value, ledger, path

    @property
    def key(self) -> str:
        """The place as text."""
        return dotted(self.path)

    @property
    def tag(self) -> str | None:
        """The tag of what would be built."""
        return self.value.tag if isinstance(self.value, Tagged) else None

    def __bool__(self) -> bool:
        """Whether anything stands there: null and empty say nothing."""
        return self.value not in (None, "", [], {})

    def has(self, *names: str) -> bool:
        """Whether one of these keys is there."""
        return any(name in self._mapping() for name in names)

    def get(self, *names: str) -> "Node":
        """The value of the first of these keys that is there; an empty node where none is."""
        entries = self._mapping()
        name = next((name for name in names if name in entries), names[0])
        return Node(entries.get(name), self.ledger, (*self.path, name))

    def items(self) -> Iterator[tuple[str, "Node"]]:
        """The entries of a mapping."""
        for name, child in _children(self._mapping()):
            yield name, Node(child, self.ledger, (*self.path, name))

    def entries(self) -> list["Node"]:
        """The entries of a list."""
        if self and not isinstance(self.value, list):
            raise self.wrong("no list")
        return [Node(child, self.ledger, (*self.path, place)) for place, child in _children(self.value)]

    def whole(self, *names: str, default: T = REQUIRED, least: int = 0) -> int | T:
        """A whole number."""
        found = self._read(names, default, _whole, "no whole number")
        if isinstance(found, int) and found is not default and found < least:
            raise self.get(*names).wrong(f"less than {least}")
        return found

    def number(self, *names: str, default: T = REQUIRED) -> float | T:
        """A finite number; text such as 1e-4, which is one in YAML 1.2, is read as what it means."""
        return self._read(names, default, finite, "no number")

    def flag(self, *names: str, default: T = REQUIRED) -> bool | T:
        """True or false."""
        return self._read(names, default, lambda value: value if isinstance(value, bool) else None, "not true or false")

    def text(self, *names: str, default: T = REQUIRED) -> str | T:
        """A text."""
        return self._read(names, default, _text, "no text")

    def texts(self, *names: str) -> list[str]:
        """A list of texts; null and nothing are an empty one."""
        return self._all(names, _text, "no list of texts")

    def numbers(self, *names: str) -> list[float]:
        """A list of numbers; null and nothing are an empty one."""
        return self._all(names, finite, "no list of numbers")

    def edge(self, name: str, default: str = "output") -> bool:
        """Whether what goes into a module is meant; what comes out of it else."""
        if (found := self.text(name, default=default)) not in ("input", "output"):
            raise self.get(name).wrong("neither input nor output")
        return found == "input"

    def given(self) -> Any:
        """Whatever stands there, to be handed on as it is."""
        return self.use().value

    def handed_on(self, *read: str) -> dict[str, Any]:
        """The entries of a mapping of arguments, to be handed on as they are; what is no plain value is left out.

        Args:
            read: Names of those that are not handed on.
        """
        self.use() if not self else None
        given = {}
        for name, child in self.items():
            if name not in read and is_plain({name: child.value}):
                given[name] = child.given()
            elif name not in read:
                child.leave("it is no plain value: what a tag gives is known only when it is run")
        return given

    def wrong(self, what: str) -> UsageError:
        """The error of a value that is not what it has to be."""
        told = {None: "null", True: "true", False: "false"}
        plain = self.value is None or isinstance(self.value, bool)
        return UsageError(f"{self.key}: {told[self.value] if plain else reprlib.repr(self.value)} is {what}")

    def use(self) -> "Node":
        """Counts as used, with all below it."""
        self.ledger.mark(self.path)
        return self

    def leave(self, reason: str) -> None:
        """Is left out, with all below it."""
        self.ledger.leave(self.path, reason)

    def differ(self, meaning: str) -> None:
        """Means something else here."""
        self.ledger.differ(self.key, meaning)

    def rest(self, reason: str) -> None:
        """Leaves out the entries that nothing has read yet."""
        for _, child in self.items():
            if not self.ledger.touched(child.path):
                child.leave(reason)

    def _mapping(self) -> Mapping[str, Any]:
        """The entries; of what says nothing none."""
        if self and not isinstance(self.value, Mapping):
            raise self.wrong("no mapping")
        return self.value if isinstance(self.value, Mapping) else {}

    def _read(self, names: tuple[str, ...], default: Any, of: Callable[[Any], Any], what: str) -> Any:
        found = self.get(*names).use()
        if found.value is None and (default is None or (default is not REQUIRED and not self.has(*names))):
            return default
        if found.value is None and not self.has(*names):
            raise UsageError(f"{found.key}: is missing")
        if (value := of(found.value)) is None:
            raise found.wrong(what)
        return value

    def _all(self, names: tuple[str, ...], of: Callable[[Any], Any], what: str) -> list[Any]:
        found = self.get(*names).use()
        values = [of(each) for each in found.value] if isinstance(found.value, list) else [None] if found else []
        if None in values:
            raise found.wrong(what)
        return values


def is_plain(value: Any) -> bool:
    """Whether a value is data that mean the same in any YAML, and describe nothing that would be built."""
    if isinstance(value, Mapping):
        names = all(isinstance(name, str) and not name.startswith("_") for name in value)
        return names and not isinstance(value, Tagged) and all(map(is_plain, value.values()))
    if isinstance(value, list):
        return all(map(is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


def finite(value: Any) -> float | int | None:
    """The number that a value is, None where it is none."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, int):
        return _whole(value)
    return value if isinstance(value, float) and math.isfinite(value) else None


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < MOST else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None

"""Reading a config without losing any of it: every key is used, told of, or found at the end."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from distill_app.migration.dialect import Tagged

Path = tuple[str, ...]


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
        """Names what nothing has read; keys that begin with _ hold anchors, and torchdistill does not read them."""
        for path in self._unread(root, ()):
            self.left_out[dotted(path)] = "nothing here reads this key"

    def _unread(self, value: Any, path: Path) -> Iterator[Path]:
        if path in self._read or (path and path[-1].startswith("_")):
            return
        below = list(_children(value))
        if not below:
            yield path
            return
        found = [inner for name, child in below for inner in self._unread(child, (*path, name))]
        # A subtree of which nothing was read is one thing to tell.
        yield from [path] if path and not self.touched(path) and found else found

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
    """A value of the file and its place."""

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
        return isinstance(self.value, Mapping) and any(name in self.value for name in names)

    def get(self, *names: str) -> "Node":
        """The value of the first of these keys that is there; an empty node where none is."""
        for name in names:
            if self.has(name):
                return Node(self.value[name], self.ledger, (*self.path, name))
        return Node(None, self.ledger, (*self.path, names[0]))

    def take(self, *names: str, default: Any = None) -> Any:
        """The plain value of the first of these keys that is there, which counts as used."""
        found = self.get(*names)
        found.use()
        return default if found.value is None else found.value

    def items(self) -> Iterator[tuple[str, "Node"]]:
        """The entries of a mapping or list, but for those that hold anchors."""
        for name, child in _children(self.value):
            if not name.startswith("_"):
                yield name, Node(child, self.ledger, (*self.path, name))

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

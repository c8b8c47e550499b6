"""Modules of networks that adapters work with, `part` and `borrows`: what a config says of them. Imports no torch."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Part:
    """A module of a network.

    Args:
        network: With roles already replaced by the networks that play them.
        path: Of the module, or the tap that is its input or output.
        every_item: Whether it runs once for each item of lists.
    """

    network: str
    path: str
    every_item: bool = False

    @classmethod
    def parse(cls, text: str, roles: Mapping[str, str]) -> "Part":
        """Reads `network.path[:all]`.

        Raises:
            ValueError: There is no path, or another option.
        """
        place, *options = str(text).split(":")
        role, _, path = place.partition(".")
        if not path or not role:
            raise ValueError(f"{text!r} names no module; write student.<tap> or student.<path>, such as student.pooled")
        if options not in ([], ["all"]):
            raise ValueError(f"{text!r}: of the options of taps a part has :all alone, once for each item of a list")
        return cls(roles.get(role, role), path, bool(options))

    def __str__(self) -> str:
        return f"{self.network}.{self.path}{':all' if self.every_item else ''}"


def parts_of(adapter: Any, roles: Mapping[str, str]) -> list[Part]:
    """The modules of which an adapter consists, in the order in which they run; none where it is built."""
    return [Part.parse(text, roles) for text in texts_of(adapter.part)]


def texts_of(part: Any) -> list[str]:
    """A part as a list."""
    return [] if part is None else [str(each) for each in part] if isinstance(part, list | tuple) else [str(part)]


def adapter_problems(adapter: Any, key: str) -> Iterator[str]:
    """What of an adapter does not go together, whatever the networks are."""
    if adapter.module is None and not texts_of(adapter.part):
        yield (
            f"{key}: needs a module to build, such as module: {{_target_: distill_app.adapters.ConvRegressor}}, or a "
            f"part of a network, such as part: teacher.pooled"
        )
    if adapter.borrows is not None and ":" in str(adapter.borrows):
        yield f"{key}.borrows: {adapter.borrows!r}: a module as such has no options; leave out what is behind the colon"
    if adapter.part is None:
        return
    if adapter.module is not None:
        yield f"{key}: is either built (module) or a part of a network (part); take one of them out"
    for name in ("target", "borrows"):
        if getattr(adapter, name) is not None:
            yield f"{key}.{name}: says nothing of a part of a network, which is as it is; leave it out"


def live_parts(adapter: Any, key: str, *, trained: Collection[str], roles: Mapping[str, str]) -> Iterator[str]:
    """The refusal of parts of networks that the stage trains.

    Args:
        adapter: Its config; what is wrong with its texts is told already.
        key: Of its part.
        trained: The networks that the stage trains.
        roles: Of the stage.
    """
    for text in texts_of(adapter.part):
        role = text.partition(".")[0]
        if roles.get(role, role) in trained:
            yield (
                f"{key}: {text}: the stage trains {roles.get(role, role)!r}, and a part keeps its weights. Read a tap, "
                f"or write an adapter that works with the module as it is trained (borrows: {text.partition(':')[0]})"
            )

"""How things are told: names that do not exist, sizes, and the one list of errors."""

import difflib
import logging
import os
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any


def unknown(kind: str, given: str, allowed: Iterable[Any]) -> str:
    """The words for a name that does not exist: what was given, the nearest, and what is allowed."""
    names = [str(name) for name in allowed]
    near = difflib.get_close_matches(str(given), names, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"unknown {kind} {given!r}{hint} (there are: {', '.join(names) or 'none'})"


def warn(text: str) -> None:
    """Says something that the user should act on, and that the work goes on without.

    The one way of the program's own warnings: while a run is open they are told once, on the console and in its
    train.log, as are those of Python's `warnings` and of every library's `logging` (see `runs.channel`).
    """
    logging.getLogger("distill_app").warning("%s", text)


_ADVICE = ("Weights only load failed", "`weights_only`", "weights_only=", "weights_only https", "torch.load")


def advises(error: BaseException) -> bool:
    """Whether an exception advises to read a file in a way that runs what is in it, as torch's do."""
    return any(word in str(error) for word in _ADVICE)


def unadvised(error: BaseException) -> str:
    """What an exception says without torch's advice to load unsafely; what is left of many lines is the first."""
    if not advises(error):
        return str(error)
    left = (line.strip() for line in str(error).splitlines() if not any(word in line for word in _ADVICE))
    return next(filter(None, left), "it holds more than tensors and plain types, or is damaged")


def first_line(error: BaseException) -> str:
    """The kind of an exception and the first line of what it says, for a line of the list of errors."""
    line = next((line for line in unadvised(error).splitlines() if line.strip()), "")
    return ": ".join(filter(None, (type(error).__name__, textwrap.shorten(line, 300, placeholder=" ..."))))


def some(items: Iterable[Any], *, limit: int = 4) -> str:
    """The first few of a list, and how many more there are."""
    listed = [str(item) for item in items]
    more = f" and {len(listed) - limit} more" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + more


HEADER = "the configuration cannot run:"


def numbered(errors: Sequence[str]) -> str:
    """All errors as one numbered list."""
    return "\n".join([HEADER, *(f"  {number}. {text}" for number, text in enumerate(errors, start=1))])


class Listing:
    """The same list, written to stderr line by line while the errors are found, each once."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def add(self, text: str) -> None:
        """Writes the next error."""
        if text in self.texts:
            return
        if not self.texts:
            print(HEADER, file=sys.stderr)
        self.texts.append(text)
        print(f"  {len(self.texts)}. {text}", file=sys.stderr, flush=True)


def size_text(count: float) -> str:
    """Bytes in decimal units: 0.7 MB, 2.6 GB."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= 0.1 * size:
            return f"{count / size:,.1f} {unit}"
    return f"{count:.0f} bytes"


def count_text(count: float) -> str:
    """A large number with its prefix: 1.81 G, 45.3 M."""
    for prefix, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {prefix}"
    return f"{count:.0f}"


def printable(text: str) -> str:
    """A name from a file of others, without control sequences for the terminal."""
    return "".join(each if each.isprintable() else "?" for each in text)


def shortest(path: str | os.PathLike[str]) -> str:
    """A path as it is typed most shortly from here."""
    whole = os.path.abspath(path)
    try:
        below = os.path.relpath(whole)
    except OSError:  # the working directory is gone
        return whole
    return whole if below.startswith("..") else below

"""A console that may go away: a pipe whose reader has had enough, a terminal that was closed, no console at all.

What is said there is also in train.log; a training that runs for days does not end because nobody listens any more.
"""

import errno
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

_GONE = (errno.EPIPE, errno.EIO, errno.EBADF, errno.ESHUTDOWN, errno.ECONNRESET)


class _Outlasting:
    """A text stream whose writes are dropped once nobody can read them."""

    def __init__(self, stream: TextIO):
        self.stream = stream
        self.gone = False

    def write(self, text: str) -> int:
        """Writes, as long as somebody is there."""
        self._attempt(self.stream.write, text)
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Writes each."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flushes, as long as somebody is there."""
        self._attempt(self.stream.flush)

    def _attempt(self, action: Any, *arguments: Any) -> None:
        if self.gone:
            return
        try:
            action(*arguments)
        except UnicodeEncodeError:  # a console of ASCII, and a name with an umlaut
            self._attempt(action, *(str(each).encode("ascii", "backslashreplace").decode() for each in arguments))
        except ValueError:  # closed on our side
            self.gone = True
        except OSError as error:
            if error.errno not in _GONE:
                raise
            self.gone = True
            _to_nowhere(self.stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def _to_nowhere(stream: TextIO) -> None:
    """What is left in buffers, and what others write to the same descriptor, goes where it hurts nobody."""
    with suppress(OSError, ValueError):
        descriptor = stream.fileno()
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, descriptor)
        os.close(null)


@contextmanager
def outlasted() -> Iterator[None]:
    """While it is open, neither output nor logging fails because stdout or stderr are gone."""
    _occupy_descriptors()
    kept = sys.stdout, sys.stderr, logging.raiseExceptions
    sys.stdout, sys.stderr = (_outlasting(stream) for stream in kept[:2])
    logging.raiseExceptions = False  # else a handler tells of every line that could not be written
    try:
        yield
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        sys.stdout, sys.stderr, logging.raiseExceptions = kept


def _outlasting(stream: Any) -> Any:
    if isinstance(stream, _Outlasting):
        return stream
    return _Outlasting(open(os.devnull, "w", encoding="utf-8") if stream is None else stream)


def _occupy_descriptors() -> None:
    """Started with closed streams (`distill ... >&-`), the next file that is opened would be stdout to others."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)

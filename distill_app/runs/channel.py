"""Warnings have one channel: the console, and the train.log of the run that is open.

Python's `warnings`, the `logging` of every library and `words.warn` all end here, each text once.
"""

import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

Tell = Callable[[str], None]
_open: list["_Channel"] = []  # the innermost one is told


class Listener(Protocol):
    """Who writes down what is told."""

    def warning(self, text: str) -> None:
        """Tells the console and the log."""

    def note(self, text: str) -> None:
        """Tells the log alone."""


class Console:
    """Before a run has a log: tells stderr, and keeps the texts for the log."""

    def __init__(self) -> None:
        self.kept: list[str] = []

    def warning(self, text: str) -> None:
        """Tells stderr."""
        print(f"warning: {text}", file=sys.stderr, flush=True)
        self.kept.append(text)

    def note(self, text: str) -> None:
        """Keeps it for the log."""
        self.kept.append(text)


class _Channel(logging.Handler):
    """Takes what is logged from warnings on."""

    def __init__(self, listener: Listener, told: set[str]):
        super().__init__(logging.WARNING)
        self.listener, self.told = listener, told

    def handle(self, record: logging.LogRecord) -> bool:
        # Not under the handler's lock: what the listener calls may log in turn.
        if _open and _open[-1] is self:
            self.hear(record, shown=_shown_by_others(logging.getLogger()))
        return True

    def hear(self, record: logging.LogRecord, *, shown: bool) -> None:
        """Tells a record, if its text is new."""
        try:
            text = record.getMessage()
        except Exception:  # a library's format that does not fit its arguments
            text = str(record.msg)
        if record.exc_info and record.exc_info[1] is not None:
            text += f" ({type(record.exc_info[1]).__name__}: {record.exc_info[1]})"
        own = record.name.partition(".")[0] in ("distill_app", "py")
        text = text if own else f"{record.name}: {text}"
        if text in self.told:
            return
        self.told.add(text)
        (self.listener.note if shown else self.listener.warning)(text)


class _Aside(logging.Handler):
    """On a logger that keeps its records to itself, and shows them by handlers of its own."""

    def __init__(self, channel: _Channel):
        super().__init__(logging.WARNING)
        self._channel = channel

    def handle(self, record: logging.LogRecord) -> bool:
        if _open and _open[-1] is self._channel:
            self._channel.hear(record, shown=True)
        return True


@contextmanager
def one_channel(listener: Listener) -> Iterator[None]:
    """While it is open, every warning is told by this listener; inside another one, that one is silent.

    What an outer `Console` has told is written to the listener's log first, and not told again.
    """
    outer = _open[-1] if _open else None
    told: set[str] = set(outer.told) if outer is not None else set()
    if outer is not None and isinstance(outer.listener, Console):
        for text in outer.listener.kept:
            listener.note(text)
        outer.listener.kept.clear()
    channel = _Channel(listener, told)
    with ExitStack() as stack:
        _attach(logging.getLogger(), channel, stack)
        for logger in _apart():
            _attach(logger, _Aside(channel), stack)
        shown, warnings.showwarning = warnings.showwarning, _show
        stack.callback(setattr, warnings, "showwarning", shown)
        _open.append(channel)
        stack.callback(_open.remove, channel)
        yield


def _attach(logger: logging.Logger, handler: logging.Handler, stack: ExitStack) -> None:
    logger.addHandler(handler)
    stack.callback(logger.removeHandler, handler)


def _apart() -> list[logging.Logger]:
    """Loggers whose records never reach the root, as torch's."""
    known = [each for each in logging.Logger.manager.loggerDict.values() if isinstance(each, logging.Logger)]
    return [logger for logger in known if not logger.propagate]


def _shown_by_others(logger: logging.Logger) -> bool:
    """Whether handlers of somebody else's (`hydra/job_logging=default`, a notebook) put records on the console."""
    return any(type(handler) is logging.StreamHandler for handler in logger.handlers)


def _show(
    message: Any, category: type[Warning], filename: str, lineno: int, file: Any = None, line: Any = None
) -> None:
    """In the place of `warnings.showwarning`."""
    text = f"{message} ({category.__name__}, {filename}:{lineno})"
    logging.getLogger("py.warnings").warning("%s", text)

"""Signals that ask a run to end: it finishes its step, saves, and says how to go on."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
REQUEUE = signal.SIGUSR2
DOUBLED = 1.0  # seconds within which a second signal is the first one's echo: launchers and terminals both pass it on


class Interrupted(KeyboardInterrupt):
    """A signal has ended the run; what passes a KeyboardInterrupt on passes this one on.

    Args:
        number: The signal.
        then: What took this signal before: a launcher that queues the job again.
    """

    def __init__(self, number: signal.Signals, *, then: Callable[[int, FrameType | None], Any] | None = None):
        super().__init__(number.name)
        self.signal, self.then = number, then

    @property
    def exit_code(self) -> int:
        """As shells have it: 143, 130, 129."""
        return 128 + self.signal

    def __reduce__(self) -> tuple[type["Interrupted"], tuple[signal.Signals]]:
        return type(self), (self.signal,)


class Stop:
    """What has been asked of a run; it is heeded where the run allows it.

    Attributes:
        requested: The signal that came; None while there was none.
        saved: What was saved since then; empty where nothing was.
        last_words: Called before a second signal ends the process at once.
    """

    def __init__(self) -> None:
        self.requested: signal.Signals | None = None
        self.saved = ""
        self.last_words: Callable[[str], None] = lambda reason: None
        self._since, self._holds = 0.0, 0
        self._before: dict[signal.Signals, Any] = {}

    @property
    def outcome(self) -> str:
        """What became of the work, in words."""
        return f"saved {self.saved}" if self.saved else "nothing was saved since the last checkpoint"

    def request(self, number: signal.Signals) -> None:
        """Takes a signal that came to another process of the run."""
        if self.requested is None:
            self.requested, self._since = number, time.monotonic()

    def look(self) -> None:
        """Ends the run where that was asked for.

        Raises:
            Interrupted: A signal has come.
        """
        if self.requested is not None:
            before = self._before.get(self.requested) if self.requested is REQUEUE else None
            raise Interrupted(self.requested, then=before)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Inside, a signal waits until somebody looks, at the latest until the end; outside it ends the run at once."""
        self._holds += 1
        try:
            yield
        finally:
            self._holds -= 1
        if not self._holds:
            self.look()

    @contextmanager
    def listening(self) -> Iterator["Stop"]:
        """Takes signals, and gives them back; in another thread than the main one, which gets none, it does nothing.

        Signals that the process has been told to ignore (nohup) stay ignored. The one that queues a job again is taken
        only where a launcher listens to it.
        """
        try:
            for number in ENDING:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._take)
            if callable(signal.getsignal(REQUEUE)):
                self._before[REQUEUE] = signal.signal(REQUEUE, self._take)
        except ValueError:  # not the main thread
            pass
        try:
            yield self
        finally:
            for number, before in self._before.items():
                signal.signal(number, before)

    def _take(self, number: int, frame: FrameType | None) -> None:
        came, now = signal.Signals(number), time.monotonic()
        if self.requested is not None:
            if came is REQUEUE:
                self.requested = came  # whatever came first: who listens to this one queues the job again
            elif self.requested is not REQUEUE and now - self._since > DOUBLED:
                self._leave(came)
            return
        self.requested, self._since = came, now
        if self._holds:
            _say(f"{came.name}: finishing the step, then saving; a second one ends at once")
        else:
            self.look()

    def _leave(self, number: signal.Signals) -> None:
        """Ends the process here and now; what the disk has is what there is."""
        with suppress(Exception):
            self.last_words(f"a second {number.name} ended it" + ("" if self.saved else " before it had saved"))
        _say(f"{number.name} again: ended at once")
        os._exit(128 + number)


def _say(text: str) -> None:
    # Within a handler, which may have interrupted a print: Python's own streams cannot be entered twice.
    with suppress(OSError):
        os.write(2, f"{text}\n".encode())

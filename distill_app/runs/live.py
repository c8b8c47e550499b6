"""The progress of a stage at a terminal: a bar, the time that is left, images a second, every loss term, the best."""

import os
import sys
import time
from collections.abc import Iterable, Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from distill_app.runs.lines import duration

_EVERY = 0.1  # seconds between two pictures
_NARROW = 60  # columns below which the line beside the bar is short


def on_terminal() -> bool:
    """Whether stderr is a terminal that lines can be taken back from."""
    return sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


class LiveStage:
    """What is shown of a stage while it trains, below what is printed; it vanishes when it is closed.

    It is drawn when the training calls it and not by a thread of its own: processes that load data are forked in
    between, and would inherit its locks.

    Args:
        name: Of the stage.
        epochs: How many it has.
        steps: Of an epoch.
        done: Steps of the stage that are over already.
    """

    def __init__(self, name: str, *, epochs: int, steps: int, done: int):
        self._name, self._epochs, self._steps = name, epochs, max(1, steps)
        self._first = self._done = done
        self._begun = self._drawn = time.monotonic()
        self._texts: Sequence[str] = ()
        self._speed, self.best, self.word = "", "", ""
        self._console = Console(file=sys.stderr, force_terminal=True, force_jupyter=False, highlight=False)
        self._process = os.getpid()
        self._live = Live(
            get_renderable=self.picture,
            console=self._console,
            auto_refresh=False,
            transient=True,
            vertical_overflow="crop",
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start(refresh=True)

    @property
    def width(self) -> int:
        """Columns of the terminal."""
        return self._console.width

    def advance(self, n: int) -> None:
        """So many steps more are over."""
        self._done += n
        if time.monotonic() - self._drawn >= _EVERY or self._done == self._epochs * self._steps:
            self.draw()

    def values(self, texts: Sequence[str], *, images_per_second: float) -> None:
        """The values of a log point: loss and terms, rate, data wait; shown with the next picture."""
        self._texts, self._speed = texts, f"{images_per_second:,.0f} img/s"

    def draw(self) -> None:
        """Shows how it stands."""
        self._drawn = time.monotonic()
        self._live.refresh()

    def write(self, text: str, *, stream: str) -> None:
        """Prints above the picture; in a forked process, which has a copy of it, just prints."""
        if os.getpid() != self._process:
            print(text, file=getattr(sys, stream), flush=True)
            return
        self._live.stop()  # takes the picture away
        try:
            print(text, file=getattr(sys, stream), flush=True)
        finally:
            self._live.start(refresh=True)

    def close(self) -> None:
        """Takes the picture away."""
        if os.getpid() == self._process:
            self._live.stop()

    def picture(self) -> RenderableType:
        """What is shown, for the width of the terminal at hand."""
        total, narrow = self._epochs * self._steps, self._console.width < _NARROW
        epoch = min(self._done // self._steps + 1, self._epochs)
        past = time.monotonic() - self._begun
        over = self._done - self._first
        left = duration(past / over * (total - self._done)) if over else "?"
        row = Table.grid(padding=(0, 1), expand=True)
        head = f"{epoch}/{self._epochs}" if narrow else f"{self._name} epoch {epoch}/{self._epochs}"
        beside = [f"{100 * self._done // max(1, total)}%", f"{left} left" if not narrow else left]
        beside += [self._speed] if self._speed and not narrow else []
        row.add_column(no_wrap=True, overflow="ellipsis", max_width=max(8, self._console.width // 3))
        row.add_column(ratio=1, min_width=5)
        for _ in beside:
            row.add_column(no_wrap=True, justify="right")
        row.add_row(Text(head, style="bold"), ProgressBar(total=total, completed=self._done), *map(Text, beside))
        parts = [self.word, *self._texts, self.best, self._speed if narrow else ""]
        lines = _wrapped([part for part in parts if part], width=self._console.width)
        return Group(row, *(Text(line, style="dim", no_wrap=True, overflow="ellipsis") for line in lines))


def _wrapped(parts: Iterable[str], *, width: int) -> list[str]:
    """Parts in lines, each of them whole."""
    lines: list[str] = []
    for part in parts:
        if lines and len(lines[-1]) + 2 + len(part) <= width:
            lines[-1] += f"  {part}"
        else:
            lines.append(part)
    return lines

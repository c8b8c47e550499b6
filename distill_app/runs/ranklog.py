"""What the ranks of a run other than the first leave behind: a log, and no status."""

import time
from contextlib import suppress
from pathlib import Path
from typing import Any


class RankLog:
    """Warnings and tracebacks of one rank, which has no say on the terminal.

    Args:
        file: Where they go; made with the first of them.
    """

    def __init__(self, file: Path):
        self._file = file

    def warning(self, text: str) -> None:
        """Writes it down."""
        self.note(f"warning: {text}")

    def note(self, text: str, *, level: str = "WARNING") -> None:
        """Writes it down; what cannot be written is lost, and ends nothing."""
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        with suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with open(self._file, "a", encoding="utf-8") as log:
                log.writelines(f"{stamp} {level} {line}\n" for line in text.splitlines() or [""])


class NoStatus:
    """In the place of a run's status: it is the first rank that has a say in it."""

    def set(self, state: str, *, reason: str | None = None, **extra: Any) -> None:
        """Nothing."""

    def note(self, state: str, *, reason: str | None = None, **extra: Any) -> None:
        """Nothing."""

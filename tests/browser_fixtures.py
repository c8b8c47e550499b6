"""A real browser without a window, for the tests marked `browser`: where there is none they are skipped, with why."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_INSTALL = "on Debian: apt-get install chromium"


def program() -> str | None:
    """The browser of this machine."""
    return next(filter(None, map(shutil.which, _NAMES)), None)


def why_not() -> str:
    """Why there can be no browser here; empty where there is one."""
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        return "no playwright here: make install"
    return "" if program() else f"no {' or '.join(_NAMES[:2])} here; {_INSTALL}"


@contextmanager
def browser() -> Iterator[Any]:
    """The browser, started and ended."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        # No sandbox: it cannot be had as root, and what is opened is of our own making.
        started = driver.chromium.launch(executable_path=program(), args=["--no-sandbox"])
        try:
            yield started
        finally:
            started.close()

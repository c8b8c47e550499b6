"""What became of a run, and who works in its folder."""

import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distill_app.errors import RunLocked
from distill_app.runs.files import now, write_json

STATES = ("running", "done", "failed", "preempted")
_held_locks: set[int] = set()


class Status:
    """`status.json`: what became of the run, replaced atomically at every change."""

    def __init__(self, output_dir: str | os.PathLike[str]) -> None:
        self.path = Path(output_dir) / "status.json"

    def set(self, state: str, *, reason: str | None = None, **extra: Any) -> None:
        """Records a state of `STATES`; `extra` are further JSON fields, such as stage and epoch."""
        if state not in STATES:
            raise ValueError(f"status is {state!r}, allowed are {', '.join(STATES)}")
        own = {"state": state, "reason": reason, "updated": now(), "host": socket.gethostname()}
        write_json(self.path, {**own, "pid": os.getpid(), **extra})

    def read(self) -> dict[str, Any]:
        """The last record; empty where there is none or it cannot be read."""
        try:
            record = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return record if isinstance(record, dict) else {}


@contextmanager
def run_lock(output_dir: str | os.PathLike[str]) -> Iterator[None]:
    """Holds the run directory for this process; the system lets go of it however the process ends.

    Raises:
        RunLocked: another process (named by pid and host) holds it.
    """
    path = Path(output_dir) / ".lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    # A bare descriptor, since a file object would close it a second time in forked children.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    _held_locks.add(descriptor)
    try:
        _flock(descriptor, path.parent)
        os.ftruncate(descriptor, 0)
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": now()}
        os.pwrite(descriptor, json.dumps(holder).encode(), 0)
        yield
    finally:
        if descriptor in _held_locks:
            _held_locks.discard(descriptor)
            os.close(descriptor)


def _flock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        # Some network file systems have no locks at all: better to run without than not to run.
        if error.errno in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            return
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            raise
        try:
            holder = json.loads(os.pread(descriptor, 4096, 0))
            who = f"process {holder['pid']} on {holder['host']} (since {holder['since']})"
        except (ValueError, KeyError, TypeError):
            who = "another process"
        raise RunLocked(
            f"{folder} is in use by {who}: wait for it or stop it, or choose another hydra.run.dir"
        ) from None


def _release_in_child() -> None:
    # A forked loader worker that outlives its killed parent must not keep the run locked.
    for descriptor in _held_locks:
        os.close(descriptor)
    _held_locks.clear()


os.register_at_fork(after_in_child=_release_in_child)

"""What became of a run, and who works in its folder."""

import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distill_app.errors import RunLocked
from distill_app.runs.files import now, read_object, write_json
from distill_app.words import warn

STATES = ("queued", "running", "done", "failed", "preempted", "refused")
_STARTED = 19  # position of the start time behind the name of the process, see proc(5)
_held_locks: set[int] = set()


class Status:
    """`status.json`: what became of the run, replaced atomically at every change."""

    def __init__(self, output_dir: str | os.PathLike[str]) -> None:
        self.path = Path(output_dir) / "status.json"

    def set(self, state: str, *, reason: str | None = None, **extra: Any) -> None:
        """Records a state of `STATES`; `extra` are further JSON fields, such as stage and epoch."""
        if state not in STATES:
            raise ValueError(f"status is {state!r}, allowed are {', '.join(STATES)}")
        own = {"state": state, "reason": reason, "updated": now()}
        write_json(self.path, {**own, **process_record(), **extra})

    def note(self, state: str, *, reason: str | None = None, **extra: Any) -> None:
        """The same where something has gone wrong already: what cannot be recorded is a warning, never an error."""
        try:
            self.set(state, reason=reason, **extra)
        except OSError as error:
            warn(f"{self.path} cannot be written ({error.strerror or error}); the run is {state}: {reason}")

    def read(self) -> dict[str, Any]:
        """The last record; empty where there is none or it cannot be read."""
        return read_object(self.path) or {}


def process_record() -> dict[str, Any]:
    """This process, so that others can see whether it still lives: numbers of processes are given out again."""
    pid = os.getpid()
    return {"host": socket.gethostname(), "pid": pid, "machine": _machine(), "started": _start_time(pid)}


def state_of(record: Mapping[str, Any]) -> str | None:
    """What a record of `status.json` means by now: a run whose process is gone no longer runs.

    Returns:
        The state; `died` for running by a process that is gone, `running (unknown: other host)` where this machine
        cannot see the process. None where there is no state, or one that no run has.
    """
    state = record.get("state")
    if state not in STATES:
        return None
    if state != "running":
        return str(state)
    pid, host = record.get("pid"), record.get("host")
    if not isinstance(pid, int) or pid <= 0:
        return "running (unknown: no process named)"
    machine = record.get("machine")
    rebooted = isinstance(machine, str) and machine.partition(" ")[0] != _machine().partition(" ")[0]
    if host != socket.gethostname():
        return f"running (unknown: other host, {host})"
    if rebooted:
        return "died"
    if machine is not None and machine != _machine():
        return "running (unknown: other container)"
    return "running" if _lives(pid, record.get("started")) else "died"


def _lives(pid: int, started: Any) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's process; it is there
        pass
    fields = _stat(pid)
    if fields and fields[0] in "ZX":  # it has ended, and its parent has not asked how
        return False
    return started is None or not fields or started == int(fields[_STARTED])


def _start_time(pid: int) -> int | None:
    """When a process began, in clock ticks since the machine did; None where the system does not say."""
    fields = _stat(pid)
    return int(fields[_STARTED]) if fields else None


def _stat(pid: int) -> list[str]:
    """What the system says of a process, from its state on; empty where it says nothing."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    fields = text.rpartition(")")[2].split()  # the name before it may hold anything
    return fields if len(fields) > _STARTED else []


def _machine() -> str:
    """The boot of this machine, and the namespace in which its processes are numbered (a container has its own)."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return "unknown"


@contextmanager
def run_lock(output_dir: str | os.PathLike[str]) -> Iterator[None]:
    """Holds the run directory for this process; the system lets go of it however the process ends.

    Raises:
        RunLocked: Another process (named by pid and host) holds it.
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

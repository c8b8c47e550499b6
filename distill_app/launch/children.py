"""Jobs that processes of this one carry out: started, waited for with signals passed on, and what became of them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from distill_app.errors import of_description
from distill_app.launch.job import Job
from distill_app.runs.stop import Interrupted, Stop

_POLL = 0.1


class Child:
    """One process, and the job that it carries out.

    Args:
        job: What it does; the process is a new one, and gets it as plain values.
        result: A file in which it tells what came of it.
        environment: Beside that of this process.
        log: A file for what it says; None: the streams of this process.
    """

    def __init__(self, job: Job, *, result: Path, environment: Mapping[str, Any], log: Path | None):
        self._result = result
        about = {"config": job.config, "output_dir": job.output_dir, "command": job.command, "shared": job.shared}
        order = {"path": sys.path, "job": about, "result": str(result)}
        with ExitStack() as stack:
            streams: dict[str, Any] = {}
            if log is not None:
                log.parent.mkdir(parents=True, exist_ok=True)
                streams = {"stdout": stack.enter_context(open(log, "ab")), "stderr": subprocess.STDOUT}
            self.process = subprocess.Popen(
                [sys.executable, "-m", "distill_app.launch.rank"],
                stdin=subprocess.PIPE,
                env={**os.environ, **{name: str(value) for name, value in environment.items()}},
                **streams,
            )
        assert self.process.stdin is not None
        with suppress(BrokenPipeError), self.process.stdin as pipe:  # one that is gone is found by its exit code
            pipe.write(json.dumps(order).encode())

    @property
    def lives(self) -> bool:
        """Whether it has not ended yet."""
        return self.process.poll() is None

    @property
    def failed(self) -> bool:
        """Whether it has ended, and not well."""
        return self.process.returncode not in (None, 0)

    @property
    def killed(self) -> str | None:
        """Which signal has ended it, if one has and it had not told what came of it."""
        code = self.process.returncode
        return signal.Signals(-code).name if code is not None and code < 0 and not self._result.exists() else None

    def error(self) -> BaseException | None:
        """What it has told of its failure; None where it has told none."""
        try:
            outcome = json.loads(self._result.read_text())
        except (OSError, ValueError):
            return None
        if outcome.get("kind") == Interrupted.__name__:
            ended = Interrupted(signal.Signals[outcome["texts"][0]])
            for note in outcome["notes"]:
                ended.add_note(note)
            return ended
        return of_description(outcome) if outcome else None


def wait(children: Sequence[Child], stop: Stop, *, patience: float = float("inf")) -> None:
    """Waits until all have ended, and passes signals on to them.

    Args:
        children: Some of which may have ended.
        stop: Says whether this process has got a signal.
        patience: Seconds for which the others are waited for once one has failed.
    """
    until, passed = float("inf"), None
    while any(child.lives for child in children) and time.monotonic() < until:
        if stop.requested is not None and stop.requested is not passed:
            passed = stop.requested
            for child in children:
                child.process.send_signal(passed)
        if any(child.failed for child in children):
            until = min(until, time.monotonic() + patience)
        time.sleep(_POLL)


def end(children: Sequence[Child]) -> None:
    """Ends those that are left."""
    for child in children:
        if child.lives:
            child.process.kill()
    for child in children:
        child.process.wait()

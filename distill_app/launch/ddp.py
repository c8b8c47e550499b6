"""Runs a job by several processes of this machine, waits for them, and passes on what the first one says."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distill_app.errors import ConfigError, LaunchError, RankFailed, of_description
from distill_app.launch.detached import visible_gpus
from distill_app.launch.job import Job
from distill_app.runs.claim import finished_summary
from distill_app.runs.status import Status
from distill_app.runs.stop import Interrupted, Stop

PATIENCE = 25.0  # seconds in which the others end by themselves when one has failed
_POLL = 0.1


@dataclass(frozen=True)
class Ddp:
    """Carries out runs by as many processes of this machine as there are GPUs, or as are asked for.

    They share out every batch; `stage.batch_size` is that of all of them together.

    Attributes:
        tasks_per_node: How many; null: one for each GPU.

    Raises:
        ConfigError: Not at least one, or nothing to count.
    """

    tasks_per_node: int | None = None

    def __post_init__(self) -> None:
        count = self.tasks_per_node
        if count is not None and (not isinstance(count, int) or isinstance(count, bool) or count < 1):
            raise ConfigError(
                [f"launcher.tasks_per_node: must be a whole number of at least 1, or null, got {count!r}"]
            )
        if count is None and not visible_gpus():
            raise ConfigError(["launcher.tasks_per_node: there is no GPU here to count; set launcher.tasks_per_node=2"])

    @property
    def processes(self) -> int:
        """How many processes carry out a run."""
        return self.tasks_per_node or len(visible_gpus())

    def __call__(self, job: Job) -> dict[str, Any]:
        """Runs the job and returns its summary.

        Raises:
            Exception: What ended the run: the error of the rank that failed first, or that it was killed.
            Interrupted: A signal, which all ranks have got.
        """
        if self.processes == 1:
            return job()
        if job.experiment is not None:
            job.experiment.close()
        job = replace(job, output_dir=str(Path(job.output_dir).resolve()), experiment=None)
        with tempfile.TemporaryDirectory(prefix="distill-ranks-") as results, Stop().listening() as stop, stop.held():
            ranks = _Ranks(job, self.processes, results=Path(results))
            try:
                ranks.wait(stop)
            finally:
                ranks.end()
            error = ranks.error()
            if error is not None:
                raise error
        summary = finished_summary(job.output_dir)
        if summary is None:
            raise LaunchError(f"{job.output_dir}: the run has ended without a summary; see its train.log")
        return summary


class _Ranks:
    """The processes of a run."""

    def __init__(self, job: Job, count: int, *, results: Path):
        import torch.distributed as dist

        self._job, self._results, self._ended = job, results, False
        # The store lives here, so that whoever of them is left can be told what became of the others.
        self._store = dist.TCPStore("127.0.0.1", 0, count, True, wait_for_workers=False)
        self.processes = [self._started(rank, count) for rank in range(count)]

    def _started(self, rank: int, count: int) -> subprocess.Popen[bytes]:
        about = {
            "RANK": rank,
            "LOCAL_RANK": rank,
            "WORLD_SIZE": count,
            "LOCAL_WORLD_SIZE": count,
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": self._store.port,
            "TORCHELASTIC_USE_AGENT_STORE": True,
        }
        environment = {**os.environ, **{name: str(value) for name, value in about.items()}}
        with _streams(rank, Path(self._job.output_dir)) as streams:
            process = subprocess.Popen(
                [sys.executable, "-m", "distill_app.launch.rank"], stdin=subprocess.PIPE, env=environment, **streams
            )
        assert process.stdin is not None
        with suppress(BrokenPipeError), process.stdin as pipe:  # one that is gone already is found by its exit code
            pipe.write(json.dumps(self._order(rank)).encode())
        return process

    def _order(self, rank: int) -> dict[str, Any]:
        """What a rank is told to do."""
        job = self._job
        about = {"config": job.config, "output_dir": job.output_dir, "command": job.command, "shared": job.shared}
        return {"path": sys.path, "job": about, "result": str(self._result(rank))}

    def _result(self, rank: int) -> Path:
        return self._results / f"rank_{rank}"

    def wait(self, stop: Any) -> None:
        """Waits until all have ended; passes signals on, and does not wait long for those that one has left alone."""
        until, passed = float("inf"), False
        while any(process.poll() is None for process in self.processes):
            if stop.requested is not None and not passed:
                passed = True
                for process in self.processes:
                    process.send_signal(stop.requested)
            if any(process.returncode not in (None, 0) for process in self.processes):
                until = min(until, time.monotonic() + PATIENCE)
            if time.monotonic() > until:
                return
            time.sleep(_POLL)

    def end(self) -> None:
        """Ends those that are left."""
        for process in self.processes:
            if process.poll() is None:
                self._ended = True
                process.kill()
        for process in self.processes:
            process.wait()

    def error(self) -> BaseException | None:
        """What ended the run; None where all ranks have ended well."""
        if all(process.returncode == 0 for process in self.processes):
            return None
        told = [error for rank in range(len(self.processes)) if (error := self._told(rank)) is not None]
        # Those that only say that another one failed come last.
        told.sort(key=lambda error: isinstance(error, RankFailed))
        if told and not isinstance(told[0], RankFailed):
            return told[0]
        reason = self._reason(told)
        status = Status(self._job.output_dir)
        if status.read().get("state") == "running":  # the rank that writes it is gone
            status.note("failed", reason=reason)
        return LaunchError(reason)

    def _reason(self, told: list[BaseException]) -> str:
        """The cause where no rank has told an error of its own."""
        killed = [
            f"rank {rank} (process {process.pid}) was ended by {signal.Signals(-process.returncode).name}"
            for rank, process in enumerate(self.processes)
            if process.returncode < 0 and not (process.returncode == -signal.SIGKILL and self._result(rank).exists())
        ]
        status = Status(self._job.output_dir).read()
        if killed and not self._ended:
            return f"{'; '.join(killed)}; SIGKILL usually means out of memory"
        if told:
            return str(told[0])
        if status.get("state") == "failed" and status.get("reason"):
            return str(status["reason"])
        return "; ".join(killed) or "a rank ended without a word; see the logs in ranks/"

    def _told(self, rank: int) -> BaseException | None:
        try:
            outcome = json.loads(self._result(rank).read_text())
        except (OSError, ValueError):
            return None
        if outcome.get("kind") == Interrupted.__name__:
            ended = Interrupted(signal.Signals[outcome["texts"][0]])
            for note in outcome["notes"]:
                ended.add_note(note)
            return ended
        return of_description(outcome) if outcome else None


@contextmanager
def _streams(rank: int, folder: Path) -> Iterator[Mapping[str, Any]]:
    """The terminal for the first rank; a file in the run's folder for each of the others."""
    if not rank:
        yield {}
        return
    (folder / "ranks").mkdir(parents=True, exist_ok=True)
    with open(folder / "ranks" / f"rank_{rank}.out", "ab") as file:
        yield {"stdout": file, "stderr": subprocess.STDOUT}

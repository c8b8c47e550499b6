"""Runs a job by several processes of this machine, waits for them, and passes on what the first one says."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distill_app.errors import ConfigError, LaunchError, RankFailed
from distill_app.launch.children import Child, end, wait
from distill_app.launch.detached import gpu_count
from distill_app.launch.job import Job
from distill_app.runs.claim import finished_summary
from distill_app.runs.status import Status
from distill_app.runs.stop import Stop

PATIENCE = 25.0  # seconds in which the others end by themselves when one has failed


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
        if count is None and not gpu_count():
            raise ConfigError(["launcher.tasks_per_node: there is no GPU here to count; set launcher.tasks_per_node=2"])

    @property
    def processes(self) -> int:
        """How many processes carry out a run."""
        return self.tasks_per_node or gpu_count()

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
            ranks, _store = _started(job, self.processes, results=Path(results))
            try:
                wait(ranks, stop, patience=PATIENCE)
                alone = not any(rank.lives for rank in ranks)
            finally:
                end(ranks)
            if any(rank.failed for rank in ranks):
                error = _error(ranks, job.output_dir, by_themselves=alone)
                if isinstance(error, LaunchError):
                    stop.look()  # a signal that came before they could heed it
                raise error
        summary = finished_summary(job.output_dir)
        if summary is None:
            raise LaunchError(f"{job.output_dir}: the run has ended without a summary; see its train.log")
        return summary


def _started(job: Job, count: int, *, results: Path) -> tuple[list[Child], Any]:
    import torch.distributed as dist

    # The store lives here, so that whoever of them is left can be told what became of the others.
    store = dist.TCPStore("127.0.0.1", 0, count, True, wait_for_workers=False)
    common = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": store.port}
    ranks = []
    for rank in range(count):
        environment = {**common, "RANK": rank, "LOCAL_RANK": rank, "TORCHELASTIC_USE_AGENT_STORE": True}
        # The terminal is the first one's.
        log = Path(job.output_dir) / "ranks" / f"rank_{rank}.out" if rank else None
        ranks.append(Child(job, result=results / f"rank_{rank}", environment=environment, log=log))
    return ranks, store


def _error(ranks: Sequence[Child], run: str, *, by_themselves: bool) -> BaseException:
    """What ended the run."""
    told = [error for rank in ranks if (error := rank.error()) is not None]
    # Those that only say that another one failed come last.
    told.sort(key=lambda error: isinstance(error, RankFailed))
    if told and not isinstance(told[0], RankFailed):
        return told[0]
    killed = [
        f"rank {number} (process {rank.process.pid}) was ended by {rank.killed}"
        for number, rank in enumerate(ranks)
        if rank.killed is not None
    ]
    status = Status(run)
    record = status.read()
    if killed and by_themselves:
        hint = "; SIGKILL usually means out of memory" if any("SIGKILL" in text for text in killed) else ""
        reason = f"{'; '.join(killed)}{hint}"
    elif told:
        reason = str(told[0])
    elif record.get("state") == "failed" and record.get("reason"):
        reason = str(record["reason"])
    else:
        reason = "; ".join(killed) or "a rank ended without a word; see the logs in ranks/"
    if record.get("state") == "running":  # the rank that writes it is gone
        status.note("failed", reason=reason)
    return LaunchError(reason)

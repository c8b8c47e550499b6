"""`job.json` of a run: which job carries it out. Read with care, since a folder may come from somebody else."""

import os
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill_app.runs.claim import CONFIG
from distill_app.runs.files import now, read_object, write_json
from distill_app.runs.untrusted import MOST_BYTES_OF_LINES, read_limited

JOB = "job.json"
CLUSTERS = ("slurm", "local")
_SKIPPED = {".git", ".hydra", "checkpoints", "tensorboard", "submitit", "samples", "evaluation", "wandb"}
_ID = re.compile(r"\d{1,12}(_\d{1,7})?")  # of a job, or of an element of an array


@dataclass(frozen=True)
class JobRecord:
    """The job of a run.

    Attributes:
        run: The folder of the run.
        job_id: SLURM's, or the number of the process that looks after a local job.
        cluster: One of CLUSTERS.
        files: Where submitit keeps what it pickles, and its logs.
        host: The machine that submitted it, on which a local job runs.
        cancelled: When `distill cancel` ended it; None where nobody did.
    """

    run: Path
    job_id: str
    cluster: str
    files: Path
    host: str = ""
    cancelled: str | None = None

    @property
    def stdout(self) -> Path:
        """What the job prints."""
        return self.files / f"{self.job_id}_0_log.out"

    @property
    def stderr(self) -> Path:
        """What it says of errors."""
        return self.files / f"{self.job_id}_0_log.err"

    @property
    def starts(self) -> int:
        """How often it began; submitit says so in its log, to which each start appends."""
        try:
            return read_limited(self.stdout, most=MOST_BYTES_OF_LINES).count(b"Starting with ")
        except (OSError, ValueError):
            return 0

    def write(self, **more: Any) -> None:
        """Replaces the run's `job.json`."""
        about = {"job_id": self.job_id, "cluster": self.cluster, "folder": str(self.files), "host": self.host}
        write_json(self.run / JOB, {**about, "submitted": now(), **more})

    def note_cancelled(self) -> None:
        """Adds to `job.json` that the job was ended on purpose."""
        write_json(self.run / JOB, {**(read_object(self.run / JOB) or {}), "cancelled": now()})


def read_job(run: Path) -> JobRecord | None:
    """The job of a run; None where there is none, or what stands there is not one of ours."""
    record = read_object(run / JOB) or {}
    job_id, cluster, files = str(record.get("job_id")), record.get("cluster"), record.get("folder")
    if not _ID.fullmatch(job_id) or cluster not in CLUSTERS or not isinstance(files, str):
        return None
    cancelled = record.get("cancelled")
    return JobRecord(run, job_id, str(cluster), Path(files), str(record.get("host") or ""), cancelled)


def note_own_job(run: str | os.PathLike[str]) -> None:
    """Within a job of submitit: has `job.json` name it, should whoever submitted it have died before."""
    if "SUBMITIT_FOLDER" not in os.environ:
        return
    import submitit

    environment, cluster = submitit.JobEnvironment(), os.environ.get("SUBMITIT_EXECUTOR", "")
    known = read_job(Path(run))
    if cluster in CLUSTERS and (known is None or known.job_id != environment.job_id):
        files = Path(os.environ["SUBMITIT_FOLDER"])
        JobRecord(Path(run), environment.job_id, cluster, files, socket.gethostname()).write()


def point_log(run: Path) -> Path:
    """What a run says that shares its job with others."""
    return run / "point.log"


def runs_below(root: Path) -> Iterator[Path]:
    """The folders of runs that have a config: the folder itself, or those below it."""
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = sorted((name for name in subfolders if name not in _SKIPPED), key=_natural)
        if CONFIG in files:
            yield Path(folder)


def _natural(name: str) -> list[Any]:
    """Points of a sweep have numbers for names: 10 comes after 9."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]

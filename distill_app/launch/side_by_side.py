"""Several points of a sweep in one job, side by side on its GPU: small networks leave most of one idle."""

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill_app.errors import LaunchError
from distill_app.launch.children import Child, end, wait
from distill_app.launch.job import Job
from distill_app.runs.jobs import note_own_job, point_log
from distill_app.runs.status import Status
from distill_app.runs.stop import Interrupted, Stop


@dataclass(frozen=True)
class SideBySide:
    """Some jobs as one: each is a process of its own, and none minds that another one fails."""

    jobs: Sequence[Job]

    def __call__(self) -> None:
        """Carries them out; a signal reaches all of them, and all of them save.

        Raises:
            LaunchError: Some have failed.
            Interrupted: A signal; whoever queues this job again has them all go on.
        """
        cores = max(1, len(os.sched_getaffinity(0)) // len(self.jobs))
        threads = {} if "OMP_NUM_THREADS" in os.environ else {"OMP_NUM_THREADS": cores}
        with tempfile.TemporaryDirectory(prefix="distill-points-") as results, Stop().listening() as stop:
            try:
                with stop.held():
                    self._carry_out(stop, Path(results), threads)
            except Interrupted as error:
                if error.then is not None:
                    error.then(error.signal, None)  # submitit queues the job again, and ends the process
                raise

    def _carry_out(self, stop: Stop, results: Path, environment: dict[str, Any]) -> None:
        points = []
        for number, job in enumerate(self.jobs):
            note_own_job(job.output_dir)
            log = point_log(Path(job.output_dir))
            points.append(Child(job, result=results / str(number), environment=environment, log=log))
        try:
            wait(points, stop)
        finally:
            end(points)
        if stop.requested is not None:
            return
        for job, point in zip(self.jobs, points, strict=True):
            if point.killed and Status(job.output_dir).read().get("state") == "running":
                Status(job.output_dir).note("failed", reason=f"its process was ended by {point.killed}")
        if failed := [job.output_dir for job, point in zip(self.jobs, points, strict=True) if point.failed]:
            raise LaunchError(f"{len(failed)} of {len(points)} points failed: {', '.join(failed)}")

    def checkpoint(self) -> Any:
        """What submitit queues again: points that are finished by then have nothing left to do."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

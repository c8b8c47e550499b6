"""Submits a job through submitit: to SLURM, or to processes of this machine."""

import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from distill_app.errors import LaunchError
from distill_app.launch.job import Job
from distill_app.runs.claim import claim
from distill_app.runs.files import now, write_json


class Submitit:
    """Submits a run as a job: to SLURM, or to processes of this machine as a rehearsal without SLURM.

    `params` are submitit's; those of SLURM may be written with or without their prefix (`partition` or
    `slurm_partition`), null means not given. `signal_delay_s` is how long before the time limit the job is
    told to save; after `max_num_timeout` requeues for want of time it is given up. Without `wait` the call
    returns once the job is queued.

    Raises:
        ValueError: An unknown cluster or parameter, or more than one process per run.
        RuntimeError: SLURM is not there or refuses the job; with `wait`: the job failed.
    """

    def __init__(
        self,
        *,
        cluster: str,
        wait: bool = False,
        params: Mapping[str, Any] | None = None,
        max_num_timeout: int = 20,
        signal_delay_s: int = 120,
    ) -> None:
        if cluster not in ("slurm", "local"):
            raise ValueError(f"launcher.cluster is {cluster!r}, allowed are slurm and local")
        self.cluster, self.wait = cluster, wait
        self.params = {key: value for key, value in (params or {}).items() if value is not None}
        self.max_num_timeout, self.signal_delay_s = max_num_timeout, signal_delay_s
        for key in ("nodes", "tasks_per_node"):
            if self.params.get(key, 1) != 1:
                raise ValueError(f"launcher.params.{key} is {self.params[key]}, allowed is 1: a run is one process")

    def __call__(self, job: Job) -> dict[str, Any]:
        """Submits, writes `job.json` beside the run's other records, prints how to follow the job."""
        output_dir = Path(job.output_dir).resolve()
        claim(output_dir, job.config)  # also while it waits in the queue, no other experiment may take the folder
        folder = output_dir / "submitit"
        folder.mkdir(parents=True, exist_ok=True)
        executor = self.executor(folder, name=_job_name(job.config))
        submitted = self.submit(executor, replace(job, output_dir=str(output_dir)))
        record = {"job_id": submitted.job_id, "cluster": self.cluster, "folder": str(folder), "submitted": now()}
        write_json(output_dir / "job.json", record)
        cancel = f"scancel {submitted.job_id}" if self.cluster == "slurm" else f"kill {submitted.job_id}"
        print(
            f"submitted job {submitted.job_id} ({self.cluster}) for {output_dir}\n"
            f"  follow: tail -F '{submitted.paths.stdout}'    cancel: {cancel}",
            flush=True,
        )
        return _result(submitted) if self.wait else {"job_id": submitted.job_id}

    def submit(self, executor: Any, job: Job) -> Any:
        """Hands a job to submitit's executor and returns submitit's job.

        Raises:
            LaunchError: SLURM refuses it.
        """
        from submitit.core.utils import FailedJobError

        if self.cluster == "local":
            with _streams_closed():
                return executor.submit(job)
        try:
            return executor.submit(job)
        except FailedJobError as error:
            raise LaunchError(f"SLURM refused the job, see launcher.params: {error}") from error

    def executor(self, folder: Path, *, name: str) -> Any:
        """Submitit's executor with the parameters of this launcher.

        Raises:
            LaunchError: There is no SLURM here.
            ValueError: A parameter that submitit does not know.
        """
        import submitit

        if self.cluster == "local":
            # AutoExecutor would not let the signal delay through to the local executor.
            local = submitit.LocalExecutor(folder, max_num_timeout=self.max_num_timeout)
            local.update_parameters(**self._local_parameters())
            return local
        try:
            executor = submitit.AutoExecutor(folder, cluster="slurm", slurm_max_num_timeout=self.max_num_timeout)
        except RuntimeError as error:
            raise LaunchError(
                f"launcher: no SLURM on this machine ({error}); use launcher=local or launcher=submitit_local"
            ) from error
        try:
            executor.update_parameters(**{"name": name, **self.slurm_parameters()})
        except (NameError, AssertionError) as error:
            raise ValueError(f"launcher.params: {error}") from error
        return executor

    def slurm_parameters(self) -> dict[str, Any]:
        """The parameters with the prefix that submitit wants for those of SLURM."""
        import submitit

        shared = submitit.AutoExecutor._valid_parameters()
        given = {"signal_delay_s": self.signal_delay_s, **self.params}
        if "cpus_per_task" in given:
            # From SLURM 22.05 srun no longer inherits the number of CPUs from the job.
            export = f"export SRUN_CPUS_PER_TASK={given['cpus_per_task']}"
            given["setup"] = [*given.get("setup", ()), export]
        return {
            key if key in shared or key.startswith("slurm_") else f"slurm_{key}": value for key, value in given.items()
        }

    def _local_parameters(self) -> dict[str, Any]:
        used = ("timeout_min", "stderr_to_stdout", "setup")
        parameters = {key: self.params[key] for key in used if key in self.params}
        # submitit hides every GPU from a local job that asks for none.
        visible = _visible_gpus()
        count = min(self.params.get("gpus_per_node", 1), len(visible))
        parameters |= {"gpus_per_node": count, "visible_gpus": visible[:count]}
        return {**parameters, "tasks_per_node": 1, "signal_delay_s": self.signal_delay_s}


def _result(job: Any) -> dict[str, Any]:
    error = job.exception()
    if error is None:
        summary: dict[str, Any] = job.result()
        return summary
    # submitit names its log and the traceback of the task.
    raise LaunchError(f"job {job.job_id} failed; its log is {job.paths.stderr}\n{error}") from error


@contextmanager
def _streams_closed() -> Iterator[None]:
    # The local job inherits our streams, and whoever reads them through a pipe would wait for the job to end.
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(descriptor) for descriptor in range(3)]
    null = os.open(os.devnull, os.O_RDWR)
    try:
        for descriptor in range(3):
            os.dup2(null, descriptor)
        yield
    finally:
        for descriptor, copy in enumerate(kept):
            os.dup2(copy, descriptor)
            os.close(copy)
        os.close(null)


def _visible_gpus() -> list[int]:
    variable = os.environ.get("CUDA_VISIBLE_DEVICES")
    if variable is not None:
        return [int(part) for part in variable.split(",") if part.strip().isdigit()]
    return sorted(int(file.name[6:]) for file in Path("/dev").glob("nvidia[0-9]*") if file.name[6:].isdigit())


def _job_name(config: Mapping[str, Any]) -> str:
    method = (config.get("method") or {}).get("name") or "run"
    return re.sub(r"[^A-Za-z0-9_.-]", "_", f"distill-{method}")

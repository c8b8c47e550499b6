"""Submits runs through submitit: to SLURM, several of them as one job array, or to processes of this machine."""

import os
import re
import shlex
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distill_app.errors import ConfigError, LaunchError
from distill_app.launch.detached import gpus_of, streams_closed
from distill_app.launch.job import Job
from distill_app.launch.scheduler import QUEUED, RUNNING, alive
from distill_app.launch.side_by_side import SideBySide
from distill_app.launch.values import idle, problems, refusal
from distill_app.launch.waiting import outcome, until_over
from distill_app.runs.claim import claim, finished_summary
from distill_app.runs.files import write_json, write_text
from distill_app.runs.jobs import JobRecord, read_job
from distill_app.runs.status import Status
from distill_app.words import warn

_NEVER_RAN = (None, "refused", "queued")


@dataclass(frozen=True)
class Submitit:
    """Submits runs as jobs: to SLURM, or to processes of this machine as a rehearsal without SLURM.

    Several runs of one launcher are one job array. Null means: the cluster's own default.

    Attributes:
        cluster: `slurm` or `local`.
        nodes: Of a run.
        tasks_per_node: Processes of a run on each node, which share out every batch.
        gpus_per_node: Of a run, on each node; null or 0 for none. A local job gets as many as there are, at most.
        cpus_per_task: Of a process.
        mem_gb: Of a node, main memory.
        timeout_min: Minutes after which SLURM ends the job.
        partition: SLURM's.
        account: SLURM's.
        qos: SLURM's.
        constraint: What a node must have, as `a100|h100`.
        points_per_job: How many runs of a sweep share one job and its GPU, side by side.
        array_parallelism: How many jobs of an array run at the same time, at most.
        signal_delay_s: Seconds before the time limit at which the job is told to save; it is queued again then.
        setup: Lines of shell before the run, as `module load cuda`.
        srun_args: Further arguments of srun.
        additional_parameters: Further options of sbatch.
        max_num_timeout: How often a job that is out of time is queued again.
        wait: Whether the call returns only when the runs are over.
        dry_run: Whether the batch file is printed and nothing is submitted.

    Raises:
        ConfigError: Values with which nothing can be submitted; all of them.
    """

    cluster: str
    nodes: int = 1
    tasks_per_node: int = 1
    gpus_per_node: int | None = 1
    cpus_per_task: int | None = None
    mem_gb: float | None = None
    timeout_min: int = 1440
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    points_per_job: int = 1
    array_parallelism: int | None = None
    signal_delay_s: int = 120
    setup: Sequence[str] = ()
    srun_args: Sequence[str] = ()
    additional_parameters: Mapping[str, Any] | None = None
    max_num_timeout: int = 20
    wait: bool = False
    dry_run: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "additional_parameters", dict(self.additional_parameters or {}))
        if wrong := list(problems(vars(self))):
            raise ConfigError(wrong)

    @property
    def processes(self) -> int:
        """How many processes carry out a run."""
        return self.nodes * self.tasks_per_node

    def __call__(self, job: Job) -> dict[str, Any]:
        """Submits one run; see `submit`.

        Raises:
            LaunchError: SLURM is not there or refuses it; with `wait`: the run failed.
        """
        (answer,) = self.submit([job])
        return self.awaited(job) if self.wait and "job_id" in answer else answer

    def awaited(self, job: Job) -> dict[str, Any]:
        """The summary of a run that was submitted, once it is over.

        Raises:
            LaunchError: It failed.
        """
        until_over([Path(job.output_dir).resolve()])
        return outcome(Path(job.output_dir).resolve())

    def submit(self, jobs: Sequence[Job]) -> list[dict[str, Any]]:
        """Submits runs that are neither queued nor running, as one array, and says how to follow them.

        Every folder has its config and the state `queued` before, and `job.json` at the latest when the job begins.

        Args:
            jobs: The runs.

        Returns:
            Of every run its `job_id`, and `already` with what it does where it had one; its summary where it is
            finished; nothing with `dry_run`.

        Raises:
            LaunchError: There is no SLURM, or it refuses them.
        """
        jobs = [replace(job, output_dir=str(Path(job.output_dir).resolve()), experiment=None) for job in jobs]
        for note in idle(vars(self)):
            warn(note)
        if self.dry_run:
            print(self.batch_file(jobs), flush=True)
            return [{} for _ in jobs]
        known = [record for job in jobs if (record := read_job(Path(job.output_dir))) is not None]
        busy = {run: state for run, state in alive(known).items() if state in (QUEUED, RUNNING)}
        answers: dict[str, dict[str, Any]] = {}
        for record in known:
            if record.run in busy:
                answers[str(record.run)] = {"job_id": record.job_id, "already": busy[record.run]}
                print(
                    f"already {busy[record.run]}: job {record.job_id} ({record.cluster}) for {record.run}", flush=True
                )
        for job in jobs:
            # It may have been finished since it was looked at.
            if job.output_dir not in answers and (summary := finished_summary(job.output_dir)) is not None:
                answers[job.output_dir] = summary
        if new := [job for job in jobs if job.output_dir not in answers]:
            answers |= {str(run): {"job_id": record.job_id} for run, record in self._submitted(new).items()}
        return [answers[job.output_dir] for job in jobs]

    def _submitted(self, jobs: Sequence[Job]) -> dict[Path, JobRecord]:
        files = _common_folder(jobs) / "submitit"
        executor = self.executor(files, name=_job_name(jobs[0].config))
        before = {job.output_dir: Status(job.output_dir).read() for job in jobs}
        for job in jobs:
            claim(job.output_dir, job.config)  # while it is queued, no other experiment may take the folder
            write_text(Path(job.output_dir) / "command.txt", shlex.join(job.command) + "\n")
            Status(job.output_dir).set("queued")
        try:
            made = self._handed_over(executor, jobs)
        except BaseException as error:
            for folder, record in before.items():
                _take_back(Path(folder), record, reason=str(error))
            raise
        host, found = socket.gethostname(), {}
        for job, submitted in zip(jobs, made, strict=True):
            run = Path(job.output_dir)
            found[run] = JobRecord(run, str(submitted.job_id), self.cluster, files, host)
            found[run].write()
        _tell(list(found.values()))
        return found

    def _handed_over(self, executor: Any, jobs: Sequence[Job]) -> list[Any]:
        """Hands runs to submitit's executor; several are one array."""
        from submitit.core.utils import FailedJobError

        work = self._divided(jobs)
        if self.cluster == "local":
            made = []
            with streams_closed():
                for number, each in enumerate(work):
                    executor.update_parameters(**self.local_parameters(number))
                    made.append(executor.submit(each))
            return self._of_each(made, jobs)
        if self.array_parallelism is None:
            executor.update_parameters(array_parallelism=len(work))  # submitit's own limit is 256
        try:
            with executor.batch():
                made = [executor.submit(each) for each in work]
        except FailedJobError as error:
            said = _said_by_sbatch(error)
            raise LaunchError(f"SLURM refused the job: {refusal(said, vars(self))}\nsbatch: {said}") from error
        return self._of_each(made, jobs)

    def _divided(self, jobs: Sequence[Job]) -> list[Any]:
        """What each job does: a run, or some of them side by side."""
        if self.points_per_job == 1:
            return list(jobs)
        count = self.points_per_job
        return [SideBySide(list(jobs[start : start + count])) for start in range(0, len(jobs), count)]

    def _of_each(self, made: Sequence[Any], jobs: Sequence[Job]) -> list[Any]:
        """The job of every run."""
        return [made[number // self.points_per_job] for number in range(len(jobs))]

    def executor(self, files: Path, *, name: str) -> Any:
        """Submitit's executor with the parameters of this launcher.

        Args:
            files: The folder of submitit's pickles and logs.
            name: What SLURM calls the job.

        Raises:
            LaunchError: There is no SLURM here.
        """
        import submitit

        files.mkdir(parents=True, exist_ok=True)
        if self.cluster == "local":
            local = submitit.LocalExecutor(files, max_num_timeout=self.max_num_timeout)
            local.update_parameters(**self.local_parameters(0))
            return local
        try:
            executor = submitit.SlurmExecutor(files, max_num_timeout=self.max_num_timeout)
        except RuntimeError as error:
            raise LaunchError(
                f"launcher: no SLURM on this machine ({error}); use launcher=local or launcher=submitit_local"
            ) from error
        executor.update_parameters(job_name=name, **self.slurm_parameters())
        return executor

    def batch_file(self, jobs: Sequence[Job]) -> str:
        """What sbatch would be given; where there is no SLURM, too."""
        if self.cluster == "local":
            return f"no batch file: {len(jobs)} local jobs"
        import submitit

        class Somewhere(submitit.SlurmExecutor):
            @classmethod
            def affinity(cls) -> int:
                return 1

        executor = Somewhere(_common_folder(jobs) / "submitit", max_num_timeout=self.max_num_timeout)
        executor.update_parameters(job_name=_job_name(jobs[0].config), **self.slurm_parameters())
        if (count := len(self._divided(jobs))) > 1:
            executor.parameters |= {"map_count": count, "array_parallelism": self.array_parallelism or count}
        text: str = executor._make_submission_file_text(executor._submitit_command_str, "dry_run")
        return text

    def slurm_parameters(self) -> dict[str, Any]:
        """The parameters in the words of sbatch."""
        named = {
            "nodes": self.nodes,
            "ntasks_per_node": self.tasks_per_node,
            "gpus_per_node": self.gpus_per_node or None,  # 0 of what a cluster has not is refused, too
            "cpus_per_task": self.cpus_per_task,
            "mem": None if self.mem_gb is None else f"{int(self.mem_gb * 1024)}M",
            "time": self.timeout_min,
            "partition": self.partition,
            "account": self.account,
            "qos": self.qos,
            "constraint": self.constraint,
            "array_parallelism": self.array_parallelism,
            "signal_delay_s": self.signal_delay_s,
            "srun_args": list(self.srun_args) or None,
            "additional_parameters": self.additional_parameters or None,
        }
        setup = list(self.setup)
        if self.cpus_per_task is not None:
            # From SLURM 22.05 srun no longer inherits the number of CPUs from the job.
            setup.append(f"export SRUN_CPUS_PER_TASK={self.cpus_per_task}")
        return {key: value for key, value in {**named, "setup": setup or None}.items() if value is not None}

    def local_parameters(self, number: int) -> dict[str, Any]:
        """The parameters of submitit's local executor, which hides every GPU from a job that asks for none.

        Args:
            number: Of the job: those that run side by side take turns at the GPUs.

        Raises:
            LaunchError: GPUs are named in a way that it cannot pass on.
        """
        gpus = gpus_of(number, count=self.gpus_per_node or 0)
        about = {"timeout_min": self.timeout_min, "setup": list(self.setup), "signal_delay_s": self.signal_delay_s}
        return {
            **about,
            "tasks_per_node": self.tasks_per_node,
            "gpus_per_node": len(gpus),
            "visible_gpus": gpus,
        }


def _take_back(run: Path, before: Mapping[str, Any], *, reason: str) -> None:
    """What a run was before it was to be queued; a folder in which nothing ran is free again."""
    if before.get("state") in _NEVER_RAN:
        Status(run).note("refused", reason=reason.partition("\n")[0])
    else:
        write_json(Status(run).path, before)


def _tell(records: Sequence[JobRecord]) -> None:
    first = records[0]
    if len(records) == 1:
        print(f"submitted job {first.job_id} ({first.cluster}) for {first.run}")
        place = str(first.run)
    else:
        place = str(first.files.parent)
        array = first.job_id.partition("_")[0]
        count = len({record.job_id for record in records})
        what = f"array {array}, {count} jobs" if first.cluster == "slurm" else f"{count} jobs"
        what += f" of {len(records)} runs" if count != len(records) else ""
        print(f"submitted {what} ({first.cluster}) for {place}")
    quoted = place if re.fullmatch(r"[\w./-]+", place) else f"'{place}'"
    print(f"  follow: distill jobs {quoted}    log: distill logs RUN    cancel: distill cancel {quoted}", flush=True)


def _common_folder(jobs: Sequence[Job]) -> Path:
    """Where the files of submitit belong: in the run's folder, or that of the sweep."""
    if len(jobs) == 1:
        return Path(jobs[0].output_dir)
    return Path(os.path.commonpath([job.output_dir for job in jobs]))


def _said_by_sbatch(error: BaseException) -> str:
    """The error of sbatch, without submitit's words around it."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = [line.partition("error:")[2].strip() or line for line in lines if "sbatch" in line or "error" in line]
    return "; ".join(dict.fromkeys(told)) or str(error).strip()


def _job_name(config: Mapping[str, Any]) -> str:
    method = (config.get("method") or {}).get("name") or "run"
    return re.sub(r"[^A-Za-z0-9_.-]", "_", f"distill-{method}")

"""The jobs of a sweep that are submitted together, when all its points are known."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from distill_app.errors import LaunchError
from distill_app.launch.job import Job
from distill_app.launch.submitit import Submitit

GATHERED = "not submitted"


class Queue:
    """Jobs and their launchers; those of equal launchers become one array."""

    def __init__(self) -> None:
        self.entries: list[tuple[Submitit, Job]] = []

    def add(self, launcher: Any, job: Job) -> dict[str, Any]:
        """Keeps a job to be submitted, or carries it out where its launcher submits nothing.

        Returns:
            What the launcher returns; `state` says that the job is kept.
        """
        if not isinstance(launcher, Submitit):
            answer: dict[str, Any] = launcher(job)
            return answer
        self.entries.append((launcher, replace(job, experiment=None)))
        return {"state": GATHERED}

    def submit(self) -> dict[str, dict[str, Any] | Exception]:
        """Submits what was kept.

        Returns:
            Folder -> the answer of the launcher, the run's summary if that waits, or what went wrong.
        """
        answers: dict[str, dict[str, Any] | Exception] = {}
        for launcher, jobs in _grouped(self.entries):
            try:
                answers |= {job.output_dir: each for job, each in zip(jobs, launcher.submit(jobs), strict=True)}
            except LaunchError as error:
                answers |= {job.output_dir: error for job in jobs}
        for launcher, job in self.entries:
            answer = answers[job.output_dir]
            if launcher.wait and not isinstance(answer, Exception) and "job_id" in answer:
                answers[job.output_dir] = _awaited(launcher, job)
        self.entries = []
        return answers


def _awaited(launcher: Submitit, job: Job) -> dict[str, Any] | Exception:
    try:
        return launcher.awaited(job)
    except LaunchError as error:
        return error


def _grouped(entries: Iterable[tuple[Submitit, Job]]) -> Iterable[tuple[Submitit, list[Job]]]:
    groups: list[tuple[Submitit, list[Job]]] = []
    for launcher, job in entries:
        for known, jobs in groups:
            if known == launcher:
                jobs.append(job)
                break
        else:
            groups.append((launcher, [job]))
    return groups

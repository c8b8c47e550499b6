"""Runs a job in this process."""

from typing import Any

from distill_app.launch.job import Job


class Local:
    """Runs the job in this process and returns its summary."""

    def __call__(self, job: Job) -> dict[str, Any]:
        """Carries out the job; its exceptions are the caller's."""
        return job()

"""Launchers: how one run is carried out - in this process, by several, or as a job through submitit.

A launcher is called with a job and returns the run's summary, or what identifies the job that will make it.
"""

from distill_app.launch.ddp import Ddp
from distill_app.launch.job import Job
from distill_app.launch.local import Local
from distill_app.launch.submitit import Submitit

__all__ = ["Ddp", "Job", "Local", "Submitit"]

"""Trackers: where the records of a run are shown besides its folder; a config names one by `_target_`."""

from distill_app.runs.outlets import Outlet
from distill_app.trackers.mlflow import MLflow
from distill_app.trackers.tensorboard import TensorBoard
from distill_app.trackers.trackio import Trackio
from distill_app.trackers.wandb import WandB

__all__ = ["MLflow", "Outlet", "TensorBoard", "Trackio", "WandB"]

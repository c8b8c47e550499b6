"""Tasks: what a batch is, how a network is asked about it, and how answers are judged."""

from distill_app.runs.metrics import Metric
from distill_app.tasks.base import Task
from distill_app.tasks.classification import Classification
from distill_app.tasks.detection import Detection
from distill_app.tasks.images import ImageTask
from distill_app.tasks.multilabel import MultiLabel
from distill_app.tasks.segmentation import Segmentation

__all__ = ["Classification", "Detection", "ImageTask", "Metric", "MultiLabel", "Segmentation", "Task"]

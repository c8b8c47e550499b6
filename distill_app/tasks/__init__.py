"""Tasks: how a batch meets a network, and how networks are evaluated."""

from distill_app.tasks.classification import Classification

__all__ = ["Classification"]

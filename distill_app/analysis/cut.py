"""The cut of a network on the images that it is judged by: what crosses it, and what is computed on either side."""

from collections.abc import Iterable
from contextlib import closing
from typing import Any

import torch

from distill_app.models.cut import CutReport, has_bottleneck, mean_cut, measured_cut
from distill_app.networks.answers import Answers
from distill_app.networks.network import Network
from distill_app.tasks.base import Batch, Task

IMAGES = 8  # of an evaluation that are looked at; the network runs once more on each


def cut_of(task: Task, network: Network, batches: Iterable[Batch]) -> CutReport | None:
    """What crosses the cut of a network, image by image, in the sizes in which it is asked in an evaluation.

    Args:
        task: Says how the network is asked.
        network: Without a bottleneck there is no cut.
        batches: Prepared, of one image each.

    Returns:
        The means; None without a cut, or without images.
    """
    if not has_bottleneck(network.module):
        return None
    with closing(Answers(network, task.answer)) as answers:
        reports = [
            measured_cut(network.module, _asking(task, answers, batch, network.name), image=batch["input"][0].numel())
            for batch in batches
        ]
    return mean_cut(reports) if reports else None


def _asking(task: Task, answers: Answers, batch: Batch, name: str) -> Any:
    def ask() -> Any:
        with torch.no_grad():
            return task.ask(answers, batch, name=name)

    return ask

"""What the networks of a stage say of some images, drawn beside the truth."""

from contextlib import closing
from typing import Any

import torch

from distill_app.config.plan import StagePlan
from distill_app.networks.answers import Answers
from distill_app.networks.modes import evaluating, untouched
from distill_app.networks.network import Network
from distill_app.tasks.base import Batch, Task
from distill_app.training.experiment import Experiment

_MOST = 6  # images: a row each


@torch.no_grad()
def answers_of(experiment: Experiment, plan: StagePlan, *, count: int) -> dict[str, list[Any]]:
    """Pictures of the first images by which epochs are judged.

    Args:
        experiment: Its networks have the weights that are to be looked at.
        plan: The stage; its task draws, or nothing is asked.
        count: How many images there may be.

    Returns:
        `truth`, `teacher` where it can be judged by these data, and what the stage trains, each with a picture for
        every image; empty where the task draws nothing.
    """
    task = experiment.task(plan)
    if not task.draws:
        return {}
    data = experiment.data.stage(plan)
    batches = list(data.one_by_one(device=experiment.device, count=min(count, _MOST)))
    if not batches:
        return {}
    columns = {"truth": [picture for batch in batches for picture in task.draw(batch, None)]}
    teacher = plan.network("teacher")
    names = [teacher] * (teacher in experiment.parts.networks and teacher not in plan.trained) + plan.trained
    for name in names:
        pictures = _pictures(task, experiment.parts.networks[name], batches, trained=name in plan.trained)
        columns |= {name: pictures} if pictures else {}
    return columns


def _pictures(task: Task, network: Network, batches: list[Batch], *, trained: bool) -> list[Any]:
    """What a network says of some images; nothing of one that no stage trains and that does not fit the data."""
    with closing(Answers(network, task.answer)) as answers, evaluating(network.module), untouched(network.module):
        found = [task.ask(answers, batch, name=network.name) for batch in batches]
    if not trained and task.misfit(found[0], batches[0]) is not None:
        return []
    return [picture for answer, batch in zip(found, batches, strict=True) for picture in task.draw(batch, answer)]

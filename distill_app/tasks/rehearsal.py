"""An evaluation tried out on two samples, before anything trains."""

from collections.abc import Iterable
from typing import Any

import torch

from distill_app.networks.answers import Answers
from distill_app.networks.modes import evaluating
from distill_app.networks.network import Network
from distill_app.networks.taps import shapes_in
from distill_app.runs.metrics import ABOUT
from distill_app.tasks.base import Batch, Task


@torch.no_grad()
def evaluation_problems(task: Task, networks: Iterable[Network], batch: Batch, *, key: str) -> list[str]:
    """What would stop an evaluation after hours of training.

    Args:
        task: What judges.
        networks: Those that will be judged.
        batch: Some samples of an evaluation, prepared.
        key: Of the task, for messages.

    Raises:
        SettingError: A network returns several tensors, and no tap says which of them is the answer.
    """
    problems: list[str] = []
    for network in networks:
        answers = Answers(network, task.answer)
        try:
            with evaluating(network.module):
                answer = task.ask(answers, batch, name=network.name)
        finally:
            answers.close()
        problems += _judging_problems(task, answer, batch, key=key)
    return list(dict.fromkeys(problems))


def _judging_problems(task: Task, answer: Any, batch: Batch, *, key: str) -> list[str]:
    """What the task cannot do with an answer, or does not describe of what it makes of it."""
    kind, names = type(task).__name__, [metric.name for metric in task.metrics]
    try:
        sums = task.start()
        task.add(sums, answer, batch)
        figures = task.figures(sums)
        task.details(sums)
    except Exception as error:
        text = next(iter(str(error).splitlines()), "")
        shapes = f"an answer {shapes_in(answer) or type(answer).__name__} and a target {shapes_in(batch['target'])}"
        return [f"{key}: {kind} cannot judge {shapes}: {type(error).__name__}: {text}"]
    if len(set(names)) < len(names):
        return [f"{key}: {kind}.metrics has a name twice: {', '.join(names)}"]
    if taken := [name for name in names if name in ABOUT]:
        return [f"{key}: {kind}.metrics: {', '.join(taken)} is something else in a table; give it another name"]
    if strange := [name for name in figures if name not in names]:
        described = ", ".join(names) or "none"
        return [f"{key}: {kind}.figures gives {', '.join(strange)}, and {kind}.metrics describes {described}"]
    if names and names[0] not in figures:
        return [f"{key}: {kind}.figures does not give {names[0]}, by which epochs are judged"]
    return []

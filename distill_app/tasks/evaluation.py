"""Evaluating a network: every sample once, sums batch by batch, figures at the end."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from distill_app.errors import DistillError
from distill_app.networks.answers import Answers
from distill_app.networks.modes import evaluating
from distill_app.networks.network import Network
from distill_app.networks.taps import map_tensors
from distill_app.tasks.base import Batch, Sums, Task, merged
from distill_app.world import ALONE, World


@dataclass
class Evaluation:
    """What came out of an evaluation.

    Attributes:
        figures: Metric -> number or list of numbers; None where it is not defined, or cannot be had.
        reasons: Metric -> why it cannot be had.
        details: What else the task says of it, in plain values.
    """

    figures: dict[str, Any]
    reasons: dict[str, str] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def beside(self) -> dict[str, Any]:
        """What is written beside the figures, by name; only what there is."""
        return {name: value for name in ("reasons", "details") if (value := getattr(self, name))}


class _Unfit(Exception):
    """Why a network cannot be judged by these data, or compared."""


@torch.no_grad()
def evaluate(
    task: Task,
    network: Network,
    batches: Iterable[Batch],
    *,
    device: torch.device,
    reference: Network | None = None,
    trained: bool = True,
    world: World = ALONE,
) -> Evaluation:
    """The figures of a network over a data set, every sample counted once.

    Args:
        task: What is summed, and what becomes of the sums.
        network: Runs in eval mode; its modes are given back.
        batches: Unprepared.
        device: Where to run.
        reference: A second network, to compare answers with: the teacher.
        trained: The run trains the network, so that whatever it cannot do is an error. Else what it cannot do has no
            figure but a reason: a teacher may have learnt other classes, or other images.
        world: The ranks that share out the batches; the figures are those of all of them.

    Raises:
        SettingError: The network returns several tensors, and no tap says which of them is the answer.
    """
    names = [metric.name for metric in task.metrics]
    sums, reason, unfit = task.start(), "", ""
    try:
        sums, reason = _sums(task, network, batches, device=device, reference=reference, trained=trained)
    except _Unfit as error:
        unfit = str(error)
    if world.size > 1:
        # Every rank says what it has come to: one with no samples has found nothing against the network.
        parts = world.gather((_on_host(sums), reason, unfit))
        reason = next((each[1] for each in parts if each[1]), "")
        unfit = next((each[2] for each in parts if each[2]), "")
        sums = merged([each[0] for each in parts])
    if unfit:
        return Evaluation(dict.fromkeys(names), dict.fromkeys(names, f"{network.name} {unfit}"))
    figures = {name: plain(value) for name, value in task.figures(sums).items()}
    # What a comparison would have given is what is described and not there.
    missing = [name for name in names if name not in figures] if reason else []
    reasons = dict.fromkeys(missing, f"{network.name} {reason}")
    return Evaluation(figures | dict.fromkeys(missing), reasons, task.details(sums))


def _sums(
    task: Task,
    network: Network,
    batches: Iterable[Batch],
    *,
    device: torch.device,
    reference: Network | None,
    trained: bool,
) -> tuple[Sums, str]:
    """The sums over the batches, and why there is no comparison where one was asked for."""
    sums, reason = task.start(), ""
    with _answers(task, network) as answers, _answers(task, reference or network) as others:
        for number, raw in enumerate(batches):
            batch = task.prepare(raw, device=device)
            with _excused(not trained and number == 0):
                answer = task.ask(answers, batch, name=network.name)
                _require(not trained and number == 0 and task.misfit(answer, batch))
            task.add(sums, answer, batch)
            if reference is None or reason:
                continue
            try:
                with _excused(number == 0):
                    other = task.ask(others, batch, name=reference.name)
                    _require(number == 0 and task.mismatch(answer, other))
            except _Unfit as error:
                reason = f"is not compared with {reference.name}: {error}"
                continue
            task.compare(sums, answer, other, batch)
    return sums, reason


def _on_host(sums: Sums) -> Sums:
    found: Sums = map_tensors(sums, lambda tensor: tensor.cpu())
    return found


@contextmanager
def _answers(task: Task, network: Network) -> Iterator[Answers]:
    answers = Answers(network, task.answer)
    with evaluating(network.module):
        try:
            yield answers
        finally:
            answers.close()


@contextmanager
def _excused(allowed: bool) -> Iterator[None]:
    """Where a network may be unfit for the data, what it raises on the first batch is the reason why."""
    try:
        yield
    except (_Unfit, torch.OutOfMemoryError):
        raise
    except (DistillError, RuntimeError, ValueError, TypeError, KeyError, IndexError) as error:
        if not allowed:
            raise
        text = next(iter(str(error).splitlines()), "")
        raise _Unfit(f"cannot run on these data: {type(error).__name__}: {text}") from error


def _require(problem: Any) -> None:
    if problem:
        raise _Unfit(problem)


def score(task: Task, metrics: Mapping[str, Any], *, split: str) -> float:
    """How good an epoch is, larger is better: by the leading metric; where nothing was evaluated, by the total loss.

    Args:
        task: Its leading metric has a direction.
        metrics: Of the epoch.
        split: Names of figures begin with it.
    """
    leading = task.leading
    if leading is None or f"{split}_{leading.name}" not in metrics:
        return -metrics["loss_total"]
    value = metrics[f"{split}_{leading.name}"]
    if value is None:  # not defined, and so worse than any number
        return -math.inf
    return value if leading.direction == "max" else -value


def figure_of(task: Task, value: float | None, *, judged: bool) -> float | None:
    """The leading metric of a score.

    Args:
        task: As in `score`.
        value: What `score` gave; None where no epoch was.
        judged: Whether something was evaluated, and it is not the total loss.
    """
    turned = judged and task.leading is not None and task.leading.direction == "min"
    return -value if turned and value is not None else value


def plain(value: Any) -> Any:
    """A figure as numbers of Python; what is not a number is not defined."""
    if isinstance(value, Tensor):
        value = value.tolist()
    if isinstance(value, Sequence):
        return [plain(item) for item in value]
    if value is None:
        return None
    number = float(value)
    return None if math.isnan(number) else number

"""A network looked at in depth: one pass over the data for answers, one over some of it for activations."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import torch
from torch import Tensor

from distill_app.analysis.examples import Disagreements, label_of
from distill_app.analysis.scores import Answered, by_class, calibration, confusion, divergences, fidelity
from distill_app.analysis.taps import Sample, similarity
from distill_app.errors import DistillError, SettingError
from distill_app.networks.answers import Answers
from distill_app.networks.modes import evaluating
from distill_app.networks.network import Network
from distill_app.tasks.base import Batch, Task
from distill_app.tasks.evaluation import plain

_EXCUSED = (DistillError, RuntimeError, ValueError, TypeError)


@torch.no_grad()
def depth(
    task: Task,
    network: Network,
    batches: Iterable[Batch],
    *,
    device: torch.device,
    teacher: Network | None,
    classes: Sequence[str] | None,
) -> dict[str, Any]:
    """All that can be said of a network and, beside its teacher, of both.

    Args:
        task: Judges the answers. By class and by confidence is told of classifiers with one class for each sample.
        network: Runs in eval mode.
        batches: Unprepared; gone through once.
        device: Where to run.
        teacher: What its answers and activations are compared with.
        classes: Their names.

    Raises:
        SettingError: The network answers something that these data cannot judge, such as other classes.

    Returns:
        `count`, `figures`; `per_class`, `confusion` (true, taken for, how often), `calibration`; and with a teacher
        `teacher_calibration`, `fidelity`, `similarity`, `examples`. `left_out`: what there is not -> why.
    """
    sample = Sample(batches)
    with _Look(task, network, teacher, classes=classes) as look:
        for raw in batches:
            look.add(raw, task.prepare(raw, device=device))
            if teacher is not None:
                sample.add(raw)
        found = look.found()
    if teacher is not None:
        with told(found["left_out"], "similarity"):
            found["similarity"] = similarity(task, network, teacher, sample, device=device)
    return found


class _Look:
    """The pass over the data: sums of the task, and for classifiers what is kept of every answer."""

    def __init__(self, task: Task, network: Network, teacher: Network | None, *, classes: Sequence[str] | None):
        self._task, self._network, self._teacher, self._classes = task, network, teacher, classes
        self._sums, self._open = task.start(), ExitStack()
        self._width = task.class_logits(task.answer or "output")
        self._mine, self._theirs = Answered(), Answered()
        self._labels: list[Tensor] = []
        self._divergence, self._count = 0.0, 0
        self._examples = Disagreements()
        self._left_out: dict[str, str] = {}

    def __enter__(self) -> "_Look":
        self._answers = self._opened(self._network)
        self._others = None if self._teacher is None else self._opened(self._teacher)
        return self

    def __exit__(self, *exception: object) -> None:
        self._open.close()

    def _opened(self, network: Network) -> Answers:
        self._open.enter_context(evaluating(network.module))
        return self._open.enter_context(closing(Answers(network, self._task.answer)))

    def add(self, raw: Mapping[str, Any], batch: Batch) -> None:
        """Asks both networks about a batch."""
        answer = self._task.ask(self._answers, batch, name=self._network.name)
        if not self._count and (reason := self._task.misfit(answer, batch)) is not None:
            raise SettingError(f"{self._network.name} cannot be judged by these data: it {reason}")
        self._task.add(self._sums, answer, batch)
        self._count += len(batch["target"])
        other = self._other(answer, batch)
        if other is not None:
            self._task.compare(self._sums, answer, other, batch)
        if self._width is None:
            return
        labels = label_of(batch).cpu()
        self._labels.append(labels)
        self._mine.add(answer)
        if other is not None:
            self._theirs.add(other)
            self._divergence += float(divergences(answer, other).sum())
            mine, theirs = (logits.float().softmax(dim=1).cpu() for logits in (answer, other))
            self._examples.add(raw["input"], labels=labels, student=mine, teacher=theirs)

    def _other(self, answer: Any, batch: Batch) -> Any:
        """The teacher's answer, None where it has none that can be compared."""
        if self._others is None or self._teacher is None or "fidelity" in self._left_out:
            return None
        with told(self._left_out, "fidelity"):
            other = self._task.ask(self._others, batch, name=self._teacher.name)
            if (reason := self._task.mismatch(answer, other)) is None:
                return other
            self._left_out["fidelity"] = f"{self._network.name} is not compared with {self._teacher.name}: {reason}"
        return None

    def found(self) -> dict[str, Any]:
        """What came of it."""
        figures = {name: plain(value) for name, value in self._task.figures(self._sums).items()}
        found: dict[str, Any] = {"count": self._count, "figures": figures, "left_out": self._left_out}
        if self._width is not None:
            return found | self._of_classes(self._width)
        lists = {name: value for name, value in figures.items() if isinstance(value, list)}
        lines = [dict(zip(lists, line, strict=True)) for line in zip(*lists.values(), strict=True)]
        found["per_class"] = self._named(lines or self._task.details(self._sums).get("per_class", []))
        why = f"{type(self._task).__name__} has no single class for each sample"
        self._left_out["confusion, calibration, fidelity"] = why
        return found

    def _of_classes(self, classes: int) -> dict[str, Any]:
        """What there is where a sample has one class."""
        labels, (predicted, sure) = torch.cat(self._labels), self._mine.joined()
        matrix = confusion(labels, predicted, classes=classes)
        lines = self._named(by_class(matrix))
        found: dict[str, Any] = {
            "per_class": lines,
            "confusion": [[i, j, int(matrix[i, j])] for i, j in torch.nonzero(matrix).tolist()],
            "calibration": calibration(sure, predicted == labels),
        }
        if not self._theirs.predicted or "fidelity" in self._left_out:
            return found
        theirs, certain = self._theirs.joined()
        mean = self._divergence / self._count
        for line, other in zip(lines, by_class(confusion(labels, theirs, classes=classes)), strict=True):
            line["teacher_accuracy"] = other["accuracy"]
        return found | {
            "teacher_calibration": calibration(certain, theirs == labels),
            "fidelity": fidelity(labels=labels, student=predicted, teacher=theirs, divergence=mean),
            "examples": self._examples.found(),
        }

    def _named(self, lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
        names = list(self._classes or [])
        return [{"class": names[i] if i < len(names) else str(i), **line} for i, line in enumerate(lines)]


@contextmanager
def told(reasons: dict[str, str], what: str) -> Iterator[None]:
    """What cannot be had of two networks is left out, and the reason told; all else is there."""
    try:
        yield
    except _EXCUSED as error:
        text = next(iter(str(error).splitlines()), "")
        reasons[what] = f"{type(error).__name__}: {text}" if text else type(error).__name__

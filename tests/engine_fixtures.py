"""Tiny experiments for the tests of the engine: composed as a user would, in one thread, on digits of 8x8."""

import copy
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from distill_app.config.tree import compose
from distill_app.runs.tracking import Tracker
from distill_app.training.experiment import Experiment
from distill_app.training.loop import EpochTraining
from distill_app.training.progress import Progress
from distill_app.training.run import run_experiment
from distill_app.training.runner import StageRunner
from distill_app.training.stage import Stage

GOLDENS = Path(__file__).parent / "goldens"
QUIET = ("runtime.threads=1", "tracker=none", "runtime.log_every=1")
# Teacher 32-64-128 and student 8-16: stages of different widths and sizes, batch norm in both.
DIGITS = (
    "dataset=digits",
    "model@teacher=plain_32_64_128",
    "model@student=plain_8_16",
    "stage=digits",
    "prelude=none",
    "teacher.allow_random=true",  # most tests look at how a student learns, not at what
    "stage.epochs=2",
)


def mostly_slow(values: Iterable[str], *quick: str) -> list[Any]:
    """Parameters of a test, of which only the quick ones run in the fast tier."""
    return [value if value in quick else pytest.param(value, marks=pytest.mark.slow) for value in values]


class Scaled(nn.Module):
    """A loss of a user's own, with a parameter that is learnt."""

    def __init__(self, temperature: float | None = None):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return (self.scale * student - teacher).square().mean()


class Recording(nn.Module):
    """A mean squared error that notes in which types it was called."""

    seen: ClassVar[list[tuple[torch.dtype, torch.dtype]]] = []

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        self.seen.append((student.dtype, teacher.dtype))
        return (student - teacher).square().mean()


@lru_cache(maxsize=256)
def _resolved(overrides: tuple[str, ...]) -> dict[str, Any]:
    cfg = compose(overrides)
    OmegaConf.resolve(cfg)
    return OmegaConf.to_container(cfg)  # type: ignore[return-value]


def resolved(*overrides: str, base: tuple[str, ...] = DIGITS, distill: dict | None = None) -> dict[str, Any]:
    """A config as a launcher gets it.

    Args:
        overrides: As on the command line.
        base: What stands in front of them.
        distill: What a method file of one's own would add to the stage `distill`: adapters and losses.
    """
    config = copy.deepcopy(_resolved((*base, *QUIET, *overrides)))
    for part, entries in (distill or {}).items():
        config["method"]["stages"]["distill"][part].update(entries)
    return config


def run(folder: Path, *overrides: str, **choices: Any) -> dict[str, Any]:
    """Runs, or resumes, an experiment in a folder."""
    config = resolved(*overrides, **choices)
    return run_experiment(config, output_dir=str(folder), command=["distill", *overrides])


@contextmanager
def runner(folder: Path, *overrides: str, **choices: Any) -> Iterator[StageRunner]:
    """A runner with its networks, before its first stage."""
    config = resolved(*overrides, **choices)
    with Tracker(folder, progress=False) as tracker, Experiment.of(config) as experiment:
        experiment.build_networks()
        yield StageRunner(experiment, folder=folder, tracker=tracker)


@contextmanager
def stage(folder: Path, *overrides: str, number: int = 0, **choices: Any) -> Iterator[Stage]:
    """One stage, built and not trained."""
    with runner(folder, *overrides, **choices) as made:
        built = Stage(made.plans[number], made.experiment)
        built.tracker = made.tracker  # type: ignore[attr-defined]
        try:
            yield built
        finally:
            built.close()


def refusal(folder: Path, *overrides: str) -> str:
    """What the user is told when the first stage cannot be built."""
    with pytest.raises(ValueError) as caught, stage(folder, *overrides):
        pass
    return str(caught.value)


def train(built: Stage, *, epochs: int = 1, first: int = 0) -> dict[str, float]:
    """Trains a stage of `stage` for some epochs and returns the last one's mean losses."""
    losses: dict[str, float] = {}
    for epoch in range(first, first + epochs):
        at = Progress(built.plan.name, epoch=epoch)
        losses = trained(built, at, tracker=built.tracker, log_every=1).losses  # type: ignore[attr-defined]
        built.optimization.end_epoch(value=0.0, loss=losses["total"])
    return losses


def trained(built: Stage, progress: Progress, **how: Any) -> EpochTraining:
    """What is left of an epoch, trained."""
    training = EpochTraining(built, progress, **how)
    for _ in training.steps():
        pass
    return training


def networks(made: StageRunner) -> dict[str, nn.Module]:
    """The bare networks of a runner."""
    return {name: network.module for name, network in made.experiment.parts.networks.items()}


def network(built: Stage, name: str) -> nn.Module:
    """A bare network of a stage."""
    return built.networks[name].module


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    """A copy of the parameters and buffers."""
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def changed(module: nn.Module, before: dict[str, Tensor]) -> set[str]:
    """The names of the parameters and buffers that differ, by a bit, from a snapshot."""
    return {name for name, value in module.state_dict().items() if not value.equal(before[name])}


def count_calls(module: nn.Module) -> Counter:
    """Counts, from now on, how often each module without children runs."""
    calls: Counter = Counter()
    for name, part in module.named_modules():
        if not list(part.children()):
            part.register_forward_pre_hook(lambda module, args, name=name: calls.update([name]))
    return calls


def metrics(folder: Path) -> list[dict[str, Any]]:
    """The records of a run without what depends on the clock."""
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for record in records:
        record.pop("timing")
    return records


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Whether two state dicts are the same, bit for bit."""
    return a.keys() == b.keys() and all(a[name].equal(b[name]) for name in a)

"""This project's side of the benchmark: a stage of a composed config, advanced step by step or epoch by epoch."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from distill_app.check.quick import read
from distill_app.check.shapes import opened
from distill_app.config.tree import compose
from distill_app.errors import ConfigError
from distill_app.runs.tracking import Tracker
from distill_app.trackers.build import outlets_of
from distill_app.training.loop import EpochTraining
from distill_app.training.progress import Progress
from distill_app.training.runner import StageRunner
from distill_app.training.stage import Stage
from distill_app.world import ALONE, World


@dataclass(frozen=True)
class Size:
    """How large a workload is, and which networks it runs.

    With fewer images stored than there are samples, images are loaded one by one, as from files; with as many, they are
    held as one tensor where `dataset.resident` lets them.
    """

    image_size: int = 224
    batch: int = 8
    samples: int = 50_000
    stored: int = 64
    classes: int = 1000
    teacher: str = "resnet34"
    student: str = "resnet18"

    def overrides(self) -> list[str]:
        """What a user would type for it, on images that cost nothing to get."""
        return [
            "dataset=fake",
            "dataset.train._target_=scripts.benchmark.images.ImagesInMemory",
            "~dataset.train.seed",
            f"dataset.train.size={self.samples}",
            f"+dataset.train.stored={self.stored}",
            f"dataset.image_size={self.image_size}",
            f"dataset.num_classes={self.classes}",
            "dataset.validation_fraction=0.0",
            "dataset.train_transform=[]",
            f"model@teacher={self.teacher}",
            f"model@student={self.student}",
            "prelude=none",
            "teacher.allow_random=true",
            "stage=imagenet_sgd",
            f"stage.batch_size={self.batch}",
            "stage.lr=0.01",
            "stage.drop_last=true",
            "runtime.device=cpu",
            "runtime.threads=1",
            "runtime.allow=[scripts.benchmark.images]",
        ]


class Product:
    """The first stage of an experiment, or the last, built and trained by what `distill` builds and trains it with.

    Nothing is left out of a step: it fetches and collates its batch, looks for losses that are not finite, and
    reports to a tracker with TensorBoard at every `runtime.log_every`-th step.

    Args:
        size: Data and networks.
        overrides: What else a user would type: the method, the precision.
        folder: For the log, and for the cache if there is one.
        world: The processes that share its batches.
        last: Take the last stage; what stages before it would have taught is random then.
    """

    def __init__(self, size: Size, overrides: Sequence[str], *, folder: Path, world: World = ALONE, last: bool = False):
        cfg = compose([*size.overrides(), f"cache.folder={folder}/cache", *overrides])
        errors, app, plans = read(cfg)
        if errors or app is None:
            raise ConfigError(errors)
        self.experiment = opened(app, plans, world=world)
        outlets = outlets_of(app.tracker, self.experiment.builder) if world.main else {}
        self.tracker = Tracker(folder, outlets=outlets, progress=False, enabled=world.main)
        self.runner = StageRunner(self.experiment, folder=folder, tracker=self.tracker)
        self.stage = Stage(plans[-1 if last else 0], self.experiment)
        self.runner.begin(self.stage, None)
        self.training: EpochTraining | None = None
        self._epoch = 0
        self._steps = self._endless()

    def step(self) -> None:
        """One training step, across the borders of epochs."""
        next(self._steps)

    def epoch(self) -> None:
        """One whole epoch."""
        for _ in self._begin().steps():
            pass

    def save(self) -> None:
        """A checkpoint, until it is on the disk."""
        self.runner.save(self.stage)
        self.runner.saver.finish()

    def _begin(self) -> EpochTraining:
        progress = Progress(self.stage.plan.name, epoch=self._epoch)
        log_every = self.experiment.app.runtime.log_every
        self.training = EpochTraining(self.stage, progress, tracker=self.tracker, log_every=log_every)
        self._epoch += 1
        return self.training

    def _endless(self) -> Iterator[None]:
        while True:
            yield from self._begin().steps()

    def rows(self, steps: int) -> list[list[int]]:
        """The samples of the first batches of the epoch that comes next."""
        order = self.stage.data.order
        order.set_epoch(self._epoch)
        return [[position for position, _ in keys] for keys in itertools.islice(order, steps)]

    def total(self) -> float:
        """The weighted loss, summed over the steps of the epoch so far."""
        assert self.training is not None
        return float(self.training.progress.sums["total"])

    def close(self) -> None:
        """Gives hooks and files back."""
        self.stage.close()
        self.experiment.close()
        self.tracker.close()

"""The prelude of a sweep: points that would train the same teacher and baseline train them once.

The first point to come trains them and keeps what came out; others wait for it, and take over networks, records and
figures, which are bit for bit those that they would have made. If it ends early, the next one trains them.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from distill_app import __version__
from distill_app.errors import CheckpointError, RunLocked
from distill_app.runs.checkpoint import Checkpoints
from distill_app.runs.journal import METRICS, Journal
from distill_app.runs.settings import settings_of
from distill_app.runs.status import run_lock
from distill_app.runs.tracking import Tracker
from distill_app.training.average import WeightAverage
from distill_app.training.experiment import Experiment
from distill_app.training.progress import Progress
from distill_app.words import warn

# All that numbers of a prelude may depend on; the method is what sweeps are about.
_PARTS = ("prelude", "dataset", "student", "teacher", "extra_models", "stage", "runtime", "cache", "seed")
_MARK = "last"


class SharedPrelude:
    """What the prelude of an experiment comes to, in a folder that the points of a sweep share.

    Args:
        folder: Of all the preludes of a sweep; each has a folder in it, by the settings that it depends on.
        experiment: Whose prelude it is.
    """

    def __init__(self, folder: Path, experiment: Experiment):
        self._experiment, self._world = experiment, experiment.world
        self.plans = [plan for plan in experiment.plans if plan.key.startswith("prelude.")]
        self.folder = folder / _fingerprint(asdict(experiment.app))
        self._kept = Checkpoints(self.folder)

    @property
    def can_be_shared(self) -> bool:
        """Whether networks are all that it trains: what else a stage makes lives in a run."""
        return bool(self.plans) and not any(plan.adapters or plan.trained_adapters for plan in self.plans)

    @contextmanager
    def turn(self, tracker: Tracker, *, look: Callable[[], None]) -> Iterator[None]:
        """Waits until no other point trains it.

        Args:
            tracker: Of the run.
            look: Is called now and then by all ranks while they wait; ends the run where it was asked to end.
        """
        with ExitStack() as held:
            told = False
            while not self._world.from_main(lambda: self._locked(held)):
                if not told:
                    tracker.info(f"prelude: waiting for another point of the sweep to train it ({self.folder})")
                told = True
                look()
                time.sleep(1.0)
            yield

    def _locked(self, held: ExitStack) -> bool:
        try:
            held.enter_context(run_lock(self.folder))
        except RunLocked:
            return False
        return True

    def take(self, progress: Progress, tracker: Tracker) -> bool:
        """Takes over what another point has kept; whether there was anything."""
        state = self._world.from_main(self._read)
        if state is None:
            return False
        parts = self._experiment.parts
        for name, weights in state["networks"].items():
            parts.networks[name].module.load_state_dict(weights)
        for plan in self.plans:
            for name in plan.trained if plan.conf.ema.decay is not None else ():
                WeightAverage.of(name, plan, parts)
        for name, weights in state["averages"].items():
            parts.averages[name].load_state_dict(weights)
        progress.done.update(state["done"])
        tracker.take_over(state["records"])
        names = ", ".join(state["networks"])
        tracker.info(f"prelude: {names} as another point of the sweep has trained them ({self.folder})")
        return True

    def _read(self) -> dict[str, Any] | None:
        if not self._kept.has(_MARK):
            return None
        try:
            return self._kept.load(_MARK)
        except CheckpointError as error:
            warn(f"prelude: {error}; it is trained again")
            return None

    def keep(self, progress: Progress, run: Path) -> None:
        """Keeps what the prelude of a run came to, for other points.

        Args:
            progress: Of the run, behind its prelude.
            run: Its folder, for the records.
        """
        if not self._world.main:
            return
        names = [plan.name for plan in self.plans]
        parts = self._experiment.parts
        if any(parts.losses[name].state_dict() for plan in self.plans for name in plan.terms if name in parts.losses):
            return  # a loss that has learnt something lives in its run
        trained = dict.fromkeys(name for plan in self.plans for name in plan.trained)
        records = [record for record in Journal.read(run / METRICS).records if record.get("stage") in names]
        state = {
            "networks": {name: parts.networks[name].module.state_dict() for name in trained},
            "averages": {name: module.state_dict() for name, module in parts.averages.items() if name in trained},
            "done": {name: progress.done[name] for name in names if name in progress.done},
            "records": records,
        }
        try:
            self._kept.save(state, name="prelude", mark=(_MARK,))
        except CheckpointError as error:  # the run itself is fine
            warn(f"prelude: {error}")


def _fingerprint(config: Mapping[str, Any]) -> str:
    parts = {key: value for key, value in settings_of(config).items() if key.split(".")[0] in _PARTS}
    content = json.dumps([parts, __version__, torch.__version__], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]

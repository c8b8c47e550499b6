"""Measures every method against the student alone and tuned KD, on real data, each tuned and trained on equal terms.

    python -m scripts.measure.methods                          # all methods on digits: docs/results.md
    python -m scripts.measure.methods --dataset fashion_mini   # on larger images: docs/results_fashion_mini.md
    python -m scripts.measure.methods --dataset fashion_vit    # those of tokens, between ViTs
    python -m scripts.measure.methods --dataset fashion_det    # detectors by mAP; fashion_seg: segmenters by mIoU
    python -m scripts.measure.methods --methods kd,at --jobs 2 # only some; what is there already is not run again

Settings: of every method, the student alone among them, Optuna (TPE) tries the same number of points of the space that
`knobs.py` describes, the first of them the method's own file. What counts is the mean of the leading figure (accuracy,
mAP of boxes, mIoU), of the last epoch on validation images, over seeds that the table does not use. Tried points and
chosen ones stand in docs/searched.json.

Budget: the epochs of the data set's recipe in which the student is trained, over the stages that train it together;
stages that train only adapters or another network have what their method gives them. One teacher serves all, and a
second one those that learn from several; all students of a seed start from the same weights and see the same labels in
the same order. No test image is looked at before a method's settings stand. HND and GHND train a bottleneck inside the
teacher's architecture; a table of its own compares them with labels and KD on that network.
"""

import argparse
import json
import math
import shutil
import statistics
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from distill_app import compose, run
from distill_app.config.groups import conf_dir
from distill_app.config.methods import MEASURED
from distill_app.errors import DistillError, NonFiniteLoss

from ..output import require_folder
from .knobs import Knob, Space, trained_network
from .measuring import (
    BOTTLENECK,
    DATA,
    FITS,
    ONE_THREAD,
    SEVERAL,
    SPLIT,
    Bundled,
    methods_for,
    second_teacher,
    train_teacher,
)

DOCS = Path("docs")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", choices=sorted(DATA), default="digits")
    parser.add_argument("--methods", help="only these, comma separated")
    parser.add_argument("--jobs", type=int, default=1, help="methods at a time, a core each")
    parser.add_argument("--output", type=Path, default=Path("outputs/methods"))
    parser.add_argument("--docs", type=Path, default=DOCS)
    parser.add_argument(
        "--gains", type=Path, default=Path(conf_dir(), MEASURED), help="what `distill list methods` shows"
    )
    arguments = parser.parse_args()
    require_folder(parser, arguments.docs, arguments.output)
    names = arguments.methods.split(",") if arguments.methods else methods_for(arguments.dataset)
    split = _split(names, arguments.dataset)
    measure(arguments, [name for name in names if name not in SPLIT] + [f"{BOTTLENECK}{name}" for name in split])


def _split(names: Sequence[str], dataset: str) -> list[str]:
    kd = ["kd"] if "kd" in names else []
    return [DATA[dataset].alone, *kd, *SPLIT] if set(SPLIT) <= set(names) else []


def measure(arguments: argparse.Namespace, names: Sequence[str]) -> None:
    """Runs what is missing, a method at a time in each process, and writes after each one what there is."""
    from .page import write

    place = arguments.output / arguments.dataset
    teacher = train_teacher(arguments.dataset, place / "teacher")
    if set(SEVERAL) & set(names):
        train_teacher(arguments.dataset, place / "second", "seed=1")
    trial = Measured(arguments.dataset, place.resolve(), DATA[arguments.dataset])
    path, failed = arguments.docs / "searched.json", []
    with ProcessPoolExecutor(arguments.jobs, mp_context=get_context("spawn")) as pool:
        known = _read(path).get(arguments.dataset, {})
        waiting = {pool.submit(trial.method, name, known.get(name)): name for name in names}
        for done in as_completed(waiting):
            if (error := done.exception()) is not None:
                failed.append(waiting[done])
                print(f"{waiting[done]}: {error}", flush=True)
                continue
            record = _read(path)
            record.setdefault(arguments.dataset, {})[waiting[done]] = done.result()
            record[arguments.dataset] = dict(sorted(record[arguments.dataset].items()))
            path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
            print(f"{waiting[done]}: {done.result()['chosen']}", flush=True)
    write(arguments.dataset, place, teacher, _read(path)[arguments.dataset], docs=arguments.docs, gains=arguments.gains)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


@dataclass(frozen=True)
class Measured:
    """How methods are measured on a data set.

    Attributes:
        dataset: Its name.
        place: The folder of its runs; `teacher` and `second` in it have the teachers.
        of: The budget of a method there.
    """

    dataset: str
    place: Path
    of: Bundled

    def method(self, name: str, known: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Searches, unless that has been done, and trains the students that are tested.

        Returns:
            What was tried and what was chosen; `best` has the test figures of the best epoch by seed, `diverged` the
            seeds with which the chosen settings led nowhere.
        """
        space = Space.of(compose(self.overrides(name, 0)), budget=self.of.budget)
        if known is None or not self.was_found_alike(known):
            known = self.search(name, space)
        best, diverged = {}, []
        for seed in range(self.of.seeds):
            try:
                best[str(seed)] = self.tested(name, seed, space.overrides(known["chosen"]))
            except (NonFiniteLoss, ArithmeticError) as error:  # anything else is no matter of settings
                print(f"{name}, seed {seed}: {error}", flush=True)
                diverged.append(seed)
        return {**known, "best": best, **({"diverged": diverged} if diverged else {})}

    def was_found_alike(self, known: Mapping[str, Any]) -> bool:
        """Whether settings were searched within the budget of now."""
        budget = (len(known["trials"]), known["judging"], known["budget"])
        return budget == (self.of.trials, list(self.of.judging), self.of.budget)

    def overrides(self, name: str, seed: int) -> list[str]:
        """What chooses a method, its networks and the teacher."""
        method = name.removeprefix(BOTTLENECK)
        several = second_teacher(self.dataset, self.place / "second" / "student.pt") if method in SEVERAL else []
        split = ["model@student=teacher_bottleneck"] if name.startswith(BOTTLENECK) else []
        cached = ["cache.enabled=true", f"cache.views={self.of.views}", f"cache.folder={self.place / 'cache'}"]
        return [
            *self.of.overrides,
            f"method={method}",
            "prelude=none",
            f"seed={seed}",
            f"teacher.checkpoint={self.place / 'teacher' / 'student.pt'}",
            *split,
            *several,
            *FITS.get(self.dataset, {}).get(method, ()),
            *(cached if self.of.views else ()),
            *ONE_THREAD,
        ]

    def search(self, name: str, space: Space) -> dict[str, Any]:
        """Tries points; a point of which a run fails, by diverging say, counts as one that was tried."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        knobs = space.knobs()
        sampler = optuna.samplers.TPESampler(seed=0, n_startup_trials=self.of.trials // 3, multivariate=True)
        study = optuna.create_study(direction="maximize", sampler=sampler)
        with warnings.catch_warnings():  # that the call is an experiment of Optuna's, for years
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.enqueue_trial({key: knob.default for key, knob in knobs.items()})
        for _ in range(self.of.trials):
            point = study.ask()
            values = {key: _drawn(point, key, knob) for key, knob in knobs.items()}
            found = self.judged(name, space.overrides(values))
            states = optuna.trial.TrialState
            study.tell(point, found, state=states.FAIL if found is None else states.COMPLETE)
        if not any(trial.value is not None for trial in study.trials):
            raise RuntimeError(f"{name}: no point of its space could be trained")
        tried = [
            {"values": {key: _rounded(value) for key, value in trial.params.items()}, "value": trial.value}
            for trial in study.trials
        ]
        chosen = {key: _rounded(value) for key, value in study.best_params.items()}
        return {"budget": self.of.budget, "judging": list(self.of.judging), "chosen": chosen, "trials": tried}

    def judged(self, name: str, overrides: Sequence[str]) -> float | None:
        """The mean of what counts on validation images, of the last epoch; None if a run failed."""
        values = []
        for seed in self.of.judging:
            folder = self.place / "search" / name / str(seed)
            shutil.rmtree(folder, ignore_errors=True)
            try:
                summary = run(compose([*self.overrides(name, seed), *overrides]), output_dir=str(folder))
            except (DistillError, ArithmeticError) as error:
                print(f"{name} {' '.join(overrides)}: {error}", flush=True)
                return None
            values.append(float(summary["objective"]))
            shutil.rmtree(folder, ignore_errors=True)
        return statistics.mean(values) if all(map(math.isfinite, values)) else None

    def tested(self, name: str, seed: int, overrides: Sequence[str]) -> float:
        """Trains a student of the table, if it is not there, and tests the epoch that was best on validation images.

        Returns:
            What counts, on test images; that of the last epoch stands in the run.
        """
        from distill_app.verbs.networks import evaluate
        from distill_app.verbs.stored import stored_config

        folder = self.place / name / str(seed)
        cfg = compose([*self.overrides(name, seed), *overrides])
        summary = run(cfg, output_dir=str(folder))
        mark = folder / "checkpoints" / list(summary["stages"])[-1] / "best"
        network = trained_network(cfg)
        found = evaluate(stored_config(folder, allow=[]), mark, folder=folder, network=network, split="test")
        return float(found[self.of.metric])


def _drawn(trial: Any, name: str, knob: Knob) -> float:
    return float(trial.suggest_float(name, knob.low, knob.high, log=knob.log))


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")


if __name__ == "__main__":
    main()

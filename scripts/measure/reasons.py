"""Experiments that tell why methods stand where they stand in docs/results*.md: one thing changed, all else kept.

    python -m scripts.measure.reasons --jobs 2   # after scripts.measure.methods on both data sets; docs/reasons.md

Every run has the settings that the search chose (docs/searched.json), the networks, the data and the seeds of the
tables of digits and fashion_mini. The difference is taken seed by seed, between the changed run and the one that the
table has. What these differences show is written in the page by hand; this script replaces the tables in it.
"""

import argparse
import json
import math
import re
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeAlias

from distill_app import compose, run
from distill_app.errors import NonFiniteLoss
from distill_app.report.statistics import p_text, paired, spread

from ..benchmark.report import placed
from ..output import require_folder
from .knobs import Space, trained_network
from .measuring import DATA, train_teacher
from .methods import DOCS, Measured

PAGE, BOTH = "reasons.md", ("digits", "fashion_mini")
TEACHER_EPOCHS = {
    "digits": 100,
    "fashion_mini": 80,
}  # of one that sees the student's labels alone, so that its epochs are short
HEADER = "| data | method | accuracy | changed | accuracy then | difference |\n|---|---|---|---|---|---|"
RANDOM = ("teacher.checkpoint=null", "teacher.allow_random=true")
_STAGE = "method.stages.distill"
AS_KD = (
    f"{_STAGE}.lr={{lr}}",
    f"{_STAGE}.losses.ce.weight={{labels}}",
    f"{_STAGE}.losses.kd.weight={{weight}}",
    f"{_STAGE}.losses.kd.loss.temperature={{temperature}}",
)
BESIDE = (f"+loss@{_STAGE}.losses.kd=kl", *AS_KD)
# Of features and relations: they read the teacher inside, and nothing of its outputs.
BESIDE_KD = ("at", "crd", "cwd", "kta", "mgd", "nst", "pkd", "pkt", "rkd", "spkd")
INSIDE = tuple(sorted((*BESIDE_KD, "cckd", "ickd", "kdsvd", "l2", "ofd", "reviewkd", "vid")))

# (method, change in words) -> seed -> accuracy on test images; without a change the runs of the table.
Found: TypeAlias = dict[tuple[str, str], dict[str, float]]


@dataclass(frozen=True)
class Change:
    """What is changed of a run.

    Attributes:
        method: Its method.
        text: The change in words.
        overrides: The change as it is typed; `{poor}` stands for the weights of a teacher of few labels, `{budget}` for
            the epochs of the student alone, `{twice}` for twice the rate that was chosen for it, `{lr}`, `{weight}`,
            `{labels}` and `{temperature}` for what was chosen for KD.
        against: The method whose runs in the table it is held against; empty: its own.
        on: The data sets.
    """

    method: str
    text: str
    overrides: tuple[str, ...]
    against: str = ""
    on: tuple[str, ...] = BOTH

    @property
    def reference(self) -> str:
        """The method whose runs in the table it is held against."""
        return self.against or self.method


# Name of a table in the page -> what it shows.
QUESTIONS: dict[str, tuple[Change, ...]] = {
    "labels": tuple(
        Change(method, "the teacher saw the student's labels only", ("teacher.checkpoint={poor}",))
        for method in ("kd", "ctkd", "simkd", "fitnet", "pkd")
    ),
    "random": tuple(Change(method, "the teacher is not trained", RANDOM) for method in INSIDE),
    "combined": tuple(Change(method, f"`{method}` beside KD", BESIDE, against="kd") for method in BESIDE_KD),
    "starved": (
        Change("fsp", "as many epochs of labels as the student alone has", ("method.stages.train.epochs={budget}",)),
        Change("fitnet", "as many epochs of KD as KD has", (f"{_STAGE}.epochs={{budget}}",)),
        Change("dab", "as many epochs of KD as KD has", (f"{_STAGE}.epochs={{budget}}",)),
        Change("pad_l2", "as many epochs of labels as the student alone has", ("method.stages.pad.epochs={budget}",)),
        Change("fsp", "no first stage", ("method.schedule=[train]",)),
        Change("fitnet", "no first stage", ("method.schedule=[distill]",)),
        Change("dab", "no first stage", ("method.schedule=[distill]",)),
        Change("fitnet", "the second stage with the settings of KD", AS_KD),
        Change("dab", "the second stage with the settings of KD", AS_KD),
    ),
    "parts": (
        Change("sdd", "regions of one grid, the whole image", ("method.params.regions.grids=[1]",)),
        Change("sdd", "no cells of the finest grid", ("method.params.regions.grids=[1,2]",)),
        Change("byot", "no term of features", (f"{_STAGE}.losses.exit_feature=null",)),
        Change("byot", "exits learn from labels alone", (
            f"{_STAGE}.losses.exit_feature=null", f"{_STAGE}.losses.exit_kd=null",
        )),
        Change("kdcl", "no common teaching: labels alone, at its rate", (f"{_STAGE}.losses.together=null",)),
        Change("kdcl", "twice the rate, since labels have half the weight", (f"{_STAGE}.lr={{twice}}",)),
        Change("skd_cvpr26", "no term of directions", (f"{_STAGE}.losses.direction=null",)),
        Change("mlkd", "a hundredth of the weights", tuple(
            f"{_STAGE}.losses.{level}.weight=0.09" for level in ("instance", "batch", "class")
        ), on=("fashion_mini",)),
        Change("mlkd", "a twentieth of the rate", (f"{_STAGE}.lr=0.02",), on=("fashion_mini",)),
        Change("ofa_kd", "gradients clipped to a norm of 1", (f"{_STAGE}.clip_grad_norm=1.0",), on=("fashion_mini",)),
    ),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, a core each")
    parser.add_argument("--output", type=Path, default=Path("outputs/methods"), help="of scripts.measure.methods")
    parser.add_argument("--docs", type=Path, default=DOCS)
    arguments = parser.parse_args()
    require_folder(parser, arguments.docs, arguments.output)
    searched = require_inputs(parser, arguments.docs)
    found: dict[str, Found] = {}
    for dataset in BOTH:
        place = arguments.output / dataset
        train_teacher(dataset, place / "teacher")
        few = compose(list(DATA[dataset].overrides)).dataset.student_labels_per_class
        words = f"dataset.student_labels_per_class={few}", f"stage.epochs={TEACHER_EPOCHS[dataset]}"
        train_teacher(dataset, place / "poor", *words)
        reasons = Reasons(Measured(dataset, place.resolve(), DATA[dataset]), searched[dataset])
        found[dataset] = reasons.found(jobs=arguments.jobs)
    write(arguments.docs / PAGE, found)


def require_inputs(parser: argparse.ArgumentParser, docs: Path) -> dict[str, Any]:
    """What was searched, after a look, before anything is trained, at whether the tables have a place.

    Raises:
        SystemExit: They have none, or settings of a method are missing.
    """
    try:
        text = (docs / PAGE).read_text(encoding="utf-8")
        for name in QUESTIONS:
            placed(text, "", marks=_marks(name))
        searched: dict[str, Any] = json.loads((docs / "searched.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        parser.error(f"{docs}: {error}")
    for dataset in BOTH:
        asked = [change for changes in QUESTIONS.values() for change in changes if dataset in change.on]
        needed = {"ce", "kd", *(name for change in asked for name in (change.method, change.reference))}
        if missing := sorted(needed - searched.get(dataset, {}).keys()):
            parser.error(f"{docs / 'searched.json'}: nothing of {dataset} for {', '.join(missing)}; run methods first")
    return searched


@dataclass(frozen=True)
class Reasons:
    """How the experiments run.

    Attributes:
        measured: How the table's runs were made.
        searched: What was chosen for every method.
    """

    measured: Measured
    searched: Mapping[str, Any]

    def found(self, *, jobs: int) -> Found:
        """What all experiments on the data set gave, and the runs of the table that they are held against."""
        asked = [change for changes in QUESTIONS.values() for change in changes if self.measured.dataset in change.on]
        wanted = {key: each for change in asked for key, each in self._wanted(change).items()}
        with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
            seeds = range(self.measured.of.seeds)
            runs = {
                key: {str(seed): pool.submit(self.accuracy, key[0], each, seed) for seed in seeds}
                for key, each in wanted.items()
            }
            return {key: {seed: run.result() for seed, run in by_seed.items()} for key, by_seed in runs.items()}

    def _wanted(self, change: Change) -> dict[tuple[str, str], Change | None]:
        return {(change.reference, ""): None, (change.method, change.text): change}

    def accuracy(self, method: str, change: Change | None, seed: int) -> float:
        """Of a student on test images, of the last epoch; NaN if it diverged. What is there is not trained again."""
        cfg = compose(self.overrides(method, change, seed))
        place = self.measured.place / method
        if change is not None:
            place = self.measured.place / "reasons" / method / re.sub(r"\W+", "_", change.text)
        try:
            rows = run(cfg, output_dir=str(place / str(seed)))["rows"]
        except (NonFiniteLoss, ArithmeticError) as error:
            print(f"{place}: {error}", flush=True)
            return math.nan
        return float(next(row["accuracy"] for row in reversed(rows) if row["network"] == trained_network(cfg)))

    def overrides(self, method: str, change: Change | None, seed: int) -> list[str]:
        """What is typed for a run."""
        words = [*self.measured.overrides(method, seed), *self.chosen(method)]
        if change is None:
            return words
        fields = {"poor": self.measured.place / "poor" / "student.pt", **self.of_others}
        return words + [word.format(**fields) if "{" in word else word for word in change.overrides]

    @cached_property
    def of_others(self) -> dict[str, Any]:
        """What was chosen for KD and for the student alone, as the changes name it."""
        kd, ce = self.stage("kd"), self.stage("ce")
        term = kd.losses.kd
        numbers = {"lr": kd.lr, "labels": kd.losses.ce.weight, "weight": term.weight}
        numbers |= {"temperature": term.loss.temperature, "twice": 2 * ce.lr}
        return {"budget": self.measured.of.budget, **numbers}

    def chosen(self, method: str) -> list[str]:
        """The settings of a method."""
        space = Space.of(compose(self.measured.overrides(method, 0)), budget=self.measured.of.budget)
        return space.overrides(self.searched[method]["chosen"])

    def stage(self, method: str) -> Any:
        """The stage of a method of one, with the settings that were chosen for it."""
        stages = compose([*self.measured.overrides(method, 0), *self.chosen(method)]).method.stages
        return next(iter(stages.values()))


def write(page: Path, found: Mapping[str, Found]) -> None:
    """Replaces the tables of the page.

    Args:
        page: The file.
        found: Data set -> what came out.

    Raises:
        ValueError: The page has no place for one.
    """
    text = page.read_text(encoding="utf-8")
    for name, changes in QUESTIONS.items():
        lines = [
            row(dataset, change, found[dataset]) for dataset in found for change in changes if dataset in change.on
        ]
        text = placed(text, "\n".join([HEADER, *lines]), marks=_marks(name))
    page.write_text(text, encoding="utf-8")


def _marks(name: str) -> tuple[str, str]:
    return f"<!-- {name}: made by python -m scripts.measure.reasons -->", f"<!-- end of {name} -->"


def row(dataset: str, change: Change, found: Found) -> str:
    """What came out of a change."""
    before, after = found[change.reference, ""], found[change.method, change.text]
    pair = paired(_trained(after), _trained(before))
    difference = "-" if pair is None else f"{100 * pair.mean:+.2f} (p {p_text(pair.p)})"
    name = change.reference
    return f"| {dataset} | `{name}` | {_percent(before)} | {change.text} | {_percent(after)} | {difference} |"


def _trained(by_seed: Mapping[str, float]) -> dict[str, float]:
    return {seed: value for seed, value in by_seed.items() if not math.isnan(value)}


def _percent(by_seed: Mapping[str, float]) -> str:
    values = list(_trained(by_seed).values())
    lost = f"diverged with {len(by_seed) - len(values)} of {len(by_seed)} seeds" if len(values) < len(by_seed) else ""
    found = spread(values)
    if found is None or found.std is None:
        return lost
    return f"{100 * found.mean:.2f} +- {100 * found.std:.2f}%{f', {lost}' if lost else ''}"


if __name__ == "__main__":
    main()

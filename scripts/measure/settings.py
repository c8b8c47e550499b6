"""Chooses the settings of the default experiments on validation images; no test image is looked at.

    python -m scripts.measure.settings                      # fashion_mini: about an hour on one core
    python -m scripts.measure.settings --dataset digits     # ten minutes

One knob after the other, each at the best value of those before it: the teacher's learning rate; epochs and learning
rate of the student alone and with KD, which share a recipe: the shortest, and of these the smallest rate, that is
within one standard error of the best, since large rates suit few other methods; temperature and weight of KD. These
stand in the method's file and serve all data sets: the literature's 4 and 0.5 stay unless another setting beats them,
over data sets and seeds, by more than two standard errors. The figure is the mean validation accuracy over seeds that
no published table uses; the student sees its few labels as ever. What has run is not run again. Writes
docs/settings.json.
"""

import argparse
import json
import math
import statistics
from pathlib import Path
from typing import Any

from distill_app import compose, run

from ..output import require_folder
from .measuring import DATA, ONE_THREAD, terms, train_teacher

EPOCHS = {"digits": [50, 100], "fashion_mini": [30, 60]}
RATES = [0.05, 0.1, 0.2, 0.4, 0.8]
KD = [(temperature, weight) for temperature in (2.0, 4.0, 8.0) for weight in (0.5, 0.9)]
START = (4.0, 0.5)
SEEDS = (100, 101, 102)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", choices=sorted(DATA), default="fashion_mini")
    parser.add_argument("--output", type=Path, default=Path("outputs/settings"))
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    arguments = parser.parse_args()
    require_folder(parser, arguments.docs, arguments.output)
    path = arguments.docs / "settings.json"
    record = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    record[arguments.dataset] = Comparison(arguments.dataset, arguments.output / arguments.dataset).choose()
    record["temperature_weight"] = jointly([record[name]["temperature_weight"] for name in DATA if name in record])
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


class Comparison:
    """The runs of one data set below one folder."""

    def __init__(self, dataset: str, place: Path) -> None:
        self.dataset, self.place = dataset, place

    def choose(self) -> dict:
        """All means, and the best value of every knob."""
        teachers = {rate: self.teacher(rate) for rate in RATES}
        rate = best(teachers)
        weights = self.place / f"teacher_lr{rate:g}" / "student.pt"
        recipes = [(epochs, lr) for epochs in EPOCHS[self.dataset] for lr in RATES]
        alone = {recipe: self.students(*recipe) for recipe in recipes}
        taught = {recipe: self.students(*recipe, weights=weights) for recipe in recipes}
        recipe = modest({recipe: [*alone[recipe], *taught[recipe]] for recipe in recipes})
        settings = {key(kd): percent(self.students(*recipe, weights=weights, kd=kd)) for kd in KD}
        return {
            "teacher": table(teachers),
            "alone": {key(recipe): percent(values) for recipe, values in alone.items()},
            "kd": {key(recipe): percent(values) for recipe, values in taught.items()},
            "temperature_weight": settings,
            "chosen": {"teacher_lr": rate, "epochs": recipe[0], "lr": recipe[1]},
        }

    def teacher(self, rate: float) -> float:
        """The validation accuracy of a teacher, seed 0, as the default experiment trains it."""
        summary = train_teacher(self.dataset, self.place / f"teacher_lr{rate:g}", f"stage.lr={rate}")
        return float(summary["objective"])

    def students(
        self, epochs: int, lr: float, *, weights: Path | None = None, kd: tuple[float, float] = START
    ) -> list[float]:
        """The validation accuracy of every seed's student, alone or, with the weights of a teacher, with KD."""
        overrides = [f"stage.epochs={epochs}", f"stage.lr={lr}"]
        name = f"e{epochs}_lr{lr:g}"
        if weights is None:
            overrides.append("method=ce")
        else:
            overrides += [f"teacher.checkpoint={weights}", *terms(*kd)]
            name += f"_T{kd[0]:g}_kd{kd[1]:g}"
        return [self.objective(f"{name}/{seed}", [*overrides, f"seed={seed}"]) for seed in SEEDS]

    def objective(self, name: str, overrides: list[str]) -> float:
        """The best validation accuracy of one run."""
        cfg = compose([*DATA[self.dataset].overrides, "prelude=none", *overrides, *ONE_THREAD])
        value = float(run(cfg, output_dir=str(self.place / name))["objective"])
        print(f"{name:<28} {100 * value:.2f}", flush=True)
        return value


def modest(tried: dict[Any, list[float]]) -> Any:
    """The first of the settings, in ascending order, that is no more than one standard error behind the best."""
    top = best({setting: statistics.mean(values) for setting, values in tried.items()})
    for setting in sorted(tried):
        behind = [a - b for a, b in zip(tried[top], tried[setting], strict=True)]
        if statistics.mean(behind) <= statistics.stdev(behind) / math.sqrt(len(behind)):
            return setting
    return top


def jointly(compared: list[dict[str, list[float]]]) -> dict:
    """The setting of KD for all data sets, and how far every other one is ahead of the literature's, in points."""
    pooled = {kd: [value for values in compared for value in values[kd]] for kd in compared[0]}
    gains = {kd: [a - b for a, b in zip(pooled[kd], pooled[key(START)], strict=True)] for kd in pooled}
    ahead = {kd: statistics.mean(gain) for kd, gain in gains.items()}
    errors = {kd: statistics.stdev(gain) / math.sqrt(len(gain)) for kd, gain in gains.items()}
    better = {kd: value for kd, value in ahead.items() if value > 2 * errors[kd]}
    differences = {kd: {"ahead": round(ahead[kd], 2), "standard_error": round(errors[kd], 2)} for kd in pooled}
    return {"differences": differences, "chosen": best(better) if better else key(START)}


def best(means: dict) -> Any:
    """The key with the highest mean; the first of equals."""
    return max(means, key=lambda key: means[key])


def key(setting: Any) -> str:
    """A setting as JSON can hold it."""
    return " ".join(map(str, setting)) if isinstance(setting, tuple) else str(setting)


def percent(values: list[float]) -> list[float]:
    """The same in percent."""
    return [round(100 * value, 2) for value in values]


def table(means: dict) -> dict[str, float]:
    """Means in percent, with keys that JSON can hold."""
    return {key(setting): round(100 * value, 2) for setting, value in means.items()}


if __name__ == "__main__":
    main()

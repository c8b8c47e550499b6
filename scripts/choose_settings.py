"""Chooses the settings of the default experiments on validation images; no test image is looked at.

    python scripts/choose_settings.py                      # fashion_mini: about an hour on one core
    python scripts/choose_settings.py --dataset digits     # ten minutes

One knob after the other, each at the best value of those before it: the teacher's learning rate; epochs and learning
rate of the student alone and with KD, which share a recipe; temperature and weight of KD, which stand in the method's
file and serve all data sets: those with the best mean over the data sets compared so far. The figure is the mean
validation accuracy over seeds that no published table uses; the student sees its few labels as ever. What has run is
not run again. Writes docs/settings.json.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from distill_app import compose, run

DATA = {
    "digits": {
        "base": ["experiment=digits/kd"],
        "teacher": "plain_32_64_128",
        "teacher_epochs": 20,
        "epochs": [50, 100],
    },
    "fashion_mini": {"base": [], "teacher": "cres_w24", "teacher_epochs": 16, "epochs": [30, 60]},
}
RATES = [0.05, 0.1, 0.2, 0.4]
KD = [(temperature, weight) for temperature in (2.0, 4.0, 8.0) for weight in (0.5, 0.9)]
START = (4.0, 0.5)
SEEDS = (100, 101, 102)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", choices=sorted(DATA), default="fashion_mini")
    parser.add_argument("--output", type=Path, default=Path("outputs/settings"))
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    arguments = parser.parse_args()
    path = arguments.docs / "settings.json"
    record = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    record[arguments.dataset] = Comparison(arguments.dataset, arguments.output / arguments.dataset).choose()
    compared = [record[name]["temperature_weight"] for name in DATA if name in record]
    means = {kd: statistics.mean(values[kd] for values in compared) for kd in compared[0]}
    record["temperature_weight"] = {"means": means, "chosen": best(means)}
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


class Comparison:
    """The runs of one data set below one folder."""

    def __init__(self, dataset: str, place: Path) -> None:
        self.data = DATA[dataset]
        self.place = place

    def choose(self) -> dict:
        """All means, and the best value of every knob."""
        teachers = {rate: self.teacher(rate) for rate in RATES}
        rate = best(teachers)
        weights = self.place / f"teacher_lr{rate:g}" / "student.pt"
        recipes = [(epochs, lr) for epochs in self.data["epochs"] for lr in RATES]
        alone = {recipe: self.student(*recipe) for recipe in recipes}
        taught = {recipe: self.student(*recipe, weights=weights) for recipe in recipes}
        recipe = best({recipe: (alone[recipe] + taught[recipe]) / 2 for recipe in recipes})
        settings = {kd: self.student(*recipe, weights=weights, kd=kd) for kd in KD}
        return {
            "teacher": table(teachers),
            "alone": table(alone),
            "kd": table(taught),
            "temperature_weight": table(settings),
            "chosen": {"teacher_lr": rate, "epochs": recipe[0], "lr": recipe[1]},
        }

    def teacher(self, rate: float) -> float:
        """The validation accuracy of a teacher, seed 0, as the default experiment trains it."""
        overrides = [f"model@student={self.data['teacher']}", "dataset.student_labels_per_class=null"]
        overrides += [f"stage.epochs={self.data['teacher_epochs']}", f"stage.lr={rate}", "method=ce"]
        return self.objective(f"teacher_lr{rate:g}", overrides)

    def student(self, epochs: int, lr: float, *, weights: Path | None = None, kd: tuple[float, float] = START) -> float:
        """The mean validation accuracy of students, alone or, with the weights of a teacher, with KD."""
        overrides = [f"stage.epochs={epochs}", f"stage.lr={lr}"]
        name = f"e{epochs}_lr{lr:g}"
        if weights is None:
            overrides.append("method=ce")
        else:
            terms = "method.stages.distill.losses"
            overrides += [f"teacher.checkpoint={weights}", f"{terms}.kd.loss.temperature={kd[0]}"]
            overrides += [f"{terms}.kd.weight={kd[1]}", f"{terms}.ce.weight={1 - kd[1]:g}"]
            name += f"_T{kd[0]:g}_kd{kd[1]:g}"
        return statistics.mean(self.objective(f"{name}/{seed}", [*overrides, f"seed={seed}"]) for seed in SEEDS)

    def objective(self, name: str, overrides: list[str]) -> float:
        """The best validation accuracy of one run."""
        cfg = compose(
            [*self.data["base"], "prelude=none", *overrides, "runtime.threads=1", "runtime.tensorboard=false"]
        )
        value = float(run(cfg, output_dir=str(self.place / name))["objective"])
        print(f"{name:<28} {100 * value:.2f}", flush=True)
        return value


def best(means: dict) -> Any:
    """The key with the highest mean; the first of equals."""
    return max(means, key=lambda key: means[key])


def table(means: dict) -> dict[str, float]:
    """Means in percent, with keys that JSON can hold."""
    name = {key: " ".join(map(str, key)) if isinstance(key, tuple) else str(key) for key in means}
    return {name[key]: round(100 * value, 2) for key, value in means.items()}


if __name__ == "__main__":
    main()

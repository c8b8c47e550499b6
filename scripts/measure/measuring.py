"""What the measuring scripts share: the bundled data sets with their default networks, and the teacher."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill_app import compose, run

ONE_THREAD = ["runtime.threads=1", "tracker=none"]


@dataclass(frozen=True)
class Bundled:
    """A bundled data set: the overrides that choose it, and the network of its default teacher."""

    overrides: tuple[str, ...]
    teacher: str


DATA = {
    "digits": Bundled(("experiment=digits/kd",), "plain_32_64_128"),
    "fashion_mini": Bundled((), "cres_w24"),
}


def train_teacher(name: str, folder: Path, *overrides: str) -> dict[str, Any]:
    """The summary of the data set's default teacher, on all labels; not trained again if it is there.

    Args:
        name: The data set.
        folder: The run's folder; the weights are its `student.pt`.
        overrides: On top of the prelude's recipe.
    """
    params = compose(list(DATA[name].overrides)).prelude.params
    recipe = [f"stage.epochs={params.epochs}", f"stage.lr={params.lr}", "dataset.student_labels_per_class=null"]
    network = ["method=ce", "prelude=none", "method.stages.train.label=teacher", f"model@student={DATA[name].teacher}"]
    cfg = compose([*DATA[name].overrides, *network, *recipe, *ONE_THREAD, *overrides])
    return run(cfg, output_dir=str(folder))


def terms(temperature: float, weight: float) -> list[str]:
    """Overrides for KD with a temperature and a weight; the rest of the weight is the labels'."""
    losses = "method.stages.distill.losses"
    return [
        f"{losses}.kd.loss.temperature={temperature}",
        f"{losses}.kd.weight={weight}",
        f"{losses}.ce.weight={1 - weight:g}",
    ]

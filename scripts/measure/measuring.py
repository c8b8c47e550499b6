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
# Methods that need images with several labels, or with objects, or networks of tokens.
OTHER_DATA = {"multilabel_kd", "own", "own_rcnn", "pkd_fpn", "l2_fpn", "vitkd", "deit_token"}
OTHER_DATA |= {"roi_kd", "roi_dkd", "roi_dist", "crosskd"}
SPLIT = ("hnd", "ghnd")  # they train a bottleneck inside the teacher's architecture
# Where a method of these small networks would read a map twice, or one that says nothing, it reads others. On digits
# the student has maps of 4 x 4 and 2 x 2, the teacher one more, of 1 x 1, which has no place to attend to.
_ALIGNED = ("teacher.taps.stage3=features.0", "teacher.taps.stage4=features.1")
_PRE = ("teacher.taps.stage3_pre=features.0.-1:in", "teacher.taps.stage4_pre=features.1.-1:in")
_NONE = "method.stages.{}.losses.{}=null".format
FITS: dict[str, dict[str, tuple[str, ...]]] = {
    "digits": {
        "at": _ALIGNED,
        "dab": (*_PRE, _NONE("boundary", "ab1"), _NONE("boundary", "ab2")),
        "fsp": (*_ALIGNED, *(_NONE("flow", f"fsp{number}") for number in (1, 2, 3))),
        "takd": ("model@method.extra_models.assistant=plain_16_32_64",),
    },
    "fashion_mini": {"takd": ("model@method.extra_models.assistant=plain_32_64_128",)},
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

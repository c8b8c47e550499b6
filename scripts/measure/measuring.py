"""What the measuring scripts share: the bundled data sets with their default networks, and the teacher."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill_app import compose, run
from distill_app.config.groups import options_of
from distill_app.config.methods import methods_of

ONE_THREAD = ["runtime.threads=1", "tracker=none"]


@dataclass(frozen=True)
class Bundled:
    """A bundled data set, and what is measured on it.

    Attributes:
        overrides: What chooses it and its networks; the prelude among them has the recipe of the teacher.
        teacher: The network of its default teacher.
        budget: Epochs in which a student is trained.
        trials: Points that are tried of each method.
        judging: Seeds that judge a point.
        seeds: Students that are tested of each method.
        views: Of each image, in which the teacher's answers are cached; None: it answers anew each time.
        alone: The method without a teacher.
        metric: What counts.
        kinds: Of methods that learn on it; empty: all but those of other data.
        methods: These alone, where a few are of interest.
        for_teacher: What chooses data, sizes and recipe where the teacher is trained, in the place of a student; None:
            what chooses them for the students.
        networks: What their names do not say.
    """

    overrides: tuple[str, ...]
    teacher: str
    budget: int
    trials: int = 12
    judging: tuple[int, ...] = (100, 101)
    seeds: int = 5
    views: int | None = None
    alone: str = "ce"
    metric: str = "accuracy"
    kinds: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    for_teacher: tuple[str, ...] | None = None
    networks: str = ""


_DETECTORS = ("model@teacher=tiny_fasterrcnn", "model@student=tiny_fasterrcnn_8")
_SEGMENTERS = ("model@teacher=tiny_fpn_segmenter", "model@student=tiny_fpn_segmenter_8")
_VIT_RECIPE = ("stage=scratch_adamw", "stage.teacher_epochs=30", "stage.teacher_lr=0.001")
_VIT = ("model@teacher=vit_ti_16", "teacher.net.patch_size=8", "teacher.net.hidden_dim=96", "teacher.net.mlp_dim=192")
_DEIT = ("model@student=deit_ti_distilled", "+student.net.patch_size=8", "+student.net.embed_dim=48")
_BRIEF: Any = {"trials": 4, "judging": (100,), "seeds": 3, "views": 8}  # where a student takes a minute or two
DATA = {
    "digits": Bundled(("experiment=digits/kd",), "plain_32_64_128", 100),
    "fashion_mini": Bundled((), "cres_w24", 20, **_BRIEF),
    "fashion_det": Bundled(
        ("dataset=fashion_det", "stage=fashion_det", "prelude=own", *_DETECTORS),
        "tiny_fasterrcnn",
        16,
        **_BRIEF,
        alone="own",
        metric="bbox_mAP",
        kinds=("detection",),
    ),
    "fashion_seg": Bundled(
        ("dataset=fashion_seg", "stage=fashion_seg", "prelude=segmentation", *_SEGMENTERS),
        "tiny_fpn_segmenter",
        16,
        **{**_BRIEF, "trials": 12},
        alone="seg_ce",
        metric="mIoU",
        kinds=("segmentation",),
    ),
    "fashion_vit": Bundled(
        (*_VIT_RECIPE, *_VIT, *_DEIT),
        "vit_ti_16",
        30,
        **_BRIEF,
        methods=("ce", "deit_token", "dist", "dkd", "kd", "rkd", "vitkd"),
        networks="ViTs of 12 blocks over 16 patches of 8 x 8 pixels, 96 and, with a distillation token, 48 wide",
        for_teacher=(*_VIT_RECIPE, *(word.replace("teacher", "student") for word in _VIT)),
    ),
}
# Methods that need images with several labels, with objects or maps of classes, or networks of tokens.
OTHER_DATA = {"multilabel_kd", "own", "own_rcnn", "seg_ce", "vitkd", "deit_token"}
OTHER_DATA |= {method.name for method in methods_of() if method.about.kind in ("detection", "segmentation")}
OTHER_NETWORKS = {"crosskd", "pseudo_boxes"}  # of two RetinaNets, and of images without boxes
BOTTLENECK = "split/"  # before names of methods that train the bottleneck network
SPLIT = ("hnd", "ghnd")  # they train a bottleneck inside the teacher's architecture
SEVERAL = ("multi_teacher", "ca_mkd")  # they learn from a second teacher, from numbers of its own, too
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
    "fashion_vit": {"deit_token": ("method.params.label_tap=class_logits", "method.params.token_tap=token_logits")},
}


def train_teacher(name: str, folder: Path, *overrides: str) -> dict[str, Any]:
    """The summary of the data set's default teacher, on all labels; not trained again if it is there.

    Args:
        name: The data set.
        folder: The run's folder; the weights are its `student.pt`.
        overrides: On top of the prelude's recipe.
    """
    of = DATA[name]
    chosen = list(of.overrides if of.for_teacher is None else of.for_teacher)
    params = compose(chosen).prelude.params
    recipe = [f"stage.{key}={params[key]}" for key in ("epochs", "lr") if key in params]
    network = [f"method={of.alone}", "prelude=none", "method.stages.train.label=teacher"]
    network += [f"model@student={of.teacher}", "dataset.student_labels_per_class=null"]
    cfg = compose([*chosen, *network, *recipe, *ONE_THREAD, *overrides])
    return run(cfg, output_dir=str(folder))


def methods_for(name: str) -> list[str]:
    """The methods that learn on a data set with its networks."""
    kinds = DATA[name].kinds
    if DATA[name].methods:
        return sorted(DATA[name].methods)
    if not kinds:
        return sorted({*options_of("method")} - OTHER_DATA)
    fitting = [method.name for method in methods_of() if method.about.kind in kinds]
    split = SPLIT if "detection" in kinds else ()
    return sorted({DATA[name].alone, *fitting, *split} - OTHER_NETWORKS)


def second_teacher(name: str, file: Path) -> list[str]:
    """Overrides for a method of several teachers: the second one is of the first one's architecture, and trained."""
    place = "method.extra_models.second"
    return ["method.params.teachers=[second]", f"+model@{place}={DATA[name].teacher}", f"++{place}.checkpoint={file}"]


def terms(temperature: float, weight: float) -> list[str]:
    """Overrides for KD with a temperature and a weight; the rest of the weight is the labels'."""
    losses = "method.stages.distill.losses"
    return [
        f"{losses}.kd.loss.temperature={temperature}",
        f"{losses}.kd.weight={weight}",
        f"{losses}.ce.weight={1 - weight:g}",
    ]

"""What belongs where: the parts of this package, torch and torchvision from which each key of a config is built."""

import re
from dataclasses import dataclass

_MODULES = ("distill_app.adapters", "distill_app.models", "torch.nn", "torchvision.models", "torchvision.ops")


@dataclass(frozen=True)
class Kind:
    """A kind of thing that a config describes.

    Attributes:
        name: Of one of them.
        roots: Where it may come from.
        within: Where its arguments may come from beside that.
    """

    name: str
    roots: tuple[str, ...]
    within: tuple[str, ...] = ()

    @property
    def part(self) -> "Kind":
        """The kind of what stands in its arguments, at any depth."""
        if self.name.startswith("part of "):
            return self
        article = "an" if self.name[0] in "aeio" else "a"
        return Kind(f"part of {article} {self.name}", (*self.roots, *self.within))


# The end of a key -> what belongs there, the first that fits. Packages in `runtime.allow` belong everywhere.
KINDS = (
    (
        r"wrappers\..+",
        Kind("wrapper of samples", ("distill_app.data",), ("torchvision.transforms", "torch.nn")),
    ),
    (r"redesign", Kind("module", (*_MODULES, "torchvision.transforms"))),
    (r"adapters\..+\.module", Kind("adapter", (*_MODULES, "torchvision.transforms"))),
    (
        r"losses\..+\.loss",
        Kind("loss", ("distill_app.losses", "torch.nn", "torchvision.ops"), (*_MODULES, "torchvision.transforms")),
    ),
    (r"losses\..+\.weight", Kind("schedule of weights", ("distill_app.losses",))),
    (
        r"net",
        Kind(
            "network",
            ("distill_app.models", "torch.nn", "torchvision.models", "torchvision.ops", "torch.hub.load"),
            ("distill_app.adapters", "torchvision.transforms"),
        ),
    ),
    (r"optimizer", Kind("optimizer", ("torch.optim",))),
    (r"scheduler\.schedule", Kind("schedule of learning rates", ("torch.optim.lr_scheduler", "torch.optim.swa_utils"))),
    (
        r"train|test",
        Kind(
            "data set",
            ("distill_app.data", "torchvision.datasets", "torch.utils.data"),
            ("torchvision.transforms", "torch.nn"),
        ),
    ),
    (
        r"(train|eval)_transform\[\d+\]",
        Kind("transform", ("torchvision.transforms", "torch.nn", "distill_app.data")),
    ),
    (r"(batch_)?sampler", Kind("sampler", ("torch.utils.data", "distill_app.data"))),
    (
        r"collate",
        Kind(
            "function that collates",
            ("torch.utils.data", "distill_app.data", "distill_app.tasks"),
            ("torchvision.transforms",),
        ),
    ),
    (r"task", Kind("task", ("distill_app.tasks",), ("distill_app.losses", "torch.nn", "torchvision.ops"))),
    (r"launcher", Kind("launcher", ("distill_app.launch",))),
    (r"tracker\.[^.]+", Kind("tracker", ("distill_app.trackers",))),
)
# What `timm` in `runtime.allow` stands for; other parts of it have to be named.
TIMM = ("timm.create_model", "timm.layers", "timm.loss", "timm.models", "timm.optim", "timm.scheduler")
ROOTS = tuple(sorted({root for _, kind in KINDS for root in kind.part.roots}))


def kind_of(key: str) -> Kind:
    """What belongs at a key.

    Raises:
        ValueError: Nobody has said so, and then nothing may be built there: a mistake of the program.
    """
    for end, kind in KINDS:
        if re.search(rf"(^|\.)({end})$", key):
            return kind
    raise ValueError(f"{key}: nobody has said in distill_app.config.kinds what may be built here")

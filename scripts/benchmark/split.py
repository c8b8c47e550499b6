"""The workload of split computing: a step of GHND on a detector, beside the whole student's and a loop by hand."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from distill_app.data import FashionDet

from .limit import Form, folded
from .product import Product, Size
from .timing import Contender
from .workloads import Plan, network, result


@dataclass(frozen=True)
class DetectorSize(Size):
    """Detectors on generated images with objects, whose bottleneck stands in the place of the teacher's first block."""

    def overrides(self) -> list[str]:
        return [
            "dataset=fashion_det",
            f"dataset.image_size={self.image_size}",
            f"dataset.train.count={self.samples}",
            f"dataset.test.count={self.batch}",
            "dataset.validation_fraction=0.0",
            "dataset.train_transform=[]",
            f"model@teacher={self.teacher}",
            "prelude=none",
            "teacher.allow_random=true",
            "stage=bottleneck_adam",
            f"stage.batch_size={self.batch}",
            "stage.drop_last=true",
            "runtime.device=cpu",
            "runtime.threads=1",
        ]


def maps_of(found: Any) -> list[Tensor]:
    """The maps of a body: torchvision's gives them by name."""
    return list(found.values() if isinstance(found, Mapping) else found)


def thawed(body: nn.Module) -> nn.Module:
    """A body whose frozen norms are ordinary ones, as `folded` knows them."""
    for parent in list(body.modules()):
        for name, norm in list(parent.named_children()):
            if isinstance(norm, FrozenBatchNorm2d):
                ordinary = nn.BatchNorm2d(len(norm.weight), eps=norm.eps)
                ordinary.load_state_dict(norm.state_dict(), strict=False)
                setattr(parent, name, ordinary)
    return body


class Bodies:
    """The limit of GHND: two backbone bodies, from images to their last map, with nothing around them.

    The student's stem and bottleneck are trained, by a fused Adam; what is behind them is in eval mode, and gradients
    pass through it. The teacher's batch norms are folded.

    Args:
        ours: Whose networks are copied.
        size: Its images.
    """

    def __init__(self, ours: Product, size: Size):
        layout = Form().layout
        student, teacher = (network(ours, name).backbone.body for name in ("student", "teacher"))
        self.student, self.layout = student.to(memory_format=layout).train(), layout
        self.teacher = folded(thawed(teacher)).requires_grad_(False).to(memory_format=layout)
        for tail in (student.layer2, student.layer3, student.layer4):
            tail.eval().requires_grad_(False)
        parameters = [parameter for parameter in student.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.Adam(parameters, lr=1e-3, fused=True)
        transform = ours.experiment.network("student").module.transform
        statistics = (transform.image_mean, transform.image_std)
        self.mean, self.std = (torch.tensor(each).view(1, 3, 1, 1) for each in statistics)
        self.batch, self.order, self.at = size.batch, [0], 1
        sides = [size.image_size, size.image_size]
        self.images = FashionDet("train", count=size.samples, sides=sides, kinds=["bbox"])

    def step(self, rows: Sequence[int] | None = None) -> Tensor:
        """One training step, on the next batch or on these rows; the loss before it."""
        if rows is None:
            if self.at + self.batch > len(self.order):
                self.order, self.at = torch.randperm(len(self.images)).tolist(), 0
            rows = self.order[self.at : self.at + self.batch]
            self.at += self.batch
        pixels = torch.stack([self.images[row][0].as_subclass(Tensor) for row in rows])
        inputs = pixels.float().div_(255.0).sub_(self.mean).div_(self.std).contiguous(memory_format=self.layout)
        with torch.no_grad():
            targets = self.teacher(inputs)
        pairs = zip(maps_of(self.student(inputs)), maps_of(targets), strict=True)
        loss = torch.stack([F.mse_loss(mine, theirs, reduction="sum") for mine, theirs in pairs]).sum()
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss


def split(plan: Plan) -> dict[str, Any]:
    """GHND of a detector, a step of the whole student by its own losses, and two bodies cut off by hand."""
    size = DetectorSize(**asdict(plan.size))
    bottleneck = "model@student=teacher_bottleneck"
    ours = Product(size, ["method=ghnd", bottleneck], folder=plan.folder / "ours")
    whole = Product(size, ["method=own", bottleneck], folder=plan.folder / "whole")
    steps = {"ours": ours.step, "whole": whole.step, "limit": Bodies(ours, size).step}
    return result(plan.race({name: Contender(step, repeat=plan.repeat) for name, step in steps.items()}))

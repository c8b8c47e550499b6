"""The losses over regions and heads of detectors: how each is built and fed, and which reference cases it equals."""

from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from distill_app import adapters, losses
from distill_app.losses.heads import imitated_classes
from distill_app.networks.part import NetworkPart

LEVELS = ("p3", "p4")
EPS = torch.finfo(torch.float32).eps  # the reference adds it to what it divides by


def dkd(order: str = "") -> Callable[[SimpleNamespace], Tensor]:
    """DKD of regions with the background as one of the classes, first or last."""
    loss = losses.DecoupledKL(1.0, alpha=1.0, beta=0.25)
    return lambda g: loss(
        student=getattr(g, f"student_logits{order}"),
        teacher=getattr(g, f"teacher_logits{order}"),
        target=getattr(g, f"labels{order}"),
    )


def dist(g: SimpleNamespace) -> Tensor:
    return losses.PearsonDistance(whole_batch=False)(student=g.student_logits, teacher=g.teacher_logits)


def focal(g: SimpleNamespace) -> Tensor:
    """Rows of classes with weights of their own."""
    rows = imitated_classes(g.logits_s, g.logits_t.detach(), beta=1.0)
    return (rows * g.row_weights.detach()).sum() / (5 + EPS)


def focal_mean(g: SimpleNamespace) -> Tensor:
    rows = imitated_classes(g.logits_s, g.logits_t.detach(), beta=1.0)
    return (rows * g.row_weights.detach()).sum() / g.logits_s.numel()


GOLDENS = {
    "roi_logits": [
        (["dkd_mdistiller_rcnn", "dkd_mmrazor"], dkd()),
        (["dkd_torchvision_order"], dkd("_torchvision")),
        (["dist_mmrazor", "dist_ofakd_repo"], dist),
    ],
    "crosskd": [(["qfl"], focal), (["qfl_mean"], focal_mean)],
}


def matches(g: SimpleNamespace, positives: int) -> Tensor:
    """Of all anchors: -2 where their weight is 0, and as many positive ones in the whole batch as the case has."""
    weights = torch.cat([getattr(g, f"label_weights_{level}") for level in LEVELS], dim=1)
    found = torch.where(weights > 0, -1, -2)
    for number, count in enumerate((positives // 2, positives - positives // 2)):
        found[number, (found[number] == -1).nonzero()[:count, 0]] = 0
    return found


def convolution(tensors: dict[str, Tensor], name: str) -> nn.Conv2d:
    """One of the teacher's, frozen."""
    weight, bias = tensors[f"{name}.weight"], tensors[f"{name}.bias"]
    layer = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1).double()
    layer.load_state_dict({"weight": weight, "bias": bias})
    return layer.requires_grad_(False)


def head(tensors: dict[str, Tensor], convs: str, predictor: str) -> tuple[nn.Module, list[nn.Module]]:
    """A teacher's head: up to the activation of its first convolution, and all that follows on it."""
    rest = [nn.Sequential(convolution(tensors, f"{convs}.{number}.conv"), nn.ReLU()) for number in (1, 2)]
    return convolution(tensors, f"{convs}.0.conv"), [*rest, convolution(tensors, predictor)]


def crossed(
    numbers: Any, convs: str, predictor: str, student: Iterable[Tensor], teacher: Iterable[Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """What the teacher's head says of the student's features, and of its own, by level."""
    tensors = numbers.below("authors_beta1/param/teacher_head.")
    own, rest = head(tensors, convs, predictor)
    first = numbers.load(nn.Conv2d(4, 6, 3, padding=1), "authors_beta1", f"student_head.{convs}.0.")
    hidden, theirs = [first(each) for each in student], [own(each) for each in teacher]
    shapes = [[each.shape for each in side] for side in (hidden, theirs)]
    part = NetworkPart([(module, True) for module in rest])
    aligned = adapters.MatchStatistics(shapes)([hidden, theirs])
    return part(aligned), part([each.relu() for each in theirs])


def crosskd(beta: float, positives: int, *, classes: float = 1.0, boxes: float = 1.0):
    def compute(numbers: Any, case: str) -> Tensor:
        g = numbers.inputs
        sides = [[getattr(g, f"{side}_{level}") for level in LEVELS] for side in ("s", "t")]
        ours, theirs = crossed(numbers, "cls_convs", "retina_cls", *sides)
        offsets, wanted = crossed(numbers, "reg_convs", "retina_reg", *sides)
        for level, each in zip(LEVELS, ours, strict=True):
            torch.testing.assert_close(each, numbers.arrays[f"{case}/out/reused_cls_{level}"], rtol=1e-9, atol=1e-11)
        found = matches(g, positives)
        anchors = [torch.cat([getattr(g, f"anchors_{level}") for level in LEVELS]).detach()] * 2
        first = losses.CrossHeadClasses(beta)(student=ours, teacher=theirs, matches=found)
        second = losses.CrossHeadBoxes()(student=offsets, teacher=wanted, logits=theirs, anchors=anchors, matches=found)
        return (classes * first + boxes * second) * positives / (positives + EPS)

    return compute


MODULES = [
    ("crosskd", "authors_beta1", crosskd(1.0, 7)),
    ("crosskd", "authors_beta2_w2", crosskd(2.0, 11, classes=2.0, boxes=0.5)),
]

# Methods whose reference cases lie in a file of another name.
FILES = {"roi_kd": ["kd"], "roi_dkd": ["roi_logits"], "roi_dist": ["roi_logits"]}

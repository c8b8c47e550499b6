"""Losses of detectors with numbers of reference implementations, and batches with boxes to try them on."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from distill_app import adapters, losses

SHARES = {
    "authors_default": (0.001, 0.0005, 0.001, 5e-6, 0.5),
    "authors_two_stage": (5e-5, 2.5e-5, 5e-5, 5e-7, 0.5),
    "authors_unit": (1.0, 0.5, 0.7, 0.01, 0.8),
    "authors_equal_channels": (1.0, 0.5, 0.7, 0.01, 0.8),
    "authors_padded_size": (1.0, 0.5, 0.7, 0.01, 0.8),
}


def targets_of(boxes: Tensor, image: Tensor, sizes: Sequence[Sequence[int]]) -> list[dict[str, Any]]:
    """The boxes of several images, each with its number, as targets of a batch."""
    return [{"boxes": boxes[image == number], "size": tuple(map(int, size))} for number, size in enumerate(sizes)]


def fgfi(numbers: Any, case: str, *, weight: float = 0.01, inclusive: bool = True) -> Tensor:
    """FGFI of one level of stride 16."""
    g = numbers.inputs
    adapter = adapters.ConvRegressor(g.student_feat.shape, g.teacher_feat.shape, kernel_size=3, activation=True)
    student = numbers.load(adapter, "authors", "adapt.")(g.student_feat)
    targets = targets_of(g.boxes.detach(), g.box_image, [(160, 192)] * 2)
    loss = losses.FineGrainedImitation(inclusive=inclusive)
    return weight * loss([student], [g.teacher_feat], targets, [g.anchors.detach()] * 2, [student])


def fgd(numbers: Any, case: str) -> Tensor:
    """FGD of one level: a focal, an attention and a global part, behind a convolution where channels differ."""
    g, (alpha, beta, gamma, lamda, temperature) = numbers.inputs, SHARES[case]
    same = case in ("authors_equal_channels", "authors_padded_size")
    parameters, student = ("authors_equal_channels", g.student_same) if same else ("authors_default", g.student_feat)
    if not same:
        align = adapters.MatchChannels(student.shape, g.teacher_feat.shape, bias=True)
        student = numbers.load(align, parameters, "align.")(student)
    teacher = g.teacher_feat.detach()
    contexts = []
    for side, feature in (("s", student), ("t", teacher)):
        block = adapters.GlobalContext(feature.shape).double()
        numbers.load(block.attention, parameters, f"conv_mask_{side}.")
        numbers.load(block.transform, parameters, f"channel_add_conv_{side}.")
        contexts.append(block(feature))
    placed, sizes = ("batch" if case == "authors_padded_size" else "image"), g.image_sizes.tolist()
    targets = targets_of(g.boxes.detach(), g.box_image, sizes)
    focal = losses.FocalDistance(temperature, background=beta / alpha, placed=placed)
    return (
        alpha * focal(student, teacher, targets, torch.zeros(2, 3, 64, 80))
        + gamma * losses.AttentionDistance(temperature)(student=student, teacher=teacher)
        + lamda * losses.ContextDistance()(*contexts)
    )


def mgd(numbers: Any, case: str) -> Tensor:
    """MGD of three levels, each with a block of its own, with the stored noise."""
    masked, alpha = (0.5, 1.0) if case.endswith("unit") else (0.65, 2e-5)
    total = torch.zeros((), dtype=torch.float64)
    for level in ("p2", "p3", "p4"):
        student, teacher, noise = (getattr(numbers.inputs, f"{kind}_{level}") for kind in ("s", "t", "rand"))
        module = adapters.MaskedGenerator(student.shape, teacher.shape, masked=masked, same_size=True)
        made = numbers.load(module, "authors_published", f"{level}.")(student, noise.detach())
        total = total + alpha * losses.SquaredDistance()(student=made, teacher=teacher)
    return total


# File, case, the loss of (the numbers, the case).
MODULES: list[tuple[str, str, Callable[[Any, str], Tensor]]] = [
    ("fgfi", "authors", fgfi),
    ("fgfi", "authors_weight_1", partial(fgfi, weight=1.0)),
    ("fgfi", "formula_plain_iou", partial(fgfi, inclusive=False)),
    *[("fgd", case, fgd) for case in SHARES],
    *[("mgd_fpn", f"{who}_{size}", mgd) for who in ("authors", "mmrazor") for size in ("published", "unit")],
]
# Method -> files of golden numbers, where they are not called after the method.
FILES = {"cwd_fpn": ["cwd"]}


def levels(batch: int, *, channels: int = 4, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """Maps of three levels at 1/8, 1/16 and 1/32 of images of 64 x 96 px, and the boxes of two of them an image."""
    generator = torch.Generator().manual_seed(batch)
    sizes = [(8, 12), (4, 6), (2, 3)]
    student, teacher = (
        [torch.randn(batch, channels, *size, generator=generator).to(dtype) for size in sizes] for _ in range(2)
    )
    boxes = torch.tensor([[8.0, 8.0, 40.0, 44.0], [50.0, 10.0, 90.0, 60.0]])
    targets = [{"boxes": boxes + number, "size": (64, 96)} for number in range(batch)]
    return {
        "student": [level.requires_grad_() for level in student],
        "teacher": teacher,
        "targets": targets,
        "anchors": [anchors(sizes)] * batch,
        "pyramid": {str(number): level for number, level in enumerate(student)},
        "images": torch.zeros(batch, 3, 64, 96),
    }


def anchors(sizes: Sequence[tuple[int, int]]) -> Tensor:
    """Three shapes at each position of levels at 1/8, 1/16, ..., as torchvision makes them."""
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.image_list import ImageList

    sides = tuple((16 * 2**number,) for number in range(len(sizes)))
    height, width = sizes[0]
    images = ImageList(torch.zeros(1, 3, 8 * height, 8 * width), [(8 * height, 8 * width)])
    maps = [torch.zeros(1, 1, *size) for size in sizes]
    made: list[Tensor] = AnchorGenerator(sides, ((0.5, 1.0, 2.0),) * len(sides))(images, maps)
    return made[0]


def gradients(value: Tensor, leaves: Sequence[Tensor] | nn.Module) -> bool:
    """Whether the backward of a value gives all of these finite gradients."""
    value.backward()
    found = list(leaves.parameters()) if isinstance(leaves, nn.Module) else leaves
    return all(leaf.grad is not None and bool(leaf.grad.isfinite().all()) for leaf in found)

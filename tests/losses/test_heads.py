"""The losses over heads of detectors: layouts, what counts and what does not, and inputs that are degenerate."""

import pytest
import torch
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.retinanet import RetinaNetClassificationHead, RetinaNetRegressionHead

from distill_app.adapters import MatchStatistics
from distill_app.losses import CrossHeadBoxes, CrossHeadClasses
from distill_app.losses.heads import decoded, per_anchor

SIDES = (4, 2)
COUNT = 3 * sum(side * side for side in SIDES)


def levels(channels: int, *, seed: int = 0, batch: int = 2) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, channels, side, side, generator=generator).requires_grad_() for side in SIDES]


def matches(*found: int, batch: int = 2) -> torch.Tensor:
    """The first anchors of the first image as given, all others background."""
    rows = torch.full((batch, COUNT), -1)
    rows[0, : len(found)] = torch.tensor(found, dtype=torch.int64)
    return rows


def anchors(batch: int = 2) -> list[torch.Tensor]:
    corner = torch.rand(COUNT, 2, generator=torch.Generator().manual_seed(5)) * 40
    return [torch.cat([corner, corner + 16], dim=1)] * batch


@pytest.mark.parametrize(
    ("head", "name", "values"),
    [
        (RetinaNetClassificationHead(8, 3, 5), "cls_logits", 5),
        (RetinaNetRegressionHead(8, 3), "bbox_reg", 4),
    ],
)
def test_rows_are_in_torchvisions_order_of_anchors(head, name, values):
    maps = []
    getattr(head, name).register_forward_hook(lambda module, args, output: maps.append(output))
    rows = head([torch.randn(2, 8, side, side) for side in SIDES])
    assert per_anchor(maps, COUNT).equal(rows) and rows.shape == (2, COUNT, values)


def test_boxes_are_decoded_as_torchvision_does_within_the_bounds():
    deltas, places = torch.randn(COUNT, 4), anchors()[0]
    expected = BoxCoder((1.0, 1.0, 1.0, 1.0)).decode_single(deltas, places)
    torch.testing.assert_close(decoded(deltas, places), expected, rtol=1e-5, atol=1e-4)
    small = decoded(torch.tensor([[0.0, 0.0, -50.0, -50.0]]), places[:1])
    torch.testing.assert_close((small[:, 2:] - small[:, :2]), torch.full((1, 2), 16 * 16 / 1000))


def test_the_gradient_reaches_the_student_alone_and_no_anchor_that_is_left_out():
    student, teacher = levels(15), levels(15, seed=1)
    found = matches(0, -2, -2)
    CrossHeadClasses()(student=student, teacher=teacher, matches=found).backward()
    assert all(each.grad is None for each in teacher)
    rows = per_anchor([each.grad for each in student], COUNT)
    assert not rows[0, 1:3].any() and rows[0, 0].all() and rows[1].all()
    deltas = levels(12)
    sides = {"student": deltas, "teacher": levels(12, seed=1), "logits": teacher}
    CrossHeadBoxes()(**sides, anchors=anchors(), matches=found).backward()
    rows = per_anchor([each.grad for each in deltas], COUNT)
    assert not rows[0, 1:3].any() and rows[0, 0].any() and all(each.grad is None for each in teacher)


def test_it_is_divided_by_the_anchors_with_an_object_and_by_at_least_one_for_each_image():
    student, teacher = levels(15), levels(15, seed=1)

    def loss(*found: int) -> float:
        return float(CrossHeadClasses()(student=student, teacher=teacher, matches=matches(*found)).detach())

    assert loss() == pytest.approx(loss(0)) and loss(0, 0, 1) == pytest.approx(loss() * 2 / 4)


@pytest.mark.parametrize("batch", [1, 2])
def test_degenerate_maps_give_finite_numbers(batch):
    shape = (batch, 4, 1, 1)
    sides = [torch.zeros(shape, requires_grad=True)], [torch.randn(shape)]
    (out,) = MatchStatistics([[shape], [shape]])(sides)
    out.sum().backward()
    assert out.isfinite().all() and sides[0][0].grad.isfinite().all()
    student = [torch.zeros(batch, 15, side, side).requires_grad_() for side in SIDES]
    loss = CrossHeadClasses(beta=2.0)(student=student, teacher=student, matches=torch.full((batch, COUNT), -2))
    loss.backward()
    assert loss == 0 and all(each.grad.isfinite().all() for each in student)


def test_statistics_are_those_of_the_teachers_channels():
    student, teacher = levels(6, batch=4), levels(6, seed=1, batch=4)
    shapes = [[tuple(each.shape) for each in side] for side in (student, teacher)]
    out = MatchStatistics(shapes, activation=False)([student, teacher])
    for ours, theirs in zip(out, teacher, strict=True):
        torch.testing.assert_close(ours.mean(dim=(0, 2, 3)), theirs.mean(dim=(0, 2, 3)), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(ours.std(dim=(0, 2, 3)), theirs.std(dim=(0, 2, 3)), rtol=1e-4, atol=1e-5)
    one = MatchStatistics([shapes[0][0], shapes[1][0]])([student[0], teacher[0]])
    assert one.equal(out[0].relu()) and not one.lt(0).any()


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="maps of the student's head and of the teacher's with the same channels"):
        MatchStatistics([[(2, 4, 3, 3)], [(2, 5, 3, 3)]])
    student = levels(15)
    with pytest.raises(ValueError, match="maps of one shape on every level"):
        CrossHeadClasses()(student=student, teacher=student[:1], matches=matches())
    with pytest.raises(ValueError, match="are not those of 7 anchors"):
        CrossHeadClasses()(student=student, teacher=student, matches=torch.zeros(2, 7, dtype=torch.int64))
    with pytest.raises(ValueError, match="4 offsets for each anchor, got 5"):
        sides = {"student": student, "teacher": student, "logits": student}
        CrossHeadBoxes()(**sides, anchors=anchors(), matches=matches())
    with pytest.raises(ValueError, match="beta=-1"):
        CrossHeadClasses(beta=-1)

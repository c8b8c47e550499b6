"""DKD, NKD and RLD: the label, the other classes, and which of them count."""

import pytest
import torch
from logit_fixtures import gradient, inputs, logits

from distill_app import losses


def test_dkd_is_kd_where_the_other_classes_weigh_what_the_teacher_leaves_them():
    student, teacher, target = logits(1, 6, seed=1), logits(1, 6, seed=2), torch.tensor([4])
    rest = 1 - float((teacher / 3).softmax(dim=1)[0, 4])
    decoupled = losses.DecoupledKL(3.0, alpha=1.0, beta=rest)(student=student, teacher=teacher, target=target)
    torch.testing.assert_close(decoupled, losses.KLDivergence(3.0)(student=student, teacher=teacher))


def test_dkd_refuses_two_classes_and_says_that_they_are_kd():
    loss = losses.DecoupledKL()
    with pytest.raises(ValueError, match=r"three or more, got 2.*method=kd"):
        loss(**inputs(loss, 4, classes=2))


def test_dkd_tells_apart_what_subtracting_a_thousand_does_not():
    """A label far above the others: what is said of those must not depend on it."""
    loss, target = losses.DecoupledKL(1.0, alpha=0.0, beta=1.0), torch.tensor([0])
    student, teacher = logits(1, 5, seed=1), logits(1, 5, seed=2)
    near = loss(student=student, teacher=teacher, target=target)
    student[0, 0], teacher[0, 0] = 5000.0, 5000.0
    torch.testing.assert_close(loss(student=student, teacher=teacher, target=target), near)


def test_nkd_takes_the_label_at_temperature_one_whatever_the_temperature():
    values = inputs(losses.NormalizedKD(), 8)
    cool, hot = (losses.NormalizedKD(temperature, gamma=0.0)(**values) for temperature in (1.0, 4.0))
    torch.testing.assert_close(cool, hot, rtol=0, atol=0)
    assert cool > 0


def test_nkd_still_pulls_towards_the_label_where_the_student_equals_the_teacher():
    values = inputs(losses.NormalizedKD(), 8)
    _, grad = gradient(losses.NormalizedKD(), {**values, "student": values["teacher"]})
    at_label = grad.gather(1, values["target"].unsqueeze(1))
    assert (at_label < 0).all() and (grad.scatter(1, values["target"].unsqueeze(1), 1.0) > 0).all()


def test_nkd_of_two_classes_is_the_part_of_the_label():
    values = inputs(losses.NormalizedKD(), 8, classes=2)
    whole, label = losses.NormalizedKD()(**values), losses.NormalizedKD(gamma=0.0)(**values)
    torch.testing.assert_close(whole, label)


def rld_parts(teacher, target, **options):
    student = logits(len(teacher), teacher.shape[1], seed=1)
    values = {"student": student, "teacher": teacher, "target": torch.tensor(target)}
    confidence = losses.RefinedKL(beta=0.0, **options)
    others = losses.RefinedKL(alpha=0.0, beta=1.0, **options)
    return gradient(confidence, values, torch.float64), gradient(others, values, torch.float64)


def test_rld_pairs_the_teachers_largest_probability_with_the_students_of_the_label():
    teacher = torch.tensor([[0.0, 3.0, 1.0, -1.0]], dtype=torch.float64)
    (right, at_right), _ = rld_parts(teacher, [1])
    (turned, _), _ = rld_parts(teacher[:, [1, 0, 2, 3]], [1])
    assert right == turned  # wherever the largest is
    surest = teacher.softmax(dim=1).max()
    ours = logits(1, 4, seed=1).softmax(dim=1)[0, 1]
    torch.testing.assert_close(at_right[0, 1], ours - surest)


def test_rld_leaves_out_classes_as_likely_as_the_label_or_more():
    teacher = torch.tensor([[2.0, 5.0, 2.0, 1.0, 0.0]], dtype=torch.float64)
    _, (value, grad) = rld_parts(teacher, [0])
    assert value > 0 and (grad != 0).tolist() == [[False, False, False, True, True]]


def test_rld_of_a_label_that_the_teacher_finds_least_likely_has_no_second_part_but_counts_in_the_batch():
    teacher = torch.tensor([[2.0, 5.0, 1.0], [4.0, 0.0, 2.0]], dtype=torch.float64)
    _, (nothing, grad) = rld_parts(teacher[:1], [2])
    assert nothing == 0 and not grad.any()
    student = logits(2, 3, seed=1)
    loss = losses.RefinedKL(alpha=0.0, beta=1.0)
    both = loss(student=student, teacher=teacher, target=torch.tensor([2, 0]))
    second = loss(student=student[1:], teacher=teacher[1:], target=torch.tensor([0]))
    torch.testing.assert_close(both, second / 2)


def test_rld_refuses_a_temperature_of_its_confidence_that_is_not_above_zero():
    with pytest.raises(ValueError, match=r"confidence_temperature=0\.0 must be above 0"):
        losses.RefinedKL(confidence_temperature=0.0)

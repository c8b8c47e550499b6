"""WSLD, TTM and WTTM: which samples and which probabilities count more."""

import pytest
import torch
from logit_fixtures import gradient, inputs, logits

from distill_app import losses


def test_wsld_counts_a_sample_by_how_much_worse_the_student_is_and_passes_no_gradient_through_it():
    values = inputs(losses.WeightedSoftLabels(), 2, classes=4)
    student = torch.zeros(2, 4, dtype=torch.float64)
    student[0, 0] = 9.0  # the first sample is known already, the second is not
    teacher = torch.zeros(2, 4, dtype=torch.float64)
    weights = losses.reweighted.sample_weights(student, teacher, values["target"])
    torch.testing.assert_close(weights[1], torch.tensor(1 - 2.718281828459045**-1, dtype=torch.float64))
    assert 0 < weights[0] < 0.001
    _, grad = gradient(
        losses.WeightedSoftLabels(1.0), {**values, "student": student, "teacher": teacher}, torch.float64
    )
    expected = weights.unsqueeze(1) * (student.softmax(dim=1) - teacher.softmax(dim=1)) / 2
    torch.testing.assert_close(grad, expected)


def test_wsld_of_a_certain_teacher_counts_in_full_where_the_student_is_not():
    certain, unsure = 1e4 * torch.eye(3), torch.zeros(3, 3)
    weights = losses.reweighted.sample_weights(unsure, certain, torch.arange(3))
    assert weights.tolist() == [1.0, 1.0, 1.0]
    assert losses.reweighted.sample_weights(certain, certain, torch.arange(3)).tolist() == [0.0, 0.0, 0.0]


def test_ttm_is_least_where_the_student_is_the_softened_teacher_and_not_where_it_is_the_teacher():
    loss = losses.TransformedTeacherKL(0.25)
    teacher = logits(8, 6, seed=2, scale=3.0)
    softened, still = gradient(loss, {"student": 0.25 * teacher, "teacher": teacher}, torch.float64)
    assert abs(softened) < 1e-12 and still.abs().max() < 1e-12
    equal, pulled = gradient(loss, {"student": teacher, "teacher": teacher}, torch.float64)
    assert equal > 0.1 and pulled.abs().max() > 1e-3
    with pytest.raises(ValueError, match=r"power=0\.0 must be above 0"):
        losses.TransformedTeacherKL(0.0)


def test_ttm_has_no_temperature_at_the_student_and_no_factor():
    values = inputs(losses.TransformedTeacherKL(), 8)
    softened = {**values, "teacher": values["teacher"] / 4}
    expected = losses.KLDivergence(1.0)(**softened)
    torch.testing.assert_close(losses.TransformedTeacherKL(0.25)(**values), expected)


def test_wttm_weights_each_sample_by_the_power_sum_and_not_by_its_share_of_the_batch(golden):
    numbers = golden("wttm")
    teacher = numbers.inputs.teacher_logits.detach()
    for power in (0.1, 0.25, 1.0):
        weights = losses.reweighted.power_sum(teacher, power)
        torch.testing.assert_close(weights, numbers.arrays[f"authors_g{power:g}/out/weight"])
        assert (weights >= 1 - 1e-12).all() and (weights <= 10 ** (1 - power) + 1e-12).all()
    loss = losses.TransformedTeacherKL(0.2, weighted=True)
    values = inputs(loss, 6)
    each = torch.stack([loss(**{name: value[i : i + 1] for name, value in values.items()}) for i in range(6)])
    torch.testing.assert_close(loss(**values), each.mean())

"""Logit standardisation and NormKD: logits whose spread is taken out."""

import pytest
import torch
from logit_fixtures import gradient, inputs

from distill_app import adapters, losses


@pytest.mark.parametrize(
    "loss",
    [
        losses.StandardizedKL(),
        losses.DecoupledKL(standardize=True),
        losses.RefinedKL(beta=0.0, standardize=True),
        losses.MultiLevelAlignment(standardize=True),
    ],
    ids=lambda loss: type(loss).__name__,
)
def test_standardised_logits_do_not_tell_mean_and_scale(loss):
    values = inputs(loss, 8)
    near = loss(**values)
    moved = loss(**{**values, "student": 7 * values["student"] + 3, "teacher": 0.2 * values["teacher"] - 1})
    torch.testing.assert_close(moved, near, rtol=1e-6, atol=0)
    if "target" not in values or isinstance(loss, losses.DecoupledKL):
        twin, _ = gradient(loss, {**values, "student": 7 * values["teacher"] + 3}, torch.float64)
        assert abs(twin) < 1e-12


def test_lskd_learns_from_a_student_without_spread_as_the_reference_does_but_for_the_size_of_the_gradient(golden):
    numbers = golden("edge_cases")
    teacher = numbers.inputs.logits.detach()
    _, grad = gradient(
        losses.StandardizedKL(), {"student": torch.zeros_like(teacher), "teacher": teacher}, torch.float64
    )
    wanted = numbers.arrays["logit_std_T2/student_zero/grad"]
    # Divided by the smallest deviation, 0.001, and not by 1e-7.
    torch.testing.assert_close(grad * (1e-3 + 1e-7) / 1e-7, wanted, rtol=1e-6, atol=1e-3)


def test_normkd_takes_the_square_of_the_teachers_spread_alone_and_learns_through_the_students():
    loss = losses.SpreadTemperatureKL()
    values = inputs(loss, 8)
    near, grad = gradient(loss, values, torch.float64)
    wider, wider_grad = gradient(loss, {**values, "student": 5 * values["student"]}, torch.float64)
    torch.testing.assert_close(wider, near)  # the student's scale is not seen
    torch.testing.assert_close(wider_grad, grad / 5)
    torch.testing.assert_close((grad * values["student"]).sum(), torch.zeros((), dtype=torch.float64))
    louder, _ = gradient(loss, {**values, "teacher": 5 * values["teacher"]}, torch.float64)
    torch.testing.assert_close(louder, 25 * near)


def test_normkd_is_kd_with_two_temperatures_of_each_sample():
    values = inputs(losses.SpreadTemperatureKL(), 1)
    student, teacher = values["student"], values["teacher"]
    ours, theirs = (float(2 * side.std()) for side in (student, teacher))
    wanted = losses.KLDivergence(1.0)(student=student / ours, teacher=teacher / theirs) * theirs**2
    torch.testing.assert_close(losses.SpreadTemperatureKL()(**values), wanted)
    with pytest.raises(ValueError, match=r"scale=0\.0 must be above 0"):
        losses.SpreadTemperatureKL(0.0)


def test_normkd_says_hardly_anything_of_a_teacher_without_spread():
    values = inputs(losses.SpreadTemperatureKL(), 8)
    value, grad = gradient(losses.SpreadTemperatureKL(), {**values, "teacher": torch.zeros_like(values["teacher"])})
    assert 0 <= value < 1e-4 and grad.abs().max() < 1e-4


@pytest.mark.parametrize("classes", [1, 2])
@pytest.mark.parametrize(
    "loss",
    [
        losses.StandardizedKL(),
        losses.SpreadTemperatureKL(),
        losses.MultiLevelAlignment(standardize=True),
        losses.RefinedKL(standardize=True),
    ],
    ids=lambda loss: type(loss).__name__,
)
def test_two_classes_of_which_nothing_is_left_without_their_spread_are_refused(loss, classes):
    values = inputs(loss, 4)
    fewer = {name: value[:, :classes] if value.dim() == 2 else value * 0 for name, value in values.items()}
    with pytest.raises(ValueError, match=f"fewer than three classes, got {classes}: .* method=kd"):
        loss(**fewer)


@pytest.mark.parametrize(
    "read", [lambda z: adapters.RescaledLogits([z.shape] * 2)([z, z]), adapters.NormedLogits()], ids=["of", "by"]
)
def test_spherical_logits_of_two_classes_are_refused(read):
    with pytest.raises(ValueError, match="fewer than three classes, got 2"):
        read(torch.randn(4, 2))

"""The losses over class logits since KD: degenerate logits, sizes and labels, of all of them."""

import pytest
import torch
from logit_fixtures import EDGES, MAKE, fed, gradient, inputs


@pytest.mark.parametrize("flat", [("student",), ("teacher",), ("student", "teacher")])
@pytest.mark.parametrize("constant", [0.0, 1e4])
@pytest.mark.parametrize("name", MAKE)
def test_equal_logits_give_finite_numbers(name, constant, flat):
    loss = MAKE[name]()
    values = inputs(loss, 8)
    values.update({side: torch.full_like(values[side], constant) for side in flat})
    _, grad = gradient(loss, values)
    assert grad.abs().max() < (1e8 if name == "dist" else 1e4)  # its eps is the published one


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("name", MAKE)
def test_large_logits_give_finite_numbers_in_every_precision(name, batch, dtype):
    loss = MAKE[name]()
    values = inputs(loss, batch, scale=1e4)
    value, _ = gradient(loss, values, dtype)
    assert value.dtype == torch.float32


@pytest.mark.parametrize("name", MAKE)
def test_a_right_and_certain_pair_gives_finite_numbers(name):
    loss = MAKE[name]()
    values = inputs(loss, 5)
    certain = 1e4 * torch.eye(5, dtype=torch.float64)
    gradient(loss, {**values, "student": certain, "teacher": certain})


@pytest.mark.parametrize("situation", ["student_equals_teacher", "student_zero", "batch_1"])
@pytest.mark.parametrize("case", EDGES)
def test_degenerate_logits_give_the_numbers_of_the_reference(golden, case, situation):
    numbers = golden("edge_cases")
    teacher, target = numbers.inputs.logits.detach(), numbers.inputs.labels
    if situation == "batch_1":
        teacher, target, student = teacher[:1], target[:1], teacher.flip(0).roll(1, -1)[:1].clone()
    else:
        student = teacher.clone() if situation == "student_equals_teacher" else torch.zeros_like(teacher)
    loss = EDGES[case]
    value, _ = gradient(loss, fed(loss, student=student, teacher=teacher, target=target), torch.float64)
    torch.testing.assert_close(value, numbers.arrays[f"{case}/{situation}/loss"], rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", MAKE)
def test_logits_that_are_no_rows_of_one_size_are_refused(name):
    loss = MAKE[name]()
    values, kind = inputs(loss, 8), type(loss).__name__
    with pytest.raises(ValueError, match=rf"{kind}.*\(8, 5\).*\(8, 7\)"):
        loss(**{**values, "teacher": torch.zeros(8, 7)})
    with pytest.raises(ValueError, match=rf"{kind} needs class logits"):
        loss(**{**values, "student": torch.zeros(8, 5, 2), "teacher": torch.zeros(8, 5, 2)})


@pytest.mark.parametrize("name", [name for name, make in MAKE.items() if "target" in inputs(make(), 1)])
def test_labels_that_are_not_one_class_each_are_refused(name):
    loss = MAKE[name]()
    for wrong in (torch.rand(8, 5), torch.zeros(7, dtype=torch.long)):
        with pytest.raises(ValueError, match=rf"{type(loss).__name__} needs one class index for each image"):
            loss(**{**inputs(loss, 8), "target": wrong})


@pytest.mark.parametrize(
    "name", [name for name, make in MAKE.items() if isinstance(make, type) and hasattr(make(), "temperature")]
)
def test_a_temperature_that_is_not_above_zero_is_refused(name):
    for wrong in (0.0, -1.0):
        with pytest.raises(ValueError, match=f"temperature={wrong} must be above 0"):
            MAKE[name](wrong)

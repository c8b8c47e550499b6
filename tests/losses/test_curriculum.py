"""CTKD: what the temperature learns, against the student."""

import pytest
import torch
from logit_fixtures import logits

from distill_app import adapters, losses


def curriculum(numbers, case, temperature_weight, kd_weight):
    """The total of the reference: value and gradient of the student's term, gradient of the temperature's."""
    g = numbers.inputs
    heat = numbers.load(adapters.LearnableTemperature(), case)(g.student_logits)
    sides = {"student": g.student_logits, "teacher": g.teacher_logits, "temperature": heat}
    student, temperature = (losses.CurriculumKL(learns=who)(**sides) for who in ("student", "temperature"))
    torch.testing.assert_close(student.detach(), temperature.detach())
    torch.testing.assert_close(heat.detach(), numbers.arrays[f"{case}/out/temperature"])
    torch.testing.assert_close(student.detach(), numbers.arrays[f"{case}/out/kl"].reshape(()))
    return kd_weight * student + temperature_weight * kd_weight * (temperature - temperature.detach())


@pytest.mark.parametrize(
    ("case", "epoch", "ce", "kd"),
    [
        ("authors_kd_th1_lam-1", 10, 0.1, 0.9),
        ("authors_kd_th1_lam-0.2061", 3, 0.1, 0.9),
        ("authors_kd_th-2_lam0", 0, 1.0, 1.0),
    ],
)
def test_ctkd_gives_student_and_temperature_the_gradients_of_the_reference(golden, case, epoch, ce, kd):
    numbers = golden("ctkd")
    g = numbers.inputs
    reversal = losses.CosineDecay(value=0.0, final=-1.0, epochs=10)(epoch)
    labels = torch.nn.functional.cross_entropy(g.student_logits, g.labels)
    numbers.check(case, ce * labels + curriculum(numbers, case, reversal, kd))


@pytest.mark.parametrize("epochs", [5, 10])
def test_ctkd_reverses_by_the_published_curriculum(golden, epochs):
    wanted = golden("ctkd").arrays[f"schedule_cosine_loops{epochs}_max0_min-1/out/values"]
    schedule = losses.CosineDecay(value=0.0, final=-1.0, epochs=epochs)
    ours = torch.tensor([schedule(epoch) for epoch in range(len(wanted))], dtype=torch.float64)
    torch.testing.assert_close(ours, wanted)


def test_ctkd_moves_the_temperature_as_the_reference_does(golden):
    numbers = golden("ctkd")
    g, heat = numbers.inputs, adapters.LearnableTemperature().double()
    sides = {"student": g.student_logits, "teacher": g.teacher_logits}
    optimizer = torch.optim.SGD(heat.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    schedule, loss = losses.CosineDecay(value=0.0, final=-0.9, epochs=10), losses.CurriculumKL(learns="temperature")
    seen = [heat.theta.detach().clone()]
    for epoch in range(1, 8):
        optimizer.zero_grad()
        (schedule(epoch) * loss(**sides, temperature=heat(g.student_logits))).backward()
        optimizer.step()
        seen.append(heat.theta.detach().clone())
    torch.testing.assert_close(torch.cat(seen), numbers.arrays["trajectory_theta/out/theta"], rtol=1e-9, atol=0)
    assert g.student_logits.grad is None and g.teacher_logits.grad is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
@pytest.mark.parametrize("learns", ["student", "temperature"])
@pytest.mark.parametrize("batch", [1, 8])
def test_ctkd_gives_finite_gradients_to_the_one_that_learns_and_none_to_the_other(learns, scale, dtype, batch):
    sides = {side: logits(batch, 5, seed=i, scale=scale).to(dtype).requires_grad_() for i, side in enumerate("st")}
    heat = adapters.LearnableTemperature(initial=-9.0)
    value = losses.CurriculumKL(learns=learns)(student=sides["s"], teacher=sides["t"], temperature=heat(sides["s"]))
    value.backward()
    learnt, other = (sides["s"], heat.theta) if learns == "student" else (heat.theta, sides["s"])
    assert value.isfinite() and value.dtype == torch.float32 and learnt.grad.isfinite().all()
    assert other.grad is None and sides["t"].grad is None


def test_ctkd_refuses_what_is_no_pair_of_logits_and_one_temperature():
    row = torch.zeros(2, 3)
    loss = losses.CurriculumKL()
    with pytest.raises(ValueError, match=r"CurriculumKL needs one temperature, got \(2, 3\).*LearnableTemperature"):
        loss(student=row, teacher=row, temperature=row)
    with pytest.raises(ValueError, match=r"CurriculumKL.*\(2, 3\).*\(2, 4\)"):
        loss(student=row, teacher=torch.zeros(2, 4), temperature=torch.ones(1))
    with pytest.raises(ValueError, match="allowed: student, temperature"):
        losses.CurriculumKL(learns="both")
    with pytest.raises(ValueError, match=r"start=0\.0 and width=20\.0 must be above 0"):
        adapters.LearnableTemperature(start=0.0)

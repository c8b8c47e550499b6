"""The losses over class logits since KD: degenerate logits, sizes, labels, and what each promises of its own."""

import pytest
import torch
from logit_fixtures import EDGES, MAKE, fed, inputs, logits

from distill_app import adapters, losses


def gradient(loss, values, dtype=torch.float32):
    """Value and gradient at the student, after checking that both are finite."""
    values = {name: value.to(dtype) if value.is_floating_point() else value for name, value in values.items()}
    student = values["student"].clone().requires_grad_()
    value = loss(**{**values, "student": student})
    value.backward()
    assert value.isfinite() and student.grad.isfinite().all()
    return value.detach(), student.grad


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


def test_dist_does_not_mind_by_how_much_probabilities_differ_only_how_they_go_together():
    loss = losses.PearsonDistance(gamma=0.0, eps=0.0)
    teacher = logits(8, 6, seed=2).softmax(dim=1)
    flatter = (0.3 * teacher + 0.7 / 6).log()
    torch.testing.assert_close(loss(student=flatter, teacher=teacher.log()), torch.zeros((), dtype=torch.float64))
    assert losses.KLDivergence(1.0)(student=flatter, teacher=teacher.log()) > 0.05


def test_dist_of_one_sample_has_no_correlation_over_samples_and_no_gradient_from_it():
    loss = losses.PearsonDistance(2.0, beta=0.0, gamma=1.5)
    value, grad = gradient(loss, inputs(loss, 1))
    assert value == 4 * 1.5 and not grad.any()


def test_dist_adds_its_eps_where_another_framework_clamps(golden):
    """The other value is closer than anybody would see, and further away than the tolerance of the rest."""
    numbers = golden("dist")
    g = numbers.inputs
    ours = losses.PearsonDistance(4.0, beta=2.0, gamma=2.0)(student=g.student_logits, teacher=g.teacher_logits)
    assert 1e-9 < abs(ours.item() / numbers.arrays["td_b2_g2_tau4/loss"].item() - 1) < 1e-7


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


def test_mlkd_is_a_sum_over_temperatures_of_kd_at_the_level_of_instances():
    values = inputs(losses.MultiLevelAlignment(), 8)
    wanted = sum(losses.KLDivergence(temperature)(**values) for temperature in (4.0, 3.0, 5.0, 2.0, 6.0))
    torch.testing.assert_close(losses.MultiLevelAlignment()(**values), wanted)


def test_mlkd_of_batches_does_not_mind_which_class_is_which_and_that_of_classes_not_which_sample():
    values = inputs(losses.MultiLevelAlignment(), 8)
    for level, other, turn in (
        ("batch", "class", lambda z: z.roll(1, dims=1)),
        ("class", "batch", lambda z: z.flip(0)),
    ):
        turned = {**values, "student": turn(values["student"])}
        alike, unlike = (losses.MultiLevelAlignment(kind) for kind in (level, other))
        torch.testing.assert_close(alike(**turned), alike(**values))
        assert abs(float(unlike(**turned) / unlike(**values)) - 1) > 0.01


def test_mlkd_draws_no_mask(golden):
    """The reference multiplies sums by the share of confident samples, so that its mask chooses none."""
    numbers = golden("mlld")
    g = numbers.inputs
    plain = 9 * losses.MultiLevelAlignment("batch")(student=g.student_weak, teacher=g.teacher_weak)
    torch.testing.assert_close(plain.detach(), 2 * numbers.arrays["authors_loss_bc/loss"])


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"level": "pixel"}, "allowed: instance, batch, class"),
        ({"temperatures": []}, "name one or more"),
        ({"temperatures": [4.0, 0.0]}, r"temperatures=0\.0 must be above 0"),
        ({"level": "class", "standardize": True}, "no part in level='class'"),
    ],
)
def test_mlkd_refuses_levels_and_temperatures_that_do_not_exist(options, told):
    with pytest.raises(ValueError, match=told):
        losses.MultiLevelAlignment(**options)


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

"""DIST and MLKD: probabilities of a batch as one table."""

import pytest
import torch
from logit_fixtures import gradient, inputs, logits

from distill_app import losses


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


def test_dist_plus_turns_the_sign_that_one_framework_has(golden):
    numbers = golden("dist_plus")
    g = numbers.inputs
    ours = losses.FeatureCorrelation(space=0.0)(student=g.student_feat, teacher=g.teacher_feat)
    ours.backward()
    theirs = {part: numbers.arrays[f"td_channel_only/{part}"] for part in ("loss", "grad/student_feat")}
    torch.testing.assert_close(ours.detach(), 1 - theirs["loss"])
    torch.testing.assert_close(g.student_feat.grad, -theirs["grad/student_feat"], rtol=1e-7, atol=1e-12)


def test_dist_plus_of_equal_maps_is_zero_and_of_one_sample_has_no_correlation_over_samples():
    loss, feature = losses.FeatureCorrelation(eps=0.0), torch.randn(4, 3, 2, 2, dtype=torch.float64)
    torch.testing.assert_close(loss(student=2 * feature, teacher=feature), torch.zeros((), dtype=torch.float64))
    one = losses.FeatureCorrelation(channels=0.0)(student=feature[:1].requires_grad_(), teacher=feature[1:2])
    assert one == 1

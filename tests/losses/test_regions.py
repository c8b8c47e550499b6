"""SDD, SKD and USKD: regions, directions, and labels of one's own."""

import pytest
import torch
from feature_fixtures import by_itself, of_each_region, tensor

from distill_app import adapters, losses


def test_sdd_counts_a_region_twice_where_the_teacher_is_right_of_it_alone_or_of_the_whole_alone():
    teacher = torch.zeros(1, 3, 4, dtype=torch.float64)
    for region, said in enumerate((0, 0, 1, 2)):
        teacher[0, said, region] = 3.0
    student = tensor(1, 3, 4, seed=1)
    loss, kd = losses.ScaleDecoupled(losses.KLDivergence()), losses.KLDivergence()
    each = torch.stack([kd(student=student[..., k], teacher=teacher[..., k]) for k in range(4)])
    for label, weights in ((0, (1, 1, 2, 2)), (1, (1, 1, 2, 1)), (2, (1, 1, 1, 2))):
        value = loss(student=student, teacher=teacher, target=torch.tensor([label]))
        torch.testing.assert_close(value, (each * torch.tensor(weights)).mean())


@pytest.mark.parametrize("base", [losses.KLDivergence(), losses.DecoupledKL(), losses.NormalizedKD()])
def test_sdd_of_one_region_is_its_base(base):
    given = of_each_region(8)
    one = {**given, "student": given["student"][..., :1], "teacher": given["teacher"][..., :1]}
    whole = {name: value.squeeze(2) if value.dim() == 3 else value for name, value in one.items()}
    if isinstance(base, losses.KLDivergence):
        del whole["target"]
    torch.testing.assert_close(losses.ScaleDecoupled(base)(**one), base(**whole))


def test_sdd_refuses_what_has_no_rows_and_what_are_no_regions():
    with pytest.raises(ValueError, match=r"base=MSELoss.*KLDivergence, DecoupledKL, NormalizedKD"):
        losses.ScaleDecoupled(torch.nn.MSELoss())
    with pytest.raises(ValueError, match=r"\(B, C, N\), got \(4, 5\).*RegionLogits"):
        losses.ScaleDecoupled(losses.KLDivergence())(
            student=torch.zeros(4, 5), teacher=torch.zeros(4, 5), target=torch.zeros(4, dtype=torch.long)
        )


@pytest.mark.parametrize("batch", [1, 2, 8])
def test_skd_is_zero_with_a_finite_gradient_where_directions_agree(batch):
    teacher = tensor(batch, 5, seed=1)
    student = (3 * teacher).requires_grad_()
    value = losses.DirectionDistance()(student=student, teacher=teacher)
    value.backward()
    assert value.abs() < 1e-6 and student.grad.isfinite().all()


def test_uskd_gives_the_other_classes_what_their_rank_says_and_no_more_than_one_in_all():
    loss = losses.CustomizedSoftLabels()
    student = torch.tensor([[5.0, 1.0, 3.0, 2.0]], dtype=torch.float64)
    shares = loss._shares(student, student, torch.tensor([0]))
    # Ranks of all classes: the label is first, so the others get 1/2, 1/3 and 1/4 of what there is.
    wanted = torch.tensor([[1 / 4, 1 / 2, 1 / 3]], dtype=torch.float64)
    torch.testing.assert_close(shares, wanted / wanted.sum())


def test_uskd_trains_the_weak_classifier_by_its_own_part_alone_and_refuses_other_classes():
    given = by_itself(8)
    weak = given["weak"].requires_grad_()
    losses.CustomizedSoftLabels(mu=0.0)(**given).backward()
    assert not weak.grad.any()
    with pytest.raises(ValueError, match=r"\(8, 4\) beside \(8, 5\).*LinearProjector"):
        losses.CustomizedSoftLabels()(**{**given, "weak": torch.zeros(8, 4)})


def test_spherical_logits_have_the_teachers_spread_or_a_fixed_one():
    student, teacher = tensor(6, 5, seed=1), 4 * tensor(6, 5, seed=2)
    rescaled = adapters.RescaledLogits([(2, 5), (2, 5)])([student, teacher])
    torch.testing.assert_close(rescaled.std(dim=1), teacher.std(dim=1))
    normed = adapters.NormedLogits(multiplier=3.0)(student)
    torch.testing.assert_close(
        normed.std(dim=1, correction=0), torch.full((6,), 3.0, dtype=torch.float64), rtol=1e-5, atol=0
    )
    with pytest.raises(ValueError, match=r"source: \[student\.logits, teacher\.logits\]"):
        adapters.RescaledLogits([(2, 5), (2, 4)])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("scale", [0.0, 1e4])
def test_spherical_logits_are_finite_for_equal_and_for_huge_ones(dtype, scale):
    student, teacher = (scale * tensor(4, 5, seed=seed) for seed in (1, 2))
    for make in (lambda s: adapters.RescaledLogits([s.shape] * 2)([s, teacher.to(dtype)]), adapters.NormedLogits()):
        leaf = student.to(dtype).requires_grad_()
        made = make(leaf)
        losses.KLDivergence()(student=made, teacher=teacher.to(dtype)).backward()
        assert made.dtype == torch.float32 and made.isfinite().all() and leaf.grad.isfinite().all()

"""WKD: the cost of moving probabilities, and Gaussians of features."""

import pytest
import torch
from feature_fixtures import tensor, with_costs

from distill_app import adapters, losses


def test_mass_moved_between_like_classes_costs_less_than_between_unlike_ones():
    cost = torch.tensor([[0.0, 1, 1, 1], [1, 0, 0.1, 1], [1, 0.1, 0, 1], [1, 1, 1, 0]])
    teacher = torch.tensor([[0.0, 6.0, 0.0, 0.0]])
    loss, target = losses.SinkhornDistance(1.0), torch.tensor([0])
    like, unlike = (
        loss(student=torch.tensor([logits]), teacher=teacher, target=target, cost=cost)
        for logits in ([0.0, 0.0, 6.0, 0.0], [0.0, 0.0, 0.0, 6.0])
    )
    assert like < 0.2 < 0.8 < unlike


def test_the_label_plays_no_part_in_what_is_moved():
    given = with_costs(8)
    loss = losses.SinkhornDistance()
    moved = given["student"].scatter(1, given["target"].unsqueeze(1), 1e3)
    torch.testing.assert_close(loss(**{**given, "student": moved}), loss(**given))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
def test_the_cost_is_finite_for_two_classes_and_for_equal_and_huge_logits(classes, scale, dtype):
    student, teacher = (scale * tensor(4, classes, seed=seed) for seed in (1, 2))
    student = student.to(dtype).requires_grad_()
    cost = 1 - torch.eye(classes)
    target = torch.arange(4) % classes
    value = losses.SinkhornDistance()(student=student, teacher=teacher.to(dtype), target=target, cost=cost)
    value.backward()
    assert value.isfinite() and student.grad.isfinite().all()
    assert (classes > 2) or value < 1e-6


def test_costs_are_refused_if_they_are_not_those_of_the_classes():
    given = with_costs(4)
    with pytest.raises(ValueError, match=r"5 classes, got \(4, 4\).*ClassCosts"):
        losses.SinkhornDistance()(**{**given, "cost": torch.zeros(4, 4)})
    with pytest.raises(ValueError, match="one linear layer, got ReLU"):
        adapters.ClassCosts(borrowed=torch.nn.ReLU())


def test_costs_are_sharpened_as_the_reference_does():
    classifier = torch.nn.Linear(3, 4)
    plain, sharp = (adapters.ClassCosts(borrowed=classifier, sharpen=k)(torch.zeros(1)) for k in (0.0, 2.0))
    torch.testing.assert_close(sharp, 1 - torch.exp(-2 * plain))
    assert not plain.requires_grad and torch.allclose(plain.diagonal(), torch.zeros(4), atol=1e-6)


@pytest.mark.parametrize(("size", "grid"), [(1, 1), (2, 2), (3, 4), (7, 2)])
def test_gaussians_of_cells_are_finite_even_if_a_cell_is_one_position(size, grid):
    student = tensor(2, 3, size, size, seed=1).requires_grad_()
    value = losses.GaussianDistance(grid)(student=student, teacher=tensor(2, 3, 5, 5, seed=2))
    value.backward()
    assert value.isfinite() and student.grad.isfinite().all()
    same = losses.GaussianDistance(grid)(student=student, teacher=student)
    assert same == 0


def test_the_weight_of_wkd_falls_as_published(golden):
    wanted = golden("wkd").arrays["weight_schedule/out/factor"]
    schedule = losses.CosineDecay(value=1.0, epochs=240, after=150)
    torch.testing.assert_close(torch.tensor([schedule(epoch) for epoch in range(241)], dtype=torch.float64), wanted)
    with pytest.raises(ValueError, match=r"after=10\.0 must lie between 0 and epochs=10"):
        losses.CosineDecay(value=1.0, epochs=10, after=10.0)


def test_costs_of_classes_that_are_nearly_alike_are_exact_under_autocast():
    classifier = torch.nn.Linear(64, 4)
    classifier.weight.data = torch.randn(64, generator=torch.Generator().manual_seed(0)) + 0.05 * classifier.weight.data
    read, source = adapters.ClassCosts(borrowed=classifier), torch.zeros(1)
    wanted = read(source)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert read(source).equal(wanted)
    with pytest.raises(ValueError, match=r"sharpen=-5\.0 must be 0 or more"):
        adapters.ClassCosts(borrowed=classifier, sharpen=-5.0)

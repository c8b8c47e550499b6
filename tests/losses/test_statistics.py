"""NST, ICKD and others: products, spectra and moments of maps."""

import pytest
import torch
from feature_fixtures import tensor

from distill_app import losses


def discrepancy(student, teacher):
    """NST by its definition, from all products between channels."""
    ours, theirs = (torch.nn.functional.normalize(feature.flatten(2), dim=2) for feature in (student, teacher))

    def kernel(first, second):
        return torch.einsum("bid,bjd->bij", first, second).square().mean()

    return kernel(theirs, theirs) + kernel(ours, ours) - 2 * kernel(ours, theirs)


@pytest.mark.parametrize("size", [2, 6])
def test_nst_is_its_definition_whether_positions_or_channels_are_fewer(size):
    student, teacher = tensor(3, 5, size, size, seed=1), tensor(3, 9, size, size, seed=2)
    value = losses.NeuronSelectivity()(student=student, teacher=teacher)
    torch.testing.assert_close(value, discrepancy(student, teacher))


def test_nst_does_not_mind_which_channel_is_which_and_ickd_does():
    student, teacher = tensor(3, 6, 4, 4, seed=1), tensor(3, 6, 4, 4, seed=2)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    for loss, minds in ((losses.NeuronSelectivity(), False), (losses.ChannelCorrelation(), True)):
        value, turned = (loss(student=feature, teacher=teacher) for feature in (student, student[:, order]))
        assert torch.isclose(value, turned) != minds


@pytest.mark.parametrize("dead", [False, True])
@pytest.mark.parametrize("sizes", [(2, 2), (2, 1), (3, 3), (2, 4)])
def test_ickd_is_its_definition_whether_positions_or_channels_are_fewer(sizes, dead):
    student, teacher = (tensor(3, 6, size, size, seed=seed) for seed, size in enumerate(sizes))
    if dead:
        student[0, 1], teacher[1, 2], student[2], teacher[2] = 0.0, 0.0, 0.0, 0.0
    rows = [torch.nn.functional.normalize(x.flatten(2) @ x.flatten(2).mT, dim=2) for x in (student, teacher)]
    value = losses.ChannelCorrelation()(student=student, teacher=teacher)
    torch.testing.assert_close(value, (rows[0] - rows[1]).square().sum() / 18)


def test_ickd_has_the_gradient_of_its_definition_and_none_where_maps_agree():
    student, teacher = tensor(2, 8, 2, 2, seed=1).requires_grad_(), tensor(2, 8, 2, 2, seed=2)
    loss = losses.ChannelCorrelation()
    (found,) = torch.autograd.grad(loss(student=student, teacher=teacher), student)
    ours, theirs = student.flatten(2), teacher.flatten(2)
    (wanted,) = torch.autograd.grad(loss._by_channels(ours, theirs) / 16, student)
    torch.testing.assert_close(found, wanted)
    same = student.detach().float().requires_grad_()
    value = loss(student=same, teacher=same.detach())
    value.backward()
    assert value == 0 and value.dtype == torch.float32 and same.grad.abs().max() < 1e-7


def test_ickd_compares_maps_of_any_size():
    teacher = tensor(2, 4, 6, 6, seed=1)
    tiled = teacher.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    value = losses.ChannelCorrelation()(student=tiled, teacher=teacher)
    torch.testing.assert_close(value, torch.zeros((), dtype=torch.float64))


def test_affinity_is_the_distance_of_outer_products_and_finite_where_there_is_none():
    student, teacher = tensor(2, 3, 4, 4, seed=1), tensor(2, 3, 4, 4, seed=2)
    student[0, 0], teacher[1, 1] = 0.0, 0.0
    ours, theirs = (torch.nn.functional.normalize(feature.flatten(2), dim=2) for feature in (student, teacher))
    outer = ours.unsqueeze(3) * ours.unsqueeze(2) - theirs.unsqueeze(3) * theirs.unsqueeze(2)
    loss = losses.AffinityDistance()
    torch.testing.assert_close(
        loss(student=student, teacher=teacher), outer.flatten(2).norm(dim=2).sum(dim=1).mean() / 16
    )
    student = teacher.clone().requires_grad_()
    loss(student=student, teacher=teacher).backward()
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("size", [(3, 3), (2, 2)])
def test_the_gradient_of_singular_vectors_is_the_exact_one_where_values_differ(size):
    feature = tensor(2, 5, *size, seed=1).requires_grad_()
    weights = tensor(2, 5, 2, seed=2)
    _, ours = losses.spectra._decomposed(feature, 2)
    theirs = torch.linalg.svd(feature.flatten(2).transpose(1, 2), full_matrices=False)[2][:, :2].transpose(1, 2)
    gradients = [torch.autograd.grad((vectors * weights).sum(), feature)[0] for vectors in (ours, theirs)]
    torch.testing.assert_close(*gradients)


def test_kdsvd_gives_the_gradient_of_the_reference_in_size(golden):
    """Its gradients are not stored, but for the largest."""
    g = golden("kdsvd").inputs
    losses.SingularVectors()(student=[g.s1, g.s2], teacher=[g.t1, g.t2]).backward()
    assert float(max(g.s1.grad.abs().max(), g.s2.grad.abs().max())) == pytest.approx(0.01837140302699148, rel=1e-8)


def test_kdsvd_is_finite_where_singular_values_coincide():
    student = [torch.eye(4).view(1, 4, 2, 2).repeat(2, 1, 1, 1).requires_grad_() for _ in range(2)]
    teacher = [tensor(2, 4, 2, 2, seed=1).float(), tensor(2, 4, 2, 2, seed=2).float()]
    losses.SingularVectors()(student=student, teacher=teacher).backward()
    assert all(feature.grad.isfinite().all() for feature in student)


def test_kdsvd_refuses_what_are_no_layers_side_by_side():
    loss, feature = losses.SingularVectors(), torch.zeros(2, 4, 2, 2)
    for student, teacher in (([feature], [feature]), ([feature] * 2, [feature, torch.zeros(2, 5, 2, 2)])):
        with pytest.raises(ValueError, match=r"two or more maps.*MatchChannels"):
            loss(student=student, teacher=teacher)
    with pytest.raises(ValueError, match="count=0"):
        losses.SingularVectors(0)


def test_srd_has_no_logarithm_of_zero():
    """Where embeddings are equal, and of one sample, whose dimensions have no spread."""
    for batch in (8, 1):
        student = tensor(batch, 6, seed=1).requires_grad_()
        value = losses.WhitenedLogDistance()(student=student, teacher=student.detach())
        value.backward()
        assert value.isfinite() and student.grad.isfinite().all()
    with pytest.raises(ValueError, match=r"WhitenedLogDistance.*LinearProjector"):
        losses.WhitenedLogDistance()(student=torch.zeros(4, 3), teacher=torch.zeros(4, 5))


def test_srd_does_not_mind_mean_and_scale_of_a_dimension():
    student, teacher = tensor(64, 3, seed=1), tensor(64, 3, seed=2)
    loss = losses.WhitenedLogDistance(eps=1e-12)
    moved = student * torch.tensor([2.0, 0.5, 3.0]) + torch.tensor([1.0, 0.0, -4.0])
    torch.testing.assert_close(*(loss(student=side, teacher=teacher) for side in (student, moved)))

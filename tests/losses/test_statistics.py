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


def test_ickd_compares_maps_of_any_size():
    teacher = tensor(2, 4, 6, 6, seed=1)
    tiled = teacher.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    value = losses.ChannelCorrelation()(student=tiled, teacher=teacher)
    torch.testing.assert_close(value, torch.zeros((), dtype=torch.float64))

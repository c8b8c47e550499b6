"""CWD and PKD: maps compared position by position, once a spread or a mean is taken out of them."""

import pytest
import torch
from feature_fixtures import tensor

from distill_app import losses


def test_cwd_does_not_mind_how_active_a_channel_is_only_where():
    teacher = tensor(2, 3, 4, 4, seed=1)
    shifted = teacher + tensor(2, 3, 1, 1, seed=2)
    loss = losses.ChannelwiseKL()
    torch.testing.assert_close(loss(student=shifted, teacher=teacher), torch.zeros((), dtype=torch.float64))
    assert loss(student=teacher.flip(3), teacher=teacher) > 0.01


def test_cwd_over_channels_is_kd_at_every_position():
    student, teacher = tensor(2, 5, 3, 3, seed=1), tensor(2, 5, 3, 3, seed=2)
    pixels = losses.ChannelwiseKL(over="channels")(student=student, teacher=teacher)
    torch.testing.assert_close(pixels, losses.KLDivergence()(student=student, teacher=teacher))


def test_pkd_is_one_minus_the_correlation_of_channels():
    student, teacher = tensor(4, 3, 5, 5, seed=1), tensor(4, 3, 5, 5, seed=2)
    rows = [feature.transpose(0, 1).flatten(1) for feature in (student, teacher)]
    correlations = [torch.corrcoef(torch.stack([ours, theirs]))[0, 1] for ours, theirs in zip(*rows, strict=True)]
    # The mean of squares is over all values, the standard deviation over one fewer.
    wanted = (1 - torch.stack(correlations).mean()) * 99 / 100
    torch.testing.assert_close(losses.PearsonImitation(eps=0.0)(student=student, teacher=teacher), wanted)


@pytest.mark.parametrize("size", [(1, 1), (2, 2)])
def test_pkd_of_one_sample_is_finite_even_if_its_map_is_one_value(size):
    student = tensor(1, 3, *size, seed=1).requires_grad_()
    value = losses.PearsonImitation()(student=student, teacher=tensor(1, 3, *size, seed=2))
    value.backward()
    assert value.isfinite() and student.grad.isfinite().all()
    assert (value == 0) == (size == (1, 1))


@pytest.mark.parametrize(
    "make",
    [
        lambda: losses.ChannelwiseKL(over="pixels"),
        lambda: losses.PearsonImitation(resize="both"),
    ],
)
def test_an_option_that_does_not_exist_is_told_with_those_that_do(make):
    with pytest.raises(ValueError, match="allowed: "):
        make()


@pytest.mark.parametrize("loss", [losses.ChannelwiseKL(), losses.PearsonImitation()])
def test_other_channels_are_refused_with_the_adapter_for_them(loss):
    with pytest.raises(ValueError, match=r"\(2, 3, 4, 4\).*\(2, 5, 4, 4\).*MatchChannels"):
        loss(student=torch.zeros(2, 3, 4, 4), teacher=torch.zeros(2, 5, 4, 4))

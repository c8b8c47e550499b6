"""CWD, PKD, ReviewKD, OFD and MGD: maps compared position by position."""

import pytest
import torch
from feature_fixtures import tensor

from distill_app import adapters, losses


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


def test_reviewkd_weighs_pooled_forms_by_half_each_and_those_alone_that_are_smaller():
    student, teacher = tensor(2, 3, 4, 4, seed=1), tensor(2, 3, 4, 4, seed=2)
    loss, mse, pool = (
        losses.HierarchicalContext(),
        torch.nn.functional.mse_loss,
        torch.nn.functional.adaptive_avg_pool2d,
    )
    two, one = (mse(pool(student, size), pool(teacher, size)) for size in (2, 1))
    wanted = (mse(student, teacher) + two / 2 + one / 4) / 1.75
    torch.testing.assert_close(loss(student=[student], teacher=[teacher]), wanted)
    both = loss(student=[student, student], teacher=[teacher, teacher])
    torch.testing.assert_close(both, 2 * wanted)
    with pytest.raises(ValueError, match="got 1 and 2"):
        loss(student=[student], teacher=[teacher, teacher])


def test_ofd_leaves_a_student_alone_that_is_as_negative_as_the_margin_allows():
    teacher = torch.tensor([-3.0, -0.2, -3.0, 2.0]).view(1, 1, 2, 2)
    student = torch.tensor([-0.5, -0.1, -7.0, -1.0]).view(1, 1, 2, 2).requires_grad_()
    losses.MarginDistance()(student=student, teacher=teacher, margin=torch.tensor([-1.0])).backward()
    # Towards the margin, towards what is above it, nothing below it, and towards what is positive.
    torch.testing.assert_close(student.grad.flatten(), torch.tensor([1.0, 0.2, 0.0, -6.0]))
    with pytest.raises(ValueError, match=r"margins \(2,\).*NegativeMargin"):
        losses.MarginDistance()(student=student, teacher=teacher, margin=torch.zeros(2))


def test_mgd_sums_over_elements_and_averages_over_samples():
    student, teacher = torch.zeros(4, 3, 2, 2), torch.ones(4, 3, 2, 2)
    assert losses.SquaredDistance()(student=student, teacher=teacher) == 12


def test_margins_of_a_normal_distribution_are_those_of_the_reference(golden):
    numbers = golden("ofd")
    for layer in (1, 2):
        bias, weight = (numbers.arrays[f"in/teacher_bn{layer}_{part}"] for part in ("bias", "weight"))
        wanted = numbers.arrays[f"in/margin{layer}"].flatten().double()  # float32 in the reference
        torch.testing.assert_close(adapters.generation.negative_mean(bias, weight.abs()), wanted, rtol=1e-6, atol=0)
    feature = torch.randn(64, 3, 32, 32) * torch.tensor([1.0, 2.0, 0.5]).view(1, 3, 1, 1) + 0.3
    estimates = [adapters.NegativeMargin(feature.shape, estimate=kind)(feature) for kind in ("mean", "normal")]
    torch.testing.assert_close(*estimates, rtol=0.05, atol=0)
    zero = torch.zeros(2, 3, 4, 4)
    assert not adapters.NegativeMargin(zero.shape, estimate="normal")(zero).any()

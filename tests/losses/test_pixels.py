"""The cross-entropy of pixels: torch's own where that is defined, several outputs, other sizes, nothing to learn."""

import pytest
import torch
from torch import nn

from distill_app.losses import CrossImageRelations, PairwiseSimilarity, PixelCrossEntropy

GENERATOR = torch.Generator().manual_seed(0)


def logits(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=GENERATOR, dtype=torch.float64).requires_grad_()


def classes(*shape: int) -> torch.Tensor:
    found = torch.randint(0, 5, shape, generator=GENERATOR)
    return found.masked_fill(found == 4, 255)


def test_it_is_torchs_own_of_every_labelled_pixel():
    out, target = logits(2, 4, 6, 5), classes(2, 6, 5)
    wanted = nn.functional.cross_entropy(out, target, ignore_index=255)
    assert PixelCrossEntropy()(out, target).item() == pytest.approx(wanted.item(), rel=1e-12)
    assert PixelCrossEntropy()(out, target.byte()).item() == pytest.approx(wanted.item(), rel=1e-12)


def test_smaller_logits_are_interpolated_and_outputs_are_weighed_by_name():
    out, aux, target = logits(2, 4, 3, 3), logits(2, 4, 3, 3), classes(2, 8, 7)
    one = {
        name: nn.functional.cross_entropy(
            nn.functional.interpolate(value, size=(8, 7), mode="bilinear"), target, ignore_index=255
        )
        for name, value in (("out", out), ("aux", aux))
    }
    both = {"out": out, "aux": aux}
    for weights, expected in (
        (None, one["out"] + 0.4 * one["aux"]),
        ({"aux": 0.5}, one["out"] + 0.5 * one["aux"]),
        ({"out": 0.0, "aux": 2.0}, 2 * one["aux"]),
        ({}, one["out"]),
    ):
        assert PixelCrossEntropy(weights)(both, target).item() == pytest.approx(expected.item(), rel=1e-12)
    assert PixelCrossEntropy()({"out": out}, target).item() == pytest.approx(one["out"].item(), rel=1e-12)
    with pytest.raises(ValueError, match="weights: unknown output 'auxx'; did you mean 'aux'"):
        PixelCrossEntropy({"auxx": 1.0})(both, target)


def test_a_batch_without_a_labelled_pixel_teaches_nothing():
    out = logits(2, 4, 3, 3)
    loss = PixelCrossEntropy()(out, torch.full((2, 3, 3), 255))
    loss.backward()
    assert loss.item() == 0 and not out.grad.any()


@pytest.mark.parametrize(
    ("value", "target", "match"),
    [
        (torch.zeros(2, 4), torch.zeros(2, dtype=torch.int64), r"out of a segmenter is a map of logits .*\(2, 4\)"),
        ({"aux": torch.zeros(2, 4, 3, 3)}, torch.zeros(2, 3, 3).long(), "a mapping with 'out'.*dict of aux"),
        (torch.zeros(2, 4, 3, 3), torch.zeros(2, dtype=torch.int64), r"a map of classes for each image.*tasks\.Segm"),
        (torch.zeros(2, 4, 3, 3), torch.zeros(2, 3, 3), "a map of classes for each image"),
        (torch.zeros(2, 4, 3, 3), torch.zeros(3, 3, 3).long(), "a map of classes for each image"),
    ],
)
def test_what_does_not_fit_is_told(value, target, match):
    with pytest.raises(ValueError, match=match):
        PixelCrossEntropy()(value, target)


def test_maps_of_one_position_have_no_regions_to_compare():
    student, teacher = logits(2, 4, 1, 1), logits(2, 6, 1, 1)
    loss = PairwiseSimilarity()(student=student, teacher=teacher)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-12) and student.grad.isfinite().all()
    with pytest.raises(ValueError, match="scale=0 must be above 0"):
        PairwiseSimilarity(0)


def test_large_maps_are_pooled_before_all_their_pixels_are_compared():
    student, teacher = logits(2, 4, 16, 16), logits(2, 6, 16, 16)
    pooled = [nn.functional.avg_pool2d(each, 4) for each in (student, teacher)]
    whole = CrossImageRelations(largest=16)(student=student, teacher=teacher)
    assert whole.item() == pytest.approx(CrossImageRelations()(student=pooled[0], teacher=pooled[1]).item(), rel=1e-12)

"""CKA: an estimator written in another way, and what it promises."""

import pytest
import torch

from distill_app.analysis.similarity import Alignment, gram, hsic


def centred(kernel: torch.Tensor) -> torch.Tensor:
    """U-centring (Szekely and Rizzo 2014): rows, columns and the whole sum to zero, and the diagonal is zero."""
    n = len(kernel)
    off = kernel.clone().fill_diagonal_(0)
    rows = off.sum(1, keepdim=True) / (n - 2)
    return (off - rows - rows.T + off.sum() / ((n - 1) * (n - 2))).fill_diagonal_(0)


def activations(count: int, *shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))


def cka(first: torch.Tensor, second: torch.Tensor, *, batch: int = 64) -> float:
    found = Alignment(["a"], ["b"])
    for mine, theirs in zip(first.split(batch), second.split(batch), strict=True):
        found.add({"a": mine}, {"b": theirs})
    return found.values()[0][0]


def test_the_estimate_is_the_product_of_centred_kernels():
    first, second = gram(activations(12, 5)), gram(activations(12, 3, seed=1))
    n = len(first)
    expected = (centred(first) * centred(second)).sum() / (n * (n - 3))
    assert float(hsic(first, second)) == pytest.approx(float(expected), rel=1e-9)


def test_a_rotation_and_a_scaling_change_nothing():
    one = activations(256, 10)
    turned = 7.0 * one @ torch.linalg.qr(activations(10, 10, seed=3))[0] + 5.0
    assert cka(one, turned) == pytest.approx(1.0, abs=1e-4)
    assert cka(one.reshape(256, 5, 2, 1), turned) == pytest.approx(1.0, abs=1e-4), "maps of any shape"


def test_unrelated_activations_are_near_zero_whatever_the_batch():
    one, other = activations(2048, 40), activations(2048, 60, seed=1)
    assert abs(cka(one, other, batch=16)) < 0.02 and abs(cka(one, other, batch=256)) < 0.02


def test_a_batch_of_any_size_estimates_the_same():
    one = activations(2048, 12)
    other = torch.cat([one[:, :6], activations(2048, 6, seed=2)], dim=1)
    assert cka(one, other, batch=32) == pytest.approx(cka(one, other, batch=512), abs=0.03)


def test_what_is_the_same_for_all_samples_has_no_alignment_and_tiny_batches_are_left_out():
    assert cka(activations(64, 3), torch.ones(64, 2)) is None
    found = Alignment(["a"], ["b"])
    found.add({"a": activations(3, 2)}, {"b": activations(3, 2)})
    assert found.count == 0

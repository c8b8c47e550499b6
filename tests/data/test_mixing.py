"""Mixup and CutMix: the same view of the same image is the same mixture, and the label says what is in it."""

import pytest
import torch
from torch import nn
from torch.utils.data import default_collate

from distill_app.data import BundledImages, CutMix, Mixup, RotatedViews, Samples, SampleWrapper

BOTH = pytest.mark.parametrize("kind", [Mixup, CutMix])


def digits(**changes):
    return Samples(BundledImages("digits", "train", image_size=8), **({"seed": 0, "stage": "a"} | changes))


class Level(SampleWrapper):
    """Images of one level each, so that shares can be read off the pixels."""

    def load(self, key):
        sample = self.samples.load(key)
        level = torch.full((3, 8, 8), 200 if key[0] == 0 else 100, dtype=torch.uint8)
        return sample | {"input": level, "target": int(key[0] == 0)}


class Drawing(SampleWrapper):
    """Adds a random number, as a wrapper outside of a mixture would."""

    def extend(self, sample):
        return sample | {"drawn": torch.rand(())}


@BOTH
def test_a_mixture_is_a_function_of_seed_view_and_index(kind):
    samples, again = kind(digits(), num_classes=10), kind(digits(), num_classes=10)
    batch = samples.__getitems__([(position, 1) for position in (5, 9, 40)])
    for key, sample in (((40, 1), batch[2]), ((5, 1), batch[0])):
        alone = again[key]
        assert alone["input"].equal(sample["input"]) and alone["target"].equal(sample["target"])
    assert not all(samples[(p, 2)]["input"].equal(s["input"]) for p, s in zip((5, 9, 40), batch, strict=True))
    other = kind(digits(seed=1), num_classes=10)
    assert not all(other[(p, 1)]["target"].equal(s["target"]) for p, s in zip((5, 9, 40), batch, strict=True))


@BOTH
def test_labels_are_shares_of_the_two_classes_and_train_with_cross_entropy(kind):
    samples = kind(digits(), num_classes=10)
    batch = default_collate(samples.__getitems__([(position, 0) for position in range(64)]))
    target = batch["target"]
    assert target.dtype == torch.float32 and target.shape == (64, 10)
    torch.testing.assert_close(target.sum(1), torch.ones(64))
    assert ((target > 0).sum(1) <= 2).all() and ((target > 0).sum(1) == 2).any()
    assert batch["input"].dtype == torch.uint8 and batch["index"].tolist() == list(range(64))
    logits = torch.zeros(64, 10, requires_grad=True)
    nn.CrossEntropyLoss()(logits, target).backward()
    torch.testing.assert_close(logits.grad, (0.1 - target) / 64)


def test_mixup_blends_pixels_as_it_blends_labels():
    samples = Mixup(Level(digits(indices=[0, 1])), num_classes=2)
    shares = []
    for view in range(40):
        sample = samples[(0, view)]
        share = float(sample["target"][1])
        assert sample["input"].float().mean().item() == pytest.approx(100 + 100 * share, abs=0.5)
        shares.append(share)
    assert len(set(shares)) > 10 and min(shares) < 0.4


def test_cutmix_labels_are_the_shares_of_pixels_in_a_box():
    samples = CutMix(Level(digits(indices=[0, 1])), num_classes=2)
    cut = 0
    for view in range(40):
        sample = samples[(0, view)]
        pasted = sample["input"][0] == 100
        assert float(sample["target"][0]) == pytest.approx(pasted.float().mean().item(), abs=1e-6)
        if pasted.any():
            rows, columns = pasted.any(1).sum(), pasted.any(0).sum()
            assert int(rows * columns) == int(pasted.sum()), "a box"
            cut += 1
    assert cut > 5


def test_the_share_follows_alpha():
    def spread(alpha):
        samples = Mixup(Level(digits(indices=[0, 1])), num_classes=2, alpha=alpha)
        shares = torch.stack([samples[(0, view)]["target"][1] for view in range(200)])
        mixed = shares[shares < 1]
        return (mixed - 0.5).abs().mean().item()

    assert spread(0.1) > 0.4 > spread(1.0) > 0.15 > spread(50.0)


@BOTH
def test_with_probability_zero_only_the_label_becomes_a_vector(kind):
    plain, mixed = digits()[(3, 0)], kind(digits(), num_classes=10, probability=0.0)[(3, 0)]
    assert mixed["input"].equal(plain["input"])
    assert mixed["target"].tolist() == [float(label == plain["target"]) for label in range(10)]


@BOTH
def test_wrappers_around_a_mixture_draw_for_themselves(kind):
    samples = Drawing(kind(digits(indices=[0, 1, 2]), num_classes=10))
    drawn = [float(samples[(position, view)]["drawn"]) for position in range(3) for view in range(6)]
    assert len(set(drawn)) == len(drawn), "not as their partner, which several share"
    assert drawn[4] == float(samples[(0, 4)]["drawn"])


def test_mixtures_can_be_mixed_and_rotated():
    samples = RotatedViews(CutMix(Mixup(digits(), num_classes=10), num_classes=10))
    sample = samples[(7, 0)]
    assert sample["input"].shape == (4, 3, 8, 8)
    assert float(sample["target"].sum()) == pytest.approx(1, abs=1e-5)


@BOTH
def test_floats_stay_floats(kind):
    samples = kind(digits(transforms=[lambda image: image.float() / 255]), num_classes=10)
    assert samples[(0, 0)]["input"].dtype == torch.float32 and float(samples[(0, 0)]["input"].max()) <= 1


@BOTH
@pytest.mark.parametrize(("wrong", "words"), [({"alpha": 0.0}, "alpha"), ({"probability": 1.5}, "probability")])
def test_impossible_arguments_are_refused(kind, wrong, words):
    with pytest.raises(ValueError, match=words):
        kind(digits(), num_classes=10, **wrong)


@BOTH
def test_images_of_two_sizes_are_refused(kind):
    class Growing(SampleWrapper):
        def load(self, key):
            sample = self.samples.load(key)
            return sample | {"input": torch.zeros(3, 8 + key[0], 8)}

    samples = kind(Growing(digits(indices=[0, 1, 2, 3])), num_classes=10)
    with pytest.raises(ValueError, match=f"{kind.__name__} needs images of one size"):
        samples.__getitems__([(position, view) for position in range(4) for view in range(4)])


def test_the_callers_random_numbers_are_left_alone():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    Mixup(digits(), num_classes=10).__getitems__([(0, 0), (1, 0)])
    assert torch.rand(4).equal(expected)

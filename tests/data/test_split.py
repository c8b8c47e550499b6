"""The validation split and the label budget."""

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, Subset, TensorDataset
from torchvision.datasets import FakeData

from distill_app.data import BundledImages, budget, hold_out, labels_of
from distill_app.data.split import spread

LABELS = np.repeat([0, 1, 2], [100, 50, 20])


def test_held_out_images_are_disjoint_stratified_and_repeatable():
    train, validation = hold_out(LABELS, fraction=0.1)
    assert sorted([*train, *validation]) == list(range(170))
    assert np.bincount(LABELS[validation]).tolist() == [10, 5, 2]
    again = hold_out(LABELS, fraction=0.1)
    assert np.array_equal(again[0], train) and np.array_equal(again[1], validation)
    assert not np.array_equal(hold_out(LABELS, fraction=0.1, seed=1)[1], validation)


def test_no_fraction_holds_nothing_out():
    train, validation = hold_out(LABELS, fraction=0.0)
    assert train.tolist() == list(range(170)) and len(validation) == 0


@pytest.mark.parametrize("fraction", [-0.1, 1.0, 0.001])
def test_impossible_fraction_is_refused(fraction):
    with pytest.raises(ValueError, match=r"dataset\.validation_fraction"):
        hold_out(LABELS, fraction=fraction)


def test_budget_takes_so_many_of_each_class_from_the_training_part_only():
    train, _ = hold_out(LABELS, fraction=0.1)
    seen = budget(LABELS, train, per_class=7)
    assert np.bincount(LABELS[seen]).tolist() == [7, 7, 7]
    assert set(seen) <= set(train) and len(set(seen)) == 21
    assert set(seen) <= set(budget(LABELS, train, per_class=12))
    assert budget(LABELS, train, per_class=None).tolist() == train.tolist()


def test_budget_names_the_class_that_has_too_few():
    train, _ = hold_out(LABELS, fraction=0.1)
    with pytest.raises(ValueError, match=r"dataset\.student_labels_per_class: 19 .* class 2 has 18"):
        budget(LABELS, train, per_class=19)


def test_labels_are_found_wherever_a_data_set_keeps_them():
    digits = BundledImages("digits", "test", image_size=8)
    assert labels_of(digits).dtype == np.int64 and labels_of(digits).tolist() == digits.targets
    subset = Subset(digits, [5, 3])
    assert labels_of(subset).tolist() == [digits.targets[5], digits.targets[3]]
    assert len(labels_of(ConcatDataset([digits, subset]))) == 599
    tensors = TensorDataset(torch.zeros(4, 3, 2, 2), torch.tensor([3, 1, 0, 1]))
    assert labels_of(tensors).tolist() == [3, 1, 0, 1]


def test_labels_are_read_item_by_item_without_touching_the_generator():
    fake = FakeData(6, (3, 4, 4), 5)
    state = torch.get_rng_state()
    assert labels_of(fake).tolist() == [fake[i][1] for i in range(6)]
    assert torch.equal(state, torch.get_rng_state())


def test_large_data_set_without_labels_is_refused():
    with pytest.raises(ValueError, match="attribute `targets`"):
        labels_of(FakeData(20_001, (3, 4, 4), 5))


@pytest.mark.parametrize(
    ("most", "expected"), [(3, [10, 13, 16]), (1, [10]), (10, list(range(10, 20))), (99, list(range(10, 20)))]
)
def test_a_part_of_some_images_is_spread_over_all(most, expected):
    assert spread(np.arange(10, 20), most).tolist() == expected

"""Labels that are no classes, told in words before training."""

import numpy as np
import pytest
import torch
from data_fixtures import Labelled
from omegaconf import OmegaConf
from torch.utils.data import ConcatDataset, Subset, TensorDataset

from distill_app.data.labels import MAX_READ_FOR_LABELS
from distill_app.tasks import Classification

NORMALIZE = OmegaConf.create({"mean": [0.0], "std": [1.0]})


def problems(dataset, num_classes=5):
    return Classification(normalize=NORMALIZE, num_classes=num_classes).label_problems(dataset)


def problem(dataset, num_classes=5):
    [text] = problems(dataset, num_classes)
    return text


GOOD = [0, 1, 2, 3, 4] * 6


@pytest.mark.parametrize(
    "labels",
    [
        GOOD,
        [np.int64(label) for label in GOOD],
        [np.uint8(label) for label in GOOD],
        list(torch.tensor(GOOD)),
        list(torch.tensor(GOOD, dtype=torch.int32)),
        [0],
    ],
)
@pytest.mark.parametrize("kept", [False, True])
def test_whole_numbers_of_every_kind_are_classes(labels, kept):
    assert problems(Labelled(labels, labels if kept else None)) == []


@pytest.mark.parametrize("kept", [np.array(GOOD), np.array(GOOD, float), torch.tensor(GOOD), tuple(GOOD)])
def test_the_list_of_a_data_set_may_be_of_any_kind_of_numbers(kept):
    assert problems(Labelled(GOOD, kept)) == []


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize(
    ("labels", "range_", "wrong", "remedy"),
    [
        ([1, 2, 3, 4, 5], "1 to 5", "1 of 5 lie outside, first that of item 4 (5)", "subtract 1, or set num_classes=6"),
        ([0, 7, 1], "0 to 7", "1 of 3 lie outside, first that of item 1 (7)", "set num_classes=8"),
        ([0, -1, 1, -1], "-1 to 1", "2 of 4 lie outside, first that of item 1 (-1)", "negative labels"),
        ([0, -100, 1], "-100 to 1", "1 of 3 lie outside, first that of item 1 (-100)", "leave these images out"),
        ([0, 255, 4], "0 to 255", "1 of 3 lie outside, first that of item 1 (255)", "255 often means"),
    ],
)
def test_labels_outside_of_the_range_are_counted_with_the_likely_remedy(labels, range_, wrong, remedy, kept):
    text = problem(Labelled(labels, labels if kept else None))
    assert text.startswith(f"labels go from {range_}, and num_classes=5 means 0 to 4: {wrong}; ")
    assert remedy in text


def test_the_whole_list_is_looked_at_and_few_images_are_read():
    labels = [0] * 5000
    labels[4321] = 9
    dataset = Labelled(labels, labels)
    assert "first that of item 4321 (9)" in problem(dataset)
    assert dataset.reads <= 16


def test_without_a_list_all_items_are_read_up_to_a_limit():
    labels = [0] * 300
    labels[123] = 9
    assert "first that of item 123 (9)" in problem(Labelled(labels))
    many = Labelled([9] * (MAX_READ_FOR_LABELS + 1))
    assert "labels go from 9 to 9" in problem(many) and many.reads <= 16


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize(
    ("label", "kind", "remedy"),
    [
        (2.0, "floats", "return int(label)"),
        (np.float32(2), "floats", "return int(label)"),
        (torch.tensor(2.0), "floats", "return int(label)"),
        (torch.tensor([2]), "arrays of one number, of shape (1,)", "return int(label)"),
        ([2], "arrays of one number, of shape (1,)", "return int(label)"),
        (True, "true or false", "return int(label)"),
        ("cat", "text", "position in the sorted list of class names"),
        (None, "of type NoneType", "return an int"),
        ({"class": 2}, "of type dict", "return an int"),
        ([0, 0, 1, 0, 0], "vectors of 5 numbers", "return their argmax"),
        (torch.tensor([0.0, 1.0, 0.0, 1.0, 0.0]), "vectors of 5 numbers", "another task is needed (dataset.task)"),
    ],
)
def test_labels_of_another_kind_are_told_with_what_to_return(label, kind, remedy, kept):
    labels = [label] * 4
    text = problem(Labelled(labels, GOOD[:4] if kept else None))
    assert text.startswith(f"labels are {kind}, in 4 of the 4 items read (") and remedy in text
    assert "a class is a whole number from 0 to 4" in text


def test_one_label_of_another_kind_among_good_ones_is_found():
    text = problem(Labelled([0, 1, 2, None, 3]))
    assert "labels are of type NoneType, in 1 of the 5 items read (None in item 3)" in text


def test_a_list_that_does_not_say_what_the_items_say_is_an_error():
    assert "has 1 for item 1, and the item itself has 3" in problem(Labelled([0, 3, 2], [0, 1, 2]))
    assert "list of labels holds other things than single numbers (for item 0: 'a')" in problem(
        Labelled([0, 1, 2], ["a", "b", "c"])
    )
    assert "1 of 3 labels are no whole numbers, first that of item 1 (0.5)" in problem(Labelled([0, 1, 2], [0, 0.5, 2]))


def test_a_target_transform_is_applied_to_the_list_too():
    dataset = Labelled([0, 1, 2], [1, 2, 3])
    dataset.target_transform = lambda label: label - 1
    assert problems(dataset, 3) == []


def test_names_of_classes_are_no_list_of_labels():
    dataset = Labelled(GOOD)
    dataset.labels = ["ant", "bee"]
    assert problems(dataset) == []


def test_parts_of_data_sets_are_looked_into():
    good, bad = Labelled(GOOD, GOOD), Labelled([0, 8], [0, 8])
    assert problems(Subset(bad, [0])) == []
    assert "first that of item 31 (8)" in problem(ConcatDataset([good, bad]))
    assert "first that of item 0 (6)" in problem(TensorDataset(torch.zeros(2, 3, 2, 2), torch.tensor([6, 0])))


def test_a_task_with_vectors_as_targets_judges_them_itself():
    class Attributes(Classification):
        def example(self, *, image_size, count=2):
            return {**super().example(image_size=image_size, count=count), "target": torch.ones(count, 5)}

    vectors = Labelled([torch.tensor([0.0, 1.0, 1.0, 0.0, 0.0])] * 4)
    assert Attributes(normalize=NORMALIZE, num_classes=5).label_problems(vectors) == []

"""Several labels for each image: mean average precision, and runs."""

from types import SimpleNamespace

import pytest
import torch

from distill_app.tasks import MultiLabel
from distill_app.tasks.base import merged
from distill_app.tasks.multilabel import average_precision

NORMAL = SimpleNamespace(mean=[0.0, 0.0, 0.0], std=[1.0, 1.0, 1.0])


def task(classes: int = 2) -> MultiLabel:
    return MultiLabel(normalize=NORMAL, num_classes=classes)


@pytest.mark.parametrize(
    ("scores", "positive", "expected"),
    [
        # By hand: positives at the ranks 1, 3 and 4 of four: (1/1 + 2/3 + 3/4) / 3.
        ([0.9, 0.8, 0.7, 0.6], [1, 0, 1, 1], (1 + 2 / 3 + 3 / 4) / 3),
        # The example of scikit-learn's average_precision_score.
        ([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1], 0.8333333333333333),
        # Equal scores are one step: 2 positives among 4, whatever their order.
        ([0.5, 0.5, 0.5, 0.5], [1, 0, 0, 1], 0.5),
        ([0.5, 0.5, 0.5, 0.5], [0, 1, 1, 0], 0.5),
        # One positive alone, then three ties with one positive: 1/2 * 1 + 1/2 * 2/4.
        ([0.9, 0.5, 0.5, 0.5], [1, 0, 1, 0], 0.75),
        ([0.9, 0.1], [1, 1], 1.0),
    ],
)
def test_average_precision_by_hand(scores, positive, expected):
    found = average_precision(torch.tensor(scores), torch.tensor(positive, dtype=torch.bool))
    assert found == pytest.approx(expected, abs=1e-12)


def test_without_a_positive_there_is_no_average_precision():
    assert average_precision(torch.tensor([0.1, 0.2]), torch.tensor([False, False])) is None


def judged(logits: torch.Tensor, target: torch.Tensor, size: int) -> dict:
    sums = []
    for part in range(0, len(logits), size):
        one = task(logits.shape[1]).start()
        batch = {"target": target[part : part + size]}
        task(logits.shape[1]).add(one, logits[part : part + size], batch)
        sums.append(one)
    return task(logits.shape[1]).figures(merged(sums))


def test_the_mean_is_exact_whatever_the_batches():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(40, 3, generator=generator)
    target = (torch.rand(40, 3, generator=generator) < 0.3).float()
    whole = judged(logits, target, 40)
    assert whole["mAP"] == judged(logits, target, 7)["mAP"]
    each = [average_precision(logits[:, i], target[:, i] > 0.5) for i in range(3)]
    assert whole["average_precision"] == each and whole["mAP"] == pytest.approx(sum(each) / 3)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, target)
    assert whole["loss"] == pytest.approx(float(expected), rel=1e-6)


def test_classes_without_positives_have_no_part_in_the_mean():
    target = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    found = judged(torch.tensor([[2.0, 1.0], [1.0, 2.0]]), target, 2)
    assert found["average_precision"] == [1.0, None] and found["mAP"] == 1.0
    assert judged(torch.zeros(2, 2), torch.zeros(2, 2), 2)["mAP"] is None


def test_agreement_is_the_share_of_equal_answers():
    sums, batch = task().start(), {"target": torch.zeros(2, 2)}
    mine, theirs = torch.tensor([[1.0, -1.0], [2.0, 2.0]]), torch.tensor([[3.0, -2.0], [-1.0, 4.0]])
    task().add(sums, mine, batch)
    task().compare(sums, mine, theirs, batch)
    assert task().figures(sums)["agreement"] == 0.75


@pytest.mark.parametrize(
    ("targets", "told"),
    [
        ([[0.0, 1.0], [1.0, 1.0]], None),
        ([0, 1], "targets are of shape one number"),
        ([[0.0, 1.0, 1.0]], "targets are of shape 3"),
        ([[0.0, 2.0], [1.0, 1.0]], "1 of 2 targets have numbers outside of [0, 1]"),
    ],
)
def test_targets_that_are_no_vectors_of_labels_are_told(targets, told):
    dataset = [(torch.zeros(3, 4, 4), torch.tensor(target)) for target in targets]
    problems = task().label_problems(dataset)
    assert (told is None and not problems) or told in problems[0]

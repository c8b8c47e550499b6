"""Confusions, calibration and fidelity: torchmetrics' numbers, and cases that are plain."""

import pytest
import torch
from torchmetrics.functional import classification, kl_divergence

from distill_app.analysis.scores import Answered, by_class, calibration, confusion, divergences, fidelity

CLASSES = 7


@pytest.fixture(scope="module")
def answers():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(CLASSES, (500,), generator=generator)
    logits = 3 * torch.randn(500, CLASSES, generator=generator)
    logits[torch.arange(500), labels] += 2.0
    return logits, labels, logits + torch.randn(500, CLASSES, generator=generator)


def answered(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    found = Answered()
    for part in logits.split(130):
        found.add(part)
    return found.joined()


def test_confusions_and_classes_are_those_of_torchmetrics(answers):
    logits, labels, _ = answers
    predicted, _ = answered(logits)
    matrix = confusion(labels, predicted, classes=CLASSES)
    assert torch.equal(matrix, classification.multiclass_confusion_matrix(logits, labels, CLASSES))
    lines = by_class(matrix)
    recall = classification.multiclass_recall(logits, labels, CLASSES, average=None)
    precision = classification.multiclass_precision(logits, labels, CLASSES, average=None)
    assert [line["accuracy"] for line in lines] == pytest.approx(recall.tolist())
    assert [line["precision"] for line in lines] == pytest.approx(precision.tolist())
    assert sum(line["count"] for line in lines) == 500


def test_a_class_without_samples_has_no_accuracy_and_one_never_answered_no_precision():
    lines = by_class(confusion(torch.tensor([0, 0]), torch.tensor([0, 1]), classes=3))
    assert lines == [
        {"count": 2, "accuracy": 0.5, "precision": 1.0},
        {"count": 0, "accuracy": None, "precision": 0.0},
        {"count": 0, "accuracy": None, "precision": None},
    ]


def test_calibration_errors_are_those_of_torchmetrics(answers):
    logits, labels, _ = answers
    predicted, sure = answered(logits)
    found = calibration(sure, predicted == labels)
    for key, norm in (("ece", "l1"), ("mce", "max")):
        theirs = classification.multiclass_calibration_error(logits, labels, CLASSES, n_bins=15, norm=norm)
        assert found[key] == pytest.approx(float(theirs), abs=1e-6)
    assert sum(each["count"] for each in found["bins"]) == 500


def test_who_is_as_often_right_as_sure_is_calibrated_and_who_is_always_sure_is_not():
    sure = torch.full((4,), 0.75, dtype=torch.float64)
    found = calibration(sure, torch.tensor([True, True, True, False]))
    assert found["ece"] == pytest.approx(0) and found["mce"] == pytest.approx(0)
    found = calibration(torch.ones(4, dtype=torch.float64), torch.tensor([True, False, False, False]))
    assert found["ece"] == pytest.approx(0.75) and found["bins"][-1] == {
        "count": 4,
        "confidence": 1.0,
        "accuracy": 0.25,
    }


def test_divergence_is_that_of_torchmetrics(answers):
    student, _, teacher = answers
    mine = divergences(student, teacher)
    theirs = kl_divergence(teacher.double().softmax(1), student.double().softmax(1))
    assert mine.shape == (500,) and float(mine.mean()) == pytest.approx(float(theirs))
    assert float(divergences(student, student).abs().max()) == 0.0


def test_fidelity_splits_all_samples_by_who_is_right():
    labels, student, teacher = (torch.tensor(row) for row in ([0, 0, 0, 0, 0], [0, 1, 0, 1, 2], [0, 0, 1, 1, 1]))
    found = fidelity(labels=labels, student=student, teacher=teacher, divergence=0.5)
    assert found["agreement"] == pytest.approx(0.4) and found["kl"] == 0.5
    shares = [found[key] for key in ("both_right", "only_teacher", "only_student", "both_wrong")]
    assert shares == pytest.approx([0.2, 0.2, 0.2, 0.4]) and found["same_mistake"] == pytest.approx(0.2)

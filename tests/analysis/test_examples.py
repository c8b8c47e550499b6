"""Which images are shown: those on which student and teacher disagree, the most telling first."""

import base64
import io

import torch
from PIL import Image

from distill_app.analysis.examples import Disagreements, label_of


def probabilities(*rows: tuple[float, float]) -> torch.Tensor:
    return torch.tensor([[first, second, 1 - first - second] for first, second in rows])


def test_the_teacher_right_and_the_student_sure_comes_first_and_agreement_not_at_all():
    found = Disagreements(most=3)
    images = torch.zeros(5, 3, 8, 8, dtype=torch.uint8)
    labels = torch.tensor([0, 0, 0, 1, 2])
    student = probabilities((0.9, 0.1), (0.1, 0.6), (0.1, 0.8), (0.1, 0.7), (0.1, 0.9))
    teacher = probabilities((0.8, 0.1), (0.7, 0.1), (0.9, 0.1), (0.6, 0.1), (0.9, 0.1))
    found.add(images, labels=labels, student=student, teacher=teacher)
    entries = found.found()
    assert [each["index"] for each in entries] == [2, 1, 3], "the student right comes behind the teacher right"
    assert entries[0]["true"] == 0 and entries[0]["student"] == 1 and entries[0]["teacher"] == 0


def test_indices_go_on_over_batches_and_images_are_small_pngs():
    found = Disagreements()
    for _ in range(2):
        images = torch.full((1, 3, 300, 200), 7, dtype=torch.uint8)
        sure, other = probabilities((0.9, 0.1)), probabilities((0.1, 0.9))
        found.add(images, labels=torch.tensor([1]), student=sure, teacher=other)
    entries = found.found()
    assert sorted(each["index"] for each in entries) == [0, 1]
    image = Image.open(io.BytesIO(base64.b64decode(entries[0]["image"].removeprefix("data:image/png;base64,"))))
    assert image.size == (64, 96) and image.getpixel((0, 0)) == (7, 7, 7)


def test_inputs_that_are_no_images_have_no_picture():
    found = Disagreements()
    sure, other = probabilities((0.9, 0.1)), probabilities((0.1, 0.9))
    found.add(torch.zeros(1, 4), labels=torch.tensor([1]), student=sure, teacher=other)
    assert found.found()[0]["image"] is None


def test_a_label_may_be_the_shares_of_all_classes():
    assert label_of({"target": torch.tensor([[0.2, 0.8], [1.0, 0.0]])}).tolist() == [1, 0]
    assert label_of({"target": torch.tensor([1, 0])}).tolist() == [1, 0]

"""Pictures of answers: what is drawn where, and what is not."""

from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from torch.nn import functional
from torchvision import tv_tensors

from distill_app.runs.samples import answers, place_of_answers, write_answers
from distill_app.tasks import Classification, Detection, Segmentation
from distill_app.tasks.drawing import drawn

GREY = torch.full((3, 64, 96), 0.5)
SHADES = (10, 200)
BOXES = torch.tensor([[10.0, 20.0, 50.0, 60.0], [60.0, 5.0, 60.0, 30.0]])


def batch(task: Detection, **more) -> dict:
    """A grey image with two objects, the second one without a width, as a prepared batch."""
    boxes = tv_tensors.BoundingBoxes(BOXES, format="XYXY", canvas_size=(64, 96))
    target = {"boxes": boxes, "labels": torch.tensor([1, 3]), "size": torch.tensor([64, 96]), **more}
    return task.prepare({"input": [GREY], "target": [target], "index": torch.tensor([0])}, device=torch.device("cpu"))


def answer(*scores: float) -> list[dict]:
    boxes, labels = BOXES[:1].repeat(len(scores), 1), torch.ones(len(scores)).long()
    return [{"boxes": boxes, "labels": labels, "scores": torch.tensor(scores)}]


def changed(picture: torch.Tensor) -> torch.Tensor:
    """Where a picture of the grey image differs from it, (H, W)."""
    return ((picture.int() - 128).abs() > 2).any(dim=0)


def test_the_truth_is_drawn_at_its_boxes_in_the_colour_of_the_class():
    task = Detection(num_classes=3)
    (picture,) = task.draw(batch(task), None)
    assert picture.shape == (3, 213, 320) and picture.dtype == torch.uint8, "enlarged to 320 px"
    factor = 320 / 96
    where = changed(picture).nonzero()
    assert where.amin(dim=0).tolist() == pytest.approx([5 * factor, 10 * factor], abs=3)
    bottom, left = picture[:, int(60 * factor), int(30 * factor)], picture[:, int(40 * factor), int(10 * factor)]
    assert bottom.equal(left) and not bottom.equal(torch.full((3,), 128)), "the sides of a box have one colour"
    inside = picture[:, int(50 * factor), int(30 * factor)]
    assert (inside.int() - 128).abs().max() <= 1, "without masks the inside stays"


def test_detections_from_a_score_on_are_drawn():
    task = Detection(num_classes=3, drawn_from=0.4)
    whole = batch(task)
    none, one = (task.draw(whole, answer(*scores))[0] for scores in ([0.39, 0.1], [0.4, 0.1]))
    assert not changed(none).any() and changed(one).any()
    assert task.draw(whole, answer(0.4))[0].equal(one)


def test_names_of_classes_are_written_where_they_are_known():
    task = Detection(num_classes=3)
    numbers = task.draw(batch(task), None)[0]
    task.classes = ["shirt", "shoe", "bag"]
    assert [task.name_of(label) for label in (1, 3, 4)] == ["shirt", "bag", "4"]
    assert not task.draw(batch(task), None)[0].equal(numbers)


def test_masks_of_truth_and_answers_fill_their_objects():
    task = Detection(num_classes=3, kinds=["segm"])
    masks = torch.zeros(2, 64, 96, dtype=torch.uint8)
    masks[0, 40:50, 20:40] = 1
    (truth,) = task.draw(batch(task, masks=tv_tensors.Mask(masks)), None)
    said = {**answer(0.9)[0], "masks": masks[:1, None].float()}
    (picture,) = task.draw(batch(task), [said])
    for each in (truth, picture):
        assert changed(each)[int(45 * 320 / 96), int(30 * 320 / 96)]
        assert not changed(each)[int(55 * 320 / 96), int(45 * 320 / 96)]


def test_keypoints_that_are_there_are_drawn():
    places = torch.tensor([[[30.0, 50.0, 1.0], [48.0, 50.0, 0.0]]])
    picture = drawn(GREY, boxes=BOXES[:1], labels=[1], texts=["x"], keypoints=places)
    assert changed(picture)[int(50 * 320 / 96), int(30 * 320 / 96)]
    assert not changed(picture)[int(50 * 320 / 96), int(48 * 320 / 96)]


@pytest.mark.parametrize(("side", "expected"), [(20, 320), (400, 400), (2000, 640)])
def test_pictures_have_a_size_that_texts_can_be_read_in_and_files_can_bear(side, expected):
    empty = drawn(torch.zeros(1, side, side // 2), boxes=torch.zeros(0, 4), labels=[], texts=[])
    assert empty.shape == (3, expected, expected // 2)


def test_maps_of_truth_and_answers_have_a_colour_for_each_class_and_none_for_the_background():
    task = Segmentation(normalize=SimpleNamespace(mean=[0.2] * 3, std=[0.3] * 3), num_classes=3)
    classes = torch.zeros(64, 96, dtype=torch.uint8)
    classes[10:20, :40], classes[40:50, :40], classes[:, 90:] = 1, 2, 255
    images = torch.full((1, 3, 64, 96), 128, dtype=torch.uint8)
    small = {"input": images, "target": classes[None], "index": torch.tensor([0]), "size": torch.tensor([[64, 80]])}
    whole = task.prepare(small | {"size": torch.tensor([[64, 96]])}, device=torch.device("cpu"))
    (truth,) = task.draw(whole, None)
    (said,) = task.draw(whole, functional.one_hot(whole["target"].clamp(max=2), 3).movedim(-1, 1).float() * 9)
    factor = 320 / 96
    first, second, nothing, unknown = (
        truth[:, int(y * factor), int(x * factor)].int() for y, x in ((15, 20), (45, 20), (30, 20), (30, 93))
    )
    assert truth.shape == (3, 213, 320) and (nothing - 128).abs().max() <= 1 and unknown.min() > 180
    assert not first.equal(second) and said[:, int(15 * factor), int(20 * factor)].int().equal(first)
    assert task.draw(task.prepare(small, device=torch.device("cpu")), None)[0].shape == (3, 256, 320), "without padding"


def test_a_task_that_draws_nothing_is_not_asked():
    normalize = SimpleNamespace(mean=[0.5] * 3, std=[0.5] * 3)
    task = Classification(normalize=normalize, num_classes=3)
    assert not task.draws and task.draw({}, None) == [] and Detection(num_classes=3).draws


def test_answers_stand_side_by_side_in_one_file(tmp_path):
    truth, said = ([torch.full((3, 40 + 10 * n, 60), shade, dtype=torch.uint8) for n in range(2)] for shade in SHADES)
    path = place_of_answers(tmp_path, "prelude/teacher")
    write_answers(path, {"truth": truth, "student": said})
    assert answers(tmp_path) == {"prelude-teacher": path}
    image = Image.open(path)
    assert image.size == (60 + 4 + 60, 22 + 40 + 4 + 50)
    assert [image.getpixel((x, 60)) for x in (5, 70)] == [(10, 10, 10), (200, 200, 200)]

"""What a detector finds, seen: in TensorBoard and the report beside teacher and truth, and by `distill predict`."""

import csv
import io
import json

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torchvision.transforms.v2.functional import to_pil_image

import distill_app
from distill_app.data import FashionDet

pytestmark = pytest.mark.slow
RUN = (
    "dataset=fashion_det",
    "dataset.train.count=16",
    "dataset.test.count=8",
    "dataset.validation_fraction=0",
    "+dataset.task.drawn_from=0.0",
    "model@teacher=tiny_fasterrcnn",
    "model@student=tiny_fasterrcnn_8",
    "prelude=none",
    "teacher.allow_random=true",
    "stage=fashion_det",
    "runtime.max_epochs=1",
    "runtime.threads=1",
    "method=l2_fpn",
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A run, and a folder of images."""
    folder = tmp_path_factory.mktemp("pictures")
    distill_app.run(distill_app.compose(RUN), output_dir=str(folder / "run"))
    (folder / "images").mkdir()
    data = FashionDet(split="test", count=3, sides=[96, 96], kinds=["bbox"])
    for number in range(3):
        to_pil_image(data[number][0]).save(folder / "images" / f"{number}.png")
    return folder


def test_truth_teacher_and_student_stand_side_by_side_in_tracker_and_report(place, distill, tmp_path):
    picture = Image.open(place / "run" / "samples" / "distill_answers.png")
    assert picture.size == (3 * 320 + 2 * 4, 22 + 6 * 320 + 5 * 4)
    columns = [picture.crop((left, 22, left + 320, picture.height)).tobytes() for left in (0, 324, 648)]
    assert len(set(columns)) == 3
    (events,) = (place / "run" / "tensorboard").rglob("events.out.tfevents.*")
    shown = EventAccumulator(str(events.parent))
    shown.Reload()
    assert "samples/distill_answers" in shown.Tags()["images"]
    code, _, err = distill("report", str(place / "run"), "--output", str(tmp_path))
    assert code == 0, err
    page = (tmp_path / "report.html").read_text()
    assert 'id="pictures"' in page and page.count("data:image/jpeg;base64,") == 1 and "stage distill" in page


def test_predict_tells_objects_as_python_gives_them(place, distill):
    run, images = str(place / "run"), sorted((place / "images").glob("*.png"))
    expected = distill_app.load(run).predict(images, above=0.05, top=3)
    assert any(expected) and all(len(found) <= 3 for found in expected)
    ask = ("predict", run, str(place / "images"), "--score", "0.05", "--top", "3")
    told = json.loads(distill(*ask, "--json")[1])
    found = [[(each["class"], each["score"], tuple(each["box"])) for each in entry["objects"]] for entry in told]
    assert found == [[tuple(each) for each in objects] for objects in expected]
    assert all(0 <= box[0] <= box[2] <= 96 for objects in found for _, _, box in objects)
    rows = list(csv.DictReader(io.StringIO(distill(*ask, "--csv")[1])))
    assert len(rows) == sum(map(len, expected)) and rows[0]["class"] == expected[0][0].label
    code, out, _ = distill(*ask)
    assert code == 0 and len(out.splitlines()) == sum(max(1, len(objects)) for objects in expected)
    assert f"  {next(objects[0].label for objects in expected if objects)}  " in out


def test_predict_draws_objects_and_names_what_cannot_be_read(place, distill, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no image")
    run, grid = str(place / "run"), tmp_path / "grid.png"
    code, out, err = distill("predict", run, str(place / "images"), str(tmp_path / "bad.png"), "--grid", str(grid))
    assert code == 1 and "1 of 4 images could not be read" in err and "written" in err
    assert len(out.splitlines()) >= 3 and Image.open(grid).width > 600
    code, _, err = distill("predict", run, str(tmp_path / "bad.png"), "--grid", str(grid))
    assert code == 2 and "there is no image to draw" in err
    code, _, err = distill("predict", run, str(place / "images"), "--maps", str(tmp_path / "maps"))
    assert code == 2 and "--maps: is of segmenters" in err and not (tmp_path / "maps").exists()

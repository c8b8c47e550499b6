"""`distill predict`: a run or an export and images of all kinds; what is printed, drawn, and said of bad ones."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from deploy_fixtures import exported, network_of, write_images
from PIL import Image

import distill_app
from distill_app.api import run as run_config
from distill_app.config.tree import compose
from distill_app.data.found import found_images
from distill_app.deploy.grid import draw
from distill_app.deploy.maps import colours
from distill_app.deploy.preprocessing import Preprocessing
from distill_app.errors import SettingError, UsageError

CLASSES = [f"class {number}" for number in range(10)]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """An export of a network that knows its classes."""
    place = tmp_path_factory.mktemp("export") / "net.safetensors"
    return str(
        exported(
            *network_of("dataset=digits", "model@student=plain_8_16"), place, to="safetensors", classes=CLASSES
        ).files[0]
    )


@pytest.fixture
def images(tmp_path):
    """A folder with four images, one of them deeper, and a text."""
    folder = tmp_path / "images"
    paths = write_images(folder)
    (folder / "deeper").mkdir()
    paths[3].rename(folder / "deeper" / "3.png")
    (folder / "notes.txt").write_text("no image")
    return folder


def test_images_of_any_mode_and_size_have_a_line_each(weights, images, distill):
    code, out, err = distill("predict", weights, str(images), "--top", "3")
    lines = out.splitlines()
    assert code == 0 and "cannot be read" not in err and len(lines) == 4
    assert [line.split()[0] for line in lines] == [
        str(images / name) for name in ("0.png", "1.png", "2.png", "deeper/3.png")
    ]
    assert all(line.count("class ") == 3 and line.count("%") == 3 for line in lines)


def test_json_and_csv_hold_the_same_as_python_gives(weights, images, distill):
    expected = distill_app.load(weights).predict(sorted(images.rglob("*.png")), top=2)
    told = json.loads(distill("predict", weights, str(images), "--json", "--top", "2")[1])
    found = [[(each["class"], each["probability"]) for each in entry["classes"]] for entry in told]
    assert found == [[tuple(guess) for guess in guesses] for guesses in expected]
    rows = list(csv.DictReader(io.StringIO(distill("predict", weights, str(images), "--csv", "--top", "2")[1])))
    assert len(rows) == 8 and rows[1]["rank"] == "2" and rows[0]["class"] == expected[0][0].label
    assert float(rows[0]["probability"]) == pytest.approx(expected[0][0].probability, abs=1e-6)


def test_batches_make_no_difference(weights, images, distill):
    one, many = (distill("predict", weights, str(images), "--batch-size", size)[1] for size in ("1", "4"))
    assert one == many


def test_corrupt_images_are_named_and_counted_and_the_exit_code_says_it(weights, images, distill):
    (images / "bad.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    whole = (images / "0.png").read_bytes()
    (images / "half.png").write_bytes(whole[: len(whole) // 2])
    code, out, err = distill("predict", weights, str(images))
    assert code == 1 and len(out.splitlines()) == 4
    assert f"cannot be read: {images / 'bad.jpg'}: " in err and f"cannot be read: {images / 'half.png'}: " in err
    assert "2 of 6 images could not be read" in err
    told = json.loads(distill("predict", weights, str(images), "--json")[1])
    assert [entry["image"] for entry in told if "error" in entry] == [
        str(images / name) for name in ("bad.jpg", "half.png")
    ]


@pytest.mark.slow
def test_a_grid_is_a_picture_of_the_images_with_their_classes(weights, images, distill, tmp_path):
    code, _, err = distill("predict", weights, str(images), "--grid", str(tmp_path / "grid.png"))
    assert code == 0 and "written: " in err
    with Image.open(tmp_path / "grid.png") as picture:
        assert picture.width > 600 and len(picture.convert("RGB").getcolors(10**6)) > 100


def test_an_export_is_one_network_and_is_not_taken_for_another(weights, images, distill):
    assert distill("predict", weights, str(images), "--network", "student")[0] == 0
    for place in (weights, str(Path(weights).parent)):
        code, _, err = distill("predict", place, str(images), "--network", "teacher")
        assert code == 2 and "--network: " in err and "is an export of student; for teacher name the run" in err


def test_a_grid_shows_images_as_the_network_reads_them(tmp_path, monkeypatch):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (60, 40)).save(tmp_path / "turned.jpg", exif=exif)
    Image.fromarray(np.array([[0, 0.5, 1]], dtype=np.float32)).save(tmp_path / "floats.tif")
    drawn = []
    monkeypatch.setattr("matplotlib.axes.Axes.imshow", lambda self, image: drawn.append(image))
    how = Preprocessing((), (0.0,) * 3, (1.0,) * 3, None, white=1.0, upright=True)
    answers = [(tmp_path / name, [("cat", 1.0)]) for name in ("turned.jpg", "floats.tif")]
    draw(tmp_path / "grid.png", answers, preprocessing=how)
    assert [image.size for image in drawn] == [(40, 60), (3, 1)]
    assert [drawn[1].getpixel((column, 0))[0] for column in range(3)] == [0, 128, 255]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nowhere"], "there is no file or folder nowhere"),
        (["*.jpg"], "no image fits the pattern '*.jpg'"),
        (["."], "has no images in it"),
        (["a.png", "--top", "0"], "--top: 0 was given"),
        (["a.png", "--grid", "grid.xyz"], "ends in no suffix of a picture"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_is_typed_wrong_ends_with_2(words, says, weights, distill, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("")
    code, _, err = distill("predict", weights, *words)
    assert code == 2 and says in err and "Traceback" not in err


def test_patterns_files_and_folders_are_found_once_and_in_order(images):
    names = [str(images / "1.png"), str(images / "**/*.png"), str(images)]
    found = found_images(names)
    assert [path.name for path in found] == ["1.png", "0.png", "2.png", "3.png"]
    assert found_images([str(images / "notes.txt")]) == [images / "notes.txt"]
    with pytest.raises(UsageError, match=r"there are 1 entries, such as 'deep\.txt'"):
        (images / "empty").mkdir()
        (images / "empty" / "deep.txt").touch()
        found_images([str(images / "empty")])


@pytest.mark.parametrize(
    ("net", "says"),
    [
        ({"_target_": "os.system", "command": "true"}, "outside what may be built"),
        ({"_target_": "torch.hub.load", "repo_or_dir": ".", "model": "m", "source": "local"}, "--allow torch.hub.load"),
        ({"_target_": "distill_app.models.PlainCNN", "widths": [4, 4], "num_classes": 10}, "does not hold the weights"),
        (None, "needs a _target_"),
    ],
    ids=["other", "hub", "smaller", "none"],
)
def test_the_architecture_of_an_export_is_not_trusted(net, says, weights, images, distill, tmp_path):
    file = tmp_path / "net.safetensors"
    file.write_bytes(Path(weights).read_bytes())
    told = json.loads(Path(weights).with_suffix(".json").read_text())
    file.with_suffix(".json").write_text(json.dumps({**told, "net": net}))
    code, _, err = distill("predict", str(file), str(images))
    assert code == 2 and says in err and "Traceback" not in err


@pytest.mark.slow
def test_a_run_is_asked_with_its_own_preprocessing_and_class_names(distill, images, tmp_path, tiny, capsys):
    folder = tmp_path / "run"
    run_config(compose([*tiny, "prelude=none", "debug=one_batch", "dataset.channels=1"]), output_dir=str(folder))
    capsys.readouterr()
    code, out, err = distill("predict", str(folder), str(images), "--json", "--top", "10")
    assert code == 0, err
    (first, *_) = json.loads(out)
    assert sorted(each["class"] for each in first["classes"]) == [str(digit) for digit in range(10)]
    assert sum(each["probability"] for each in first["classes"]) == pytest.approx(1.0)
    student = distill_app.load(folder / "checkpoints/distill/best")
    assert student.preprocessing.batch([images / "0.png"]).shape == (1, 1, 8, 8) and not student.module.training


@pytest.mark.slow
def test_a_segmenter_writes_the_class_of_every_pixel_of_whole_images(distill, images, tmp_path, capsys):
    folder, maps = tmp_path / "run", tmp_path / "maps"
    data = ("dataset=fashion_seg", "dataset.image_size=48", "dataset.train.count=8", "dataset.test.count=4")
    typed = ("method=seg_ce", "prelude=none", "model@student=tiny_fpn_segmenter_8", "stage=fashion_seg", "tracker=none")
    run_config(compose([*data, *typed, "debug=one_batch", "runtime.threads=1"]), output_dir=str(folder))
    capsys.readouterr()
    code, out, err = distill("predict", str(folder), str(images), "--json", "--top", "11", "--maps", str(maps))
    assert code == 0 and "written: 4 maps" in err, err
    student = distill_app.load(folder / "checkpoints/train/best")
    for entry in json.loads(out):
        path = Path(entry["image"])
        written = Image.open(maps / f"{path.stem}.png")
        assert written.mode == "P" and written.size == Image.open(path).size
        prepared = student.preprocessing(path)
        assert prepared.shape[1:] == (written.height, written.width)
        with torch.no_grad():
            expected = student(prepared.unsqueeze(0)).argmax(dim=1)[0]
        assert np.array_equal(np.asarray(written), expected.numpy())
        shares = {each["class"]: each["share"] for each in entry["classes"]}
        assert sum(shares.values()) == pytest.approx(1.0) and shares.keys() <= {*student.classes}
    code, _, err = distill("predict", str(folder), str(images), "--maps", str(maps))
    assert code == 2 and "0.png is there; name another folder" in err
    with pytest.raises(SettingError, match="its answers are maps"):
        student.probabilities(prepared.unsqueeze(0))


def test_maps_are_refused_of_a_network_of_one_class_an_image(weights, images, distill, tmp_path):
    code, _, err = distill("predict", weights, str(images), "--maps", str(tmp_path / "maps"))
    assert code == 2 and "--maps: the network tells no classes of pixels" in err and not (tmp_path / "maps").exists()


def test_maps_have_the_colours_of_voc():
    assert colours()[[0, 1, 2, 3, 15, 20, 255]].tolist() == [
        [0, 0, 0],
        [128, 0, 0],
        [0, 128, 0],
        [128, 128, 0],
        [192, 128, 128],
        [0, 64, 128],
        [224, 224, 192],
    ]

"""`distill data check`: what it counts, what it finds wrong, and the picture."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from data_fixtures import write_images
from PIL import Image

from distill_app.verbs.data import overrides_of


def check(distill, *words):
    """Exit code, and what is found, as JSON; no picture."""
    code, out, _ = distill("data", "check", *map(str, words), "--json", "--no-picture")
    return code, json.loads(out)


def test_a_sound_folder_is_counted_by_part_and_class(tmp_path, distill):
    generator = np.random.default_rng(1)
    write_images(tmp_path, {"ant": 20, "bee": 10})
    Image.fromarray(generator.integers(0, 256, (8, 9), dtype=np.uint8)).save(tmp_path / "bee" / "grey.png")
    Image.fromarray(generator.integers(0, 256, (8, 9, 4), dtype=np.uint8)).save(tmp_path / "bee" / "clear.png")
    code, found = check(distill, tmp_path)
    assert code == 0 and found["wrong"] == [] and found["duplicates"] == []
    assert found["classes"] == ["ant", "bee"]
    assert found["counts"] == {"train": [14, 9], "validation": [2, 1], "test": [4, 2]}
    assert found["sizes"] == {"32x32": 30, "9x8": 2} and found["modes"] == {"RGB": 30, "L": 1, "RGBA": 1}
    assert "enlarged to 224: dataset.image_size=32 trains 49 times as fast" in found["notes"][0]


@pytest.mark.slow
def test_damage_and_duplicates_are_found_by_name(tmp_path, distill):
    root, generator = tmp_path / "data", np.random.default_rng(0)
    for part, count in (("train", 6), ("val", 3)):
        for file in (root / part / label / f"{number}.png" for label in ("cat", "dog") for number in range(count)):
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(generator.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(file)
    assert check(distill, root, "dataset.validation_fraction=0")[0] == 0
    Image.open(root / "train" / "cat" / "0.png").save(root / "train" / "cat" / "again.bmp")
    code, found = check(distill, root, "dataset.validation_fraction=0")
    assert code == 0 and found["notes"][0].startswith("1 image more than once in a part: train train/cat/")
    shutil.copy(root / "train" / "cat" / "1.png", root / "val" / "cat" / "seen.png")
    shutil.copy(root / "train" / "cat" / "2.png", root / "train" / "dog" / "other.png")
    bad = root / "val" / "dog" / "2.png"
    bad.write_bytes(bad.read_bytes()[:300])
    code, found = check(distill, root, "dataset.validation_fraction=0")
    unreadable, across, contradicting = found["wrong"]
    assert code == 1 and unreadable.startswith("1 image cannot be read: val/dog/2.png (")
    assert across.endswith("train train/cat/1.png = test val/cat/seen.png")
    assert contradicting == "1 image of several classes: train train/cat/2.png = train train/dog/other.png"


def test_a_png_whose_end_is_lost_is_found_though_pillow_reads_it(tmp_path, distill):
    write_images(tmp_path, {"ant": 10, "bee": 10})
    bad, (rows, columns) = tmp_path / "bee" / "half.png", np.mgrid[:200, :240]
    Image.fromarray(np.stack([columns, rows, rows * columns], axis=-1).astype(np.uint8)).save(bad)
    whole = bad.read_bytes()
    bad.write_bytes(whole[: len(whole) // 2] + bytes(len(whole) // 2))
    Image.open(bad).load()
    code, found = check(distill, tmp_path)
    assert code == 1 and "1 image cannot be read: bee/half.png (" in found["wrong"][0]
    assert "bee/half.png is damaged: its part IDAT at byte" in found["wrong"][0]


def test_what_keeps_a_data_set_from_being_read_is_told(tmp_path, distill):
    code, found = check(distill, tmp_path / "nowhere")
    assert code == 1 and found["wrong"][0].startswith("dataset.root: ")
    code, out, _ = distill("data", "check", "dataset=csv", "--no-picture")
    assert code == 1 and out == "wrong:\n  1. dataset.file: is missing; set it: 'dataset.file=...'\n"
    code, _, err = distill("data", "check", "dataset.image_size=32")
    assert code == 2 and "name a folder of images, or a data set" in err


def test_what_a_run_warns_of_is_told(tmp_path, distill):
    for part in ("train", "val"):
        write_images(tmp_path / part, {"ant": 10, "bee": 10})
    for number in range(3):
        (tmp_path / "train" / "ant" / f"{number}.HEIC").write_bytes(b"x")
    write_images(tmp_path / "test", {"": 2})
    unread, beside, *_ = check(distill, tmp_path)[1]["notes"]
    assert unread.startswith("3 files are not read as images (3 .heic;") and beside.endswith("are not read: test")
    rows = [f"train/{name}/{n:03}.png,{label}" for name, label in (("ant", "nan"), ("bee", "x")) for n in range(10)]
    (tmp_path / "list.csv").write_text("\n".join(["path,label", *rows]))
    assert "those of the class 'nan'" in check(distill, tmp_path / "list.csv")[1]["notes"][0]


@pytest.mark.slow
def test_images_that_a_run_refuses_are_wrong_and_end_neither_the_check_nor_the_picture(tmp_path, distill):
    generator = np.random.default_rng(0)
    for file in (tmp_path / "d" / label / f"{number}.tif" for label in ("ant", "bee") for number in range(10)):
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.random((8, 8), dtype=np.float32)).save(file)
    words = ("data", "check", str(tmp_path / "d"), "dataset.image_size=32", "--picture", str(tmp_path / "p.png"))
    code, out, _ = distill(*words)
    assert code == 1 and "1. 20 images cannot be read: ant/0.tif" in out and "(the image holds 32-bit floats" in out
    assert "all       " in out and (tmp_path / "p.png").is_file()
    code, out, _ = distill(*words, "+dataset.train.white=1.0", "+dataset.test.white=1.0")
    assert code == 0 and "nothing is wrong" in out
    (tmp_path / "file").touch()
    code, out, _ = distill(*words[:-1], str(tmp_path / "file" / "p.png"), "dataset.validation_fraction=0")
    assert code == 1 and "there is no picture: " in out


def test_a_place_says_which_data_set_it_is(tmp_path):
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "dataset_dict.json").write_text("{}")
    assert overrides_of(["x/labels.csv"]) == ["dataset=csv", "dataset.file='x/labels.csv'"]
    assert overrides_of(["a.parquet"])[0] == overrides_of([str(tmp_path / "saved")])[0] == "dataset=huggingface"
    assert overrides_of([str(tmp_path), "seed=1"]) == ["dataset=imagefolder", f"dataset.root='{tmp_path}'", "seed=1"]


@pytest.mark.slow
def test_a_table_and_a_data_set_of_the_program(tmp_path, distill):
    write_images(tmp_path / "x", {"": 8})
    rows = [f"x/{number:03}.png,{'ab'[number % 2]},{'train' if number < 6 else 'test'}" for number in range(8)]
    (tmp_path / "l.csv").write_text("\n".join(["path,label,split", *rows]))
    code, found = check(distill, tmp_path / "l.csv", "dataset.validation_fraction=0")
    assert code == 0 and found["counts"] == {"train": [3, 3], "test": [1, 1]}
    code, found = check(distill, "dataset=digits")
    assert code == 0 and [sum(counts) for counts in found["counts"].values()] == [1080, 120, 597]


@pytest.mark.slow
def test_the_picture_shows_what_training_and_test_see(tmp_path, distill):
    for label, colour in (("red", (255, 0, 0)), ("blue", (0, 0, 255))):
        (tmp_path / "d" / label).mkdir(parents=True)
        for number in range(10):
            Image.new("RGB", (40 + number, 30), colour).save(tmp_path / "d" / label / f"{number}.png")
    words = (str(tmp_path / "d"), "dataset.image_size=32", "--picture", str(tmp_path / "p.png"))
    code, out, _ = distill("data", "check", *words)
    assert code == 0 and f"picture:  {tmp_path}/p.png" in out and "nothing is wrong" in out
    pixels = np.asarray(Image.open(tmp_path / "p.png")).astype(int)
    blue, red = (pixels[20:116], pixels[120:216])
    assert (blue == (0, 0, 255)).all(axis=2).sum() == 96 * 96 * 7, "five for training, two for the test"
    assert (red == (255, 0, 0)).all(axis=2).sum() == 96 * 96 * 7


@pytest.mark.slow
def test_without_a_picture_torch_is_not_imported(tmp_path):
    for label in ("ant", "bee"):
        (tmp_path / label).mkdir()
        for number in range(10):
            Image.new("L", (9, 9), (number + 100 * (label == "ant"))).save(tmp_path / label / f"{number}.png")
    code = (
        "import sys; from distill_app.verbs import call; "
        "call('data', ['check', sys.argv[1], '--no-picture']); sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr

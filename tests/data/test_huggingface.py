"""Data sets in the format of Hugging Face, saved by these tests: columns, parts, classes, and what is wrong."""

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from distill_app.check.quick import read
from distill_app.config.tree import compose
from distill_app.data import HuggingFaceImages
from distill_app.errors import DataError

datasets = pytest.importorskip("datasets")
PAIR = ("model@teacher=plain_8_16", "model@student=plain_8_16", "prelude=none", "teacher.allow_random=true")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Parquet files are unpacked there."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


def table(count, *, labels=("ant", "bee"), typed=True, image="image", label="label"):
    """Images whose grey value is 10 x their number, with labels by turns."""
    images = [
        Image.fromarray(np.full((6, 9), 10 * n, np.uint8)).convert("RGBA" if n % 2 else "L") for n in range(count)
    ]
    rows = {image: images, label: [n % 2 for n in range(count)] if typed else [labels[n % 2] for n in range(count)]}
    kind = datasets.ClassLabel(names=list(labels)) if typed else datasets.Value("string")
    return datasets.Dataset.from_dict(rows, features=datasets.Features({image: datasets.Image(), label: kind}))


def quick_errors(path, *overrides):
    return read(compose(["dataset=huggingface", f"dataset.path={path}", *PAIR, *overrides]))[0]


def grey(dataset, index):
    image, _ = dataset[index]
    assert image.shape == (3, 6, 9)
    return int(image[0, 0, 0])


def test_a_saved_data_set_with_parts(tmp_path):
    parts = {"train": table(6), "validation": table(4), "test": table(2)}
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "d"))
    train, test = (HuggingFaceImages(str(tmp_path / "d"), split=split) for split in ("train", "test"))
    assert len(train) == 10 and train.validation == [6, 7, 8, 9] and len(test) == 2 and test.validation is None
    assert train.classes == ["ant", "bee"] and train.targets == [0, 1] * 5
    assert [grey(train, index) for index in (0, 5, 9)] == [0, 50, 30], "grey and RGBA, by index"
    assert train.division["images"] == {"train": 6, "validation": 4, "test": 2}
    assert quick_errors(tmp_path / "d") == []


def test_a_saved_table_is_shared_by_the_seed_and_names_its_columns(tmp_path):
    table(20, image="picture", label="kind").save_to_disk(str(tmp_path / "d"))
    train, test = (HuggingFaceImages(str(tmp_path / "d"), split=split) for split in ("train", "test"))
    assert np.bincount(train.targets).tolist() == [8, 8] and np.bincount(test.targets).tolist() == [2, 2]
    assert not set(train.rows) & set(test.rows) and train.fingerprint == test.fingerprint


@pytest.mark.slow
def test_parquet_files_whose_labels_are_words(tmp_path):
    (tmp_path / "d").mkdir()
    for name, count in (("train", 6), ("test", 4)):
        table(count, typed=False, labels=("wasp", "ant")).to_parquet(str(tmp_path / "d" / f"{name}-00000.parquet"))
    test = HuggingFaceImages(str(tmp_path / "d"), split="test")
    assert test.classes == ["ant", "wasp"] and test.targets == [1, 0, 1, 0] and grey(test, 3) == 30
    alone = HuggingFaceImages(str(tmp_path / "d" / "train-00000.parquet"), split="train", test_fraction=0.34)
    assert len(alone) == 4 and alone.division["images"] == {"train": 4, "test": 2}


@pytest.mark.slow
def test_images_as_plain_bytes_in_a_column_that_is_said(tmp_path):
    data = []
    for number in range(4):
        file = io.BytesIO()
        Image.new("RGB", (9, 6), (10 * number, 0, 0)).save(file, "PNG")
        data.append(file.getvalue())
    rows = {"bytes": data, "label": [7, 9, 7, 9], "note": ["x"] * 4}
    datasets.Dataset.from_dict(rows).save_to_disk(str(tmp_path / "d"))
    (error,) = quick_errors(tmp_path / "d")
    assert error.startswith("dataset.columns.image: ") and "it has bytes, label, note; say which is the image" in error
    train = HuggingFaceImages(str(tmp_path / "d"), split="train", test_fraction=0.5, columns={"image": "bytes"})
    assert train.classes == ["7", "9"] and sorted(train.targets) == [0, 1]
    assert grey(train, 0) == 10 * train.rows[0][1]
    (error,) = quick_errors(tmp_path / "d", "dataset.columns.image=note", "dataset.test_fraction=0.5")
    assert error.startswith("dataset.columns.image: ") and "of row 0 is not there: x; name another column" in error
    with pytest.raises(DataError, match="the parts are those of the data set itself"):
        HuggingFaceImages(str(tmp_path / "d"), split="train", columns={"image": "bytes", "split": "note"})
    (error,) = quick_errors(tmp_path / "d", "dataset.columns.image=label", "dataset.test_fraction=0.5")
    assert error.startswith("dataset.columns.image: ") and "the column label holds no images, but Value(" in error


def test_images_without_a_label_are_refused_and_another_part_can_be_said(tmp_path):
    hidden = table(2).map(lambda row: {"label": -1})
    datasets.DatasetDict({"train": table(4), "valid": table(4), "test": hidden}).save_to_disk(str(tmp_path / "d"))
    (error,) = quick_errors(tmp_path / "d")
    assert error.startswith("dataset.columns.label: ") and "2 of the 2 images of test have no label" in error
    test = HuggingFaceImages(str(tmp_path / "d"), split="test", splits={"test": "valid"})
    assert len(test) == 4 and test.division["how"] == "train is train, test is valid"


def labelled(values, feature):
    images = [Image.new("L", (9, 6), n) for n in range(len(values))]
    features = datasets.Features({"image": datasets.Image(), "label": feature})
    return datasets.Dataset.from_dict({"image": images, "label": values}, features=features)


def test_labels_that_are_several_or_none_are_no_classes(tmp_path):
    names, numbers = datasets.ClassLabel(names=["ant", "bee"]), datasets.Value("float64")
    labelled([[0], [0, 1], [1], [0]], datasets.Sequence(names)).save_to_disk(str(tmp_path / "several"))
    (error,) = quick_errors(tmp_path / "several", "dataset.columns.label=label")
    assert (
        error.startswith("dataset.columns.label: ")
        and "label of all has [0] in row 0, and an image has one class" in error
    )
    for none in (float("nan"), -1.0):
        labelled([0.0, 1.0, none, 1.0], numbers).save_to_disk(str(tmp_path / f"with {none}"))
        (error,) = quick_errors(tmp_path / f"with {none}")
        assert "1 of the 4 images of all have no label, first that of row 2" in error
    labelled([10.0, 2.0, 1.0] * 2, numbers).save_to_disk(str(tmp_path / "whole"))
    assert HuggingFaceImages(str(tmp_path / "whole"), split="test").classes == ["1", "2", "10"]


@pytest.mark.slow
def test_what_is_not_there_is_told(tmp_path, monkeypatch):
    (error,) = quick_errors(tmp_path / "nowhere")
    assert error.startswith(f"dataset.path: {tmp_path}/nowhere is not there")
    (tmp_path / "empty").mkdir()
    (error,) = quick_errors(tmp_path / "empty")
    assert error.startswith(f"dataset.path: {tmp_path}/empty cannot be read as a data set: ")
    datasets.DatasetDict({"eval_a": table(4), "eval_b": table(4)}).save_to_disk(str(tmp_path / "d"))
    (error,) = quick_errors(tmp_path / "d")
    assert error.startswith("dataset.splits.train: none of eval_a, eval_b is for training")
    monkeypatch.setitem(sys.modules, "datasets", None)
    (error,) = quick_errors(tmp_path / "d")
    assert error.startswith("dataset.path: ") and error.endswith("pip install 'distill-app[hf]'")


def test_an_image_that_cannot_be_read_is_told_with_its_row(tmp_path):
    rows = {"image": [b"no image"] * 6, "label": [0, 1] * 3}
    datasets.Dataset.from_dict(rows).save_to_disk(str(tmp_path / "d"))
    train = HuggingFaceImages(str(tmp_path / "d"), split="train")
    with pytest.raises(ValueError, match=r"row \d of all is not an image of the formats JPEG"):
        train[0]
    with pytest.raises(DataError, match="train or test, not 'valid'"):
        HuggingFaceImages(str(tmp_path / "d"), split="valid")


@pytest.mark.slow
def test_the_package_is_imported_only_where_it_is_asked_for():
    code = "import sys, distill_app.check.quick; sys.exit(bool({'datasets', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0

"""CSV files of images: columns, parts, classes, and what is wrong with them."""

import numpy as np
import pytest
from data_fixtures import write_images

from distill_app.check.quick import read
from distill_app.config.tree import compose
from distill_app.data import CsvImages
from distill_app.data.notes import reading_notes
from distill_app.errors import DataError

PAIR = ("model@teacher=plain_8_16", "model@student=plain_8_16", "prelude=none", "teacher.allow_random=true")


@pytest.fixture
def table(tmp_path):
    """Writes ten images and a file that names them; a row is (path, class, part)."""
    write_images(tmp_path / "images", {"x": 10})

    def write(text=None, header="file,label", end="", name="labels.csv"):
        rows = [f"images/x/{n:03}.png,{'ant' if n < 6 else 'bee'}{end}" for n in range(10)]
        (tmp_path / name).write_text(text or "\n".join([header, *rows]) + "\n")
        return str(tmp_path / name)

    return write


def quick_errors(*overrides):
    return read(compose(["dataset=csv", *PAIR, *overrides]))[0]


def test_a_file_of_paths_and_classes_is_shared_by_the_seed(table):
    train, test = (CsvImages(table(), split=split) for split in ("train", "test"))
    assert train.classes == ["ant", "bee"]
    assert np.bincount(train.targets).tolist() == [5, 3] and np.bincount(test.targets).tolist() == [1, 1]
    assert train[0][0].shape == (3, 32, 32) and not set(train.samples) & set(test.samples)
    assert CsvImages(table(), split="test", split_seed=3).samples != test.samples


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_a_column_of_parts_divides(table, delimiter):
    lines = [("path", "class", "Split")]
    for number in range(10):
        part = "train" if number < 6 else "val" if number < 8 else "test"
        lines.append((f"images/x/{number:03}.png", str(number % 2 * 8 + 2), part))
    file = table("\ufeff" + "\n".join(delimiter.join(line) for line in lines))
    train, test = (CsvImages(file, split=split) for split in ("train", "test"))
    assert len(train) == 8 and train.validation == [6, 7] and len(test) == 2
    assert train.classes == ["2", "10"], "whole numbers are sorted as such"
    assert train.division["images"] == {"train": 6, "validation": 2, "test": 2}


def test_numbers_are_sorted_as_such_and_classes_that_may_be_none_or_the_same_are_told(table):
    rows = [f"images/x/{n:03}.png,{('10.0', '2.0', '1.0')[n % 3]}" for n in range(9)]
    assert CsvImages(table("\n".join(["path,label", *rows])), split="train").classes == ["1.0", "2.0", "10.0"]
    rows = [f"images/x/{n:03}.png,{('nan', '01', '1')[n % 3]}" for n in range(9)]
    alike, none = reading_notes(CsvImages(table("\n".join(["path,label", *rows])), split="train"))
    assert alike == "'01' and '1' are different classes, by their spelling alone"
    assert none.startswith("the images without a label may be those of the class 'nan'")


def test_columns_and_parts_of_other_names_are_said(table):
    text = "\n".join(
        ["bild,art,wo", *(f"images/x/{n:03}.png,a{n % 2},{'gut' if n < 6 else 'zuletzt'}" for n in range(10))]
    )
    file = table(text)
    columns, splits = {"image": "bild", "label": "art", "split": "wo"}, {"train": "gut", "test": "zuletzt"}
    assert len(CsvImages(file, split="test", columns=columns, splits=splits)) == 4
    with pytest.raises(DataError, match=r"columns\.split: .*line 2 has 'gut' in the column wo, which is neither"):
        CsvImages(file, split="test", columns=columns)
    with pytest.raises(DataError, match=r"^columns\.image: .*it has bild, art, wo; say which is the image"):
        CsvImages(file, split="test")
    with pytest.raises(DataError, match=r"^columns: unknown column 'labels'; did you mean 'label'"):
        CsvImages(file, split="test", columns={"labels": "art"})


def test_paths_may_be_relative_to_another_folder(table, tmp_path):
    (tmp_path / "lists").mkdir()
    file = table(name="lists/labels.csv")
    with pytest.raises(DataError, match=r"10 of the 10 images of .* are not there, first that of line 2"):
        CsvImages(file, split="train")
    assert len(CsvImages(file, split="train", root=str(tmp_path))) == 8


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, None),
        ("file,label\n", "dataset.file: {file} has no rows under its first line"),
        ("file,label\nimages/x/000.png,\n", "dataset.file: {file}, line 2 has nothing in the column label"),
        ("file,label\n\nimages/x/000.png\n", "dataset.file: {file}, line 3 has nothing in the column label"),
        (
            "file,label\nimages/x/000.png,a\nimages/x/../x/000.png,b\n",
            "dataset.file: {file}, lines 2 and 3 name one image",
        ),
        (
            "file,label\nimages/x/000.png,a\nimages/x/001.png,a\n",
            "dataset.classes: column label of {file}: there is one",
        ),
        (
            "file,label\nimages/x/000.png,0\nimages/x/001.png,-1\nimages/x/002.png,1\n",
            "dataset.columns.label: {file}: 1 of the 3 images have a negative number in the column label, which stands "
            "for no label, first that of line 3",
        ),
        ("file,path,label\na,b,c\n", "dataset.columns.image: {file}: file and path could all be meant"),
        (
            "file,label\nimages/x/000.png,a\nimages/x/099.png,b\n",
            "dataset.file: 1 of the 2 images of {file} are not there",
        ),
        ("file,label\nimages/x/000.png,a\nimages/x/001.png,b\n", "dataset.test_fraction: too few images"),
        ("file,label,split\nimages/x/000.png,a,test\nimages/x/001.png,b,test\n", "dataset.splits.train: there are no"),
    ],
)
def test_what_is_wrong_with_a_file_is_told_with_its_key(table, text, expected):
    file = table(text)
    errors = quick_errors(f"dataset.file={file}")
    assert errors == [] if expected is None else errors[0].startswith(expected.format(file=file)) and len(errors) == 1


@pytest.mark.slow
def test_a_file_that_is_not_there_or_not_named_is_one_error(table):
    file = table()
    assert quick_errors() == ["dataset.file: is missing; set it: 'dataset.file=...'"]
    (error,) = quick_errors(f"dataset.file={file[:-5]}.csv")
    assert error.startswith(f"dataset.file: {file[:-5]}.csv is not there") and f"did you mean {file}?" in error
    (error,) = quick_errors(f"dataset.file={file}", "dataset.columns.label=lable")
    assert error.startswith("dataset.columns.label: ") and "unknown column 'lable'; did you mean 'label'" in error
    (error,) = quick_errors(f"dataset.file={file}", "dataset.path=x")
    assert error == "dataset.path: nothing of dataset=csv reads it; leave it out"


@pytest.mark.slow
def test_a_share_is_refused_where_the_file_names_parts(table):
    file = table(header="file,label,split", end=",train")
    assert quick_errors(f"dataset.file={file}") == [], "training images alone are shared"
    rows = "\n".join(f"images/x/{n:03}.png,{'ab'[n % 2]},{'train' if n < 6 else 'test'}" for n in range(10))
    file = table(f"file,label,split\n{rows}\n")
    assert quick_errors(f"dataset.file={file}") == []
    (error,) = quick_errors(f"dataset.file={file}", "dataset.split_seed=7")
    assert error.startswith("dataset.split_seed: 7 was given, and the data say themselves what is for the test")
    (error,) = quick_errors(f"dataset.file={file}", "dataset.test_fraction=0.5")
    assert error.startswith("dataset.test_fraction: 0.5 was given, and the data say themselves")

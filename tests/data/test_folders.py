"""Files from strangers, and data that is not there."""

import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from PIL import Image
from torchvision.datasets import ImageFolder as TorchvisionImageFolder

from distill_app.config.schema import DatasetConf
from distill_app.data import ImageFolder, missing_data
from distill_app.data.notes import reading_notes


def image_folder(root, classes=("a", "b")):
    for name in classes:
        (root / name).mkdir(parents=True)
        Image.new("RGB", (8, 8), (1, 2, 3)).save(root / name / "0.png")
    return root


def conf(root, *, target="distill_app.data.ImageFolder", num_classes=2):
    return DatasetConf(
        name="mine",
        num_classes=num_classes,
        image_size=8,
        root=str(root),
        get="make data",
        train={"_target_": target, "root": "${..root}/train"},
        test={"_target_": target, "root": "${..root}/val"},
    )


def test_pixel_limit_can_be_lowered(tmp_path):
    root = image_folder(tmp_path)
    with pytest.raises(ValueError, match="8 x 8 pixels; at most 63"):
        ImageFolder(str(root), max_pixels=63)[0]
    assert ImageFolder(str(root), max_pixels=64)[0][0].shape == (3, 8, 8)


def test_image_folder_names_the_empty_class_folder(tmp_path):
    image_folder(tmp_path)
    (tmp_path / "c").mkdir()
    with pytest.raises(FileNotFoundError, match=f"no image in the class folder {tmp_path}/c"):
        ImageFolder(str(tmp_path))
    with pytest.raises(FileNotFoundError, match="nowhere is not a folder"):
        ImageFolder(str(tmp_path / "nowhere"))


def test_complete_data_has_no_problems(tmp_path):
    image_folder(tmp_path / "train")
    image_folder(tmp_path / "val")
    assert missing_data(conf(tmp_path)) == []
    assert missing_data(OmegaConf.structured(conf(tmp_path))) == []
    assert missing_data(dataclasses.replace(conf(tmp_path), root=None, train=None, test=None)) == []


def test_missing_root_says_the_key_the_path_and_how_to_get_it(tmp_path):
    [problem] = missing_data(conf(tmp_path / "none"), key="method.stages.distill.data")
    assert problem.startswith(f"method.stages.distill.data.root: {tmp_path}/none is not there")
    assert problem.endswith("to get the data: make data")


def test_each_bad_folder_is_one_message(tmp_path):
    image_folder(tmp_path / "train")
    for number in range(5):
        (tmp_path / "train" / f"empty{number}" / "deeper").mkdir(parents=True)
    (tmp_path / "val").mkdir()
    train, test = missing_data(conf(tmp_path))
    assert train.startswith("dataset.train.root: no image in the class folders") and "and 2 more" in train
    assert test.startswith(f"dataset.test.root: {tmp_path}/val has no class folders")


def test_images_may_lie_deeper_in_a_class_folder(tmp_path):
    image_folder(tmp_path / "train" / "a")
    image_folder(tmp_path / "val" / "a")
    assert missing_data(conf(tmp_path, num_classes=1)) == []
    assert len(ImageFolder(str(tmp_path / "train"))) == 2


def test_classes_that_would_shift_the_labels_are_found(tmp_path):
    image_folder(tmp_path / "train", "abc")
    image_folder(tmp_path / "val", "abd")
    assert "set dataset.num_classes=3" in missing_data(conf(tmp_path))[0]
    assert "differ in the class folders c, d" in missing_data(conf(tmp_path, num_classes=3))[0]


def test_root_without_the_files_torchvision_reads_is_found(tmp_path):
    [problem] = missing_data(conf(tmp_path, target="torchvision.datasets.CIFAR10"))
    assert "has no cifar-10-batches-py" in problem and "make data" in problem


def test_presence_is_told_without_torch():
    code = "import sys; from distill_app.data import missing_data; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_root_that_is_not_there_is_told_with_what_is(tmp_path):
    image_folder(tmp_path / "flowers" / "train")
    [problem] = missing_data(conf(tmp_path / "flower" / "v2"))
    assert f"nor is {tmp_path}/flower); did you mean {tmp_path}/flowers?" in problem
    [problem] = missing_data(conf("~/flowers"))
    assert f"write {Path.home()}/flowers" in problem
    (tmp_path / "flowers.zip").write_bytes(b"")
    [problem] = missing_data(conf(tmp_path / "flowers.zip"))
    assert "flowers.zip is a file, not a folder" in problem


def test_a_split_of_another_name_is_told_with_what_lies_beside_it(tmp_path):
    image_folder(tmp_path / "train")
    image_folder(tmp_path / "valid")
    [problem] = missing_data(conf(tmp_path))
    assert problem.startswith(f"dataset.test.root: {tmp_path}/val is not a folder ({tmp_path} has: train, valid)")


def test_folders_are_looked_at_where_only_the_splits_have_a_root(tmp_path):
    image_folder(tmp_path / "train")
    part = {"_target_": "distill_app.data.ImageFolder", "root": str(tmp_path / "train")}
    other = {**part, "root": str(tmp_path / "nowhere")}
    [problem] = missing_data(dataclasses.replace(conf(tmp_path), root=None, train=part, test=other))
    assert problem.startswith("dataset.test.root: ")


@pytest.mark.parametrize("count", [1, 9])
def test_any_other_number_of_class_folders_is_an_error(tmp_path, count):
    for split in ("train", "val"):
        image_folder(tmp_path / split, [f"class{number}" for number in range(count)])
    [problem] = missing_data(conf(tmp_path, num_classes=4))
    assert problem.startswith("dataset.num_classes: 4 was given") and f"set dataset.num_classes={count}" in problem


def test_which_split_lacks_which_class_is_told(tmp_path):
    image_folder(tmp_path / "train", "abc")
    image_folder(tmp_path / "val", "ab")
    [problem] = missing_data(conf(tmp_path, num_classes=3))
    assert problem.startswith("dataset.test.root: ") and f"{tmp_path}/train alone has c" in problem


def test_a_class_folder_without_a_readable_image_is_told_with_what_it_has(tmp_path):
    image_folder(tmp_path)
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "photo.heic").write_bytes(b"x")
    with pytest.raises(FileNotFoundError, match=r"/c \(it has photo\.heic; images are \.jpg .*, not \.heic\)"):
        ImageFolder(str(tmp_path))


@pytest.mark.parametrize("suffix", ["jfif", "JPG", "webp", "tif", "TIFF", "gif", "pgm", "bmp"])
def test_the_check_and_the_reader_take_the_same_files_for_images(tmp_path, suffix):
    for split in ("train", "val"):
        for name in ("a", "b"):
            (tmp_path / split / name).mkdir(parents=True)
            format = {"jfif": "JPEG", "JPG": "JPEG"}.get(suffix)
            Image.new("L", (8, 8)).save(tmp_path / split / name / f"0.{suffix}", format=format)
    assert missing_data(conf(tmp_path)) == []
    read = ImageFolder(str(tmp_path / "train"))
    assert len(read) == 2 and read.targets == [0, 1] and read[1][0].shape == (3, 8, 8)


def test_the_order_is_that_of_torchvisions_own_reader(tmp_path):
    for name in ("b/2", "b/10", "b/x/1", "b/x-y/1", "b/x/y/1", "B/1", "a/1"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8)).save(tmp_path / f"{name}.png")
    mine, theirs = ImageFolder(str(tmp_path)), TorchvisionImageFolder(str(tmp_path))
    assert mine.samples == theirs.samples and mine.classes == theirs.classes and mine.targets == theirs.targets


@pytest.fixture
def littered(tmp_path):
    """Two classes of one image each, beside and inside of which other things lie."""
    root = image_folder(tmp_path / "train")
    for name in (".ipynb_checkpoints", "__MACOSX", "a/.ipynb_checkpoints"):
        (root / name).mkdir()
        shutil.copy(root / "a" / "0.png", root / name / "0-checkpoint.png")
    for name in ("a/notes.txt", "a/1.heic", "b/._0.png", "stray.png"):
        (root / name).write_bytes(b"x")
    (root / "a" / "loop").symlink_to("..")
    (root / "b" / "gone.png").symlink_to("/nowhere/gone.png")
    return root


def test_hidden_folders_are_no_classes_and_links_are_not_followed_in_circles(littered):
    read = ImageFolder(str(littered))
    assert read.classes == ["a", "b"] and [Path(path).name for path, _ in read.samples] == ["0.png", "0.png"]
    shutil.copytree(littered, littered.parent / "val", symlinks=True)
    assert missing_data(conf(littered.parent)) == []


def test_all_that_is_not_read_is_counted_and_named(littered):
    files, hidden, loops = reading_notes(ImageFolder(str(littered)))
    assert files.startswith("5 files are not read as images (") and "a/1.heic" in files and "and 2 more" in files
    for kind in ("1 .heic", "1 .txt", "1 hidden", "1 links to nothing", "1 beside the class folders"):
        assert kind in files
    assert hidden.startswith("3 hidden folders") and ".ipynb_checkpoints, __MACOSX, a/.ipynb_checkpoints" in hidden
    assert loops.startswith("1 links lead back") and loops.endswith("a/loop")


def test_clean_folders_give_no_notes(tmp_path):
    assert reading_notes(ImageFolder(str(image_folder(tmp_path)))) == []
    assert reading_notes([("an image", 0)]) == []


def test_what_torchvisions_own_reader_passes_over_is_told_too(tmp_path):
    image_folder(tmp_path)
    Image.new("RGB", (8, 8)).save(tmp_path / "a" / "1.jfif", format="JPEG")
    [note] = reading_notes(TorchvisionImageFolder(str(tmp_path)))
    assert note.startswith("1 files are not read as images") and note.endswith("a/1.jfif")


def test_a_hidden_folder_that_torchvisions_own_reader_would_take_for_a_class_is_an_error(tmp_path):
    for split in ("train", "val"):
        image_folder(tmp_path / split, ("a", ".hidden"))
    problems = missing_data(conf(tmp_path, target="torchvision.datasets.ImageFolder", num_classes=1))
    assert len(problems) == 2
    assert f"takes the folder {tmp_path}/train/.hidden for a class" in problems[0]


def test_classes_that_differ_by_their_spelling_alone_are_told(tmp_path):
    [note] = reading_notes(ImageFolder(str(image_folder(tmp_path, ("Cat", "cat", "dog")))))
    assert note.startswith("'Cat' and 'cat' are different classes")


def test_links_to_each_others_folders_end(tmp_path):
    image_folder(tmp_path)
    (tmp_path / "a" / "other").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "other").symlink_to(tmp_path / "a")
    assert [label for _, label in ImageFolder(str(tmp_path)).samples] == [0, 0, 1, 1]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_class_folder_that_cannot_be_listed_is_told(tmp_path):
    image_folder(tmp_path)
    (tmp_path / "a").chmod(0)
    try:
        with pytest.raises(FileNotFoundError, match=f"{tmp_path}/a cannot be listed: Permission denied"):
            ImageFolder(str(tmp_path))
    finally:
        (tmp_path / "a").chmod(0o700)

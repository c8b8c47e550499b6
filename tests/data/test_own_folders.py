"""Folders of one's own images: how they fall into parts, which classes they have, and what is wrong with them."""

import os

import numpy as np
import pytest
import torch
from data_fixtures import folders, write_images
from omegaconf import OmegaConf
from PIL import Image

from distill_app.check.quick import fill_in, read
from distill_app.config.tree import compose
from distill_app.data import ImageFolder
from distill_app.data.images import load_image
from distill_app.data.listing import folder_listing
from distill_app.data.notes import reading_notes
from distill_app.data.parts import PARTS, part_names, shared_parts
from distill_app.errors import DataError
from distill_app.runs.records import refuse_other_data

PAIR = ("model@teacher=plain_8_16", "model@student=plain_8_16", "prelude=none", "teacher.allow_random=true")


def quick_errors(root, *overrides):
    return read(compose(["dataset=imagefolder", f"dataset.root={root}", *PAIR, *overrides]))[0]


def names(dataset):
    return {path for path, _ in dataset.samples}


def test_class_folders_are_shared_alike_by_the_seed_and_by_nothing_else(tmp_path):
    write_images(tmp_path, {"ant": 20, "bee": 10})
    train, test = (ImageFolder(str(tmp_path), split=split) for split in ("train", "test"))
    assert np.bincount(train.targets).tolist() == [16, 8] and np.bincount(test.targets).tolist() == [4, 2]
    assert train.classes == test.classes == ["ant", "bee"] and train.validation is None
    assert not names(train) & names(test) and len(names(train) | names(test)) == 30
    again = ImageFolder(str(tmp_path), split="test")
    assert again.samples == test.samples and again.division == train.division
    other = ImageFolder(str(tmp_path), split="test", split_seed=1)
    assert names(other) != names(test) and other.division["hash"] != test.division["hash"]
    assert test.division["images"] == {"train": 24, "test": 6} and test.division["test_fraction"] == 0.2


def test_images_that_come_along_do_not_shuffle_those_that_were_there(tmp_path):
    labels, before = ["a"] * 50, [f"{number}.png" for number in range(50)]
    division = shared_parts(labels, before, test_fraction=0.2, seed=0)
    more = [*before, "new.png"]
    after = shared_parts([*labels, "a"], more, test_fraction=0.2, seed=0)
    moved = {before[i] for i in division.places["test"]} ^ {more[i] for i in after.places["test"]}
    assert len(moved - {"new.png"}) <= 1


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (("train", "val"), {"train": 4, "test": 2}),
        (("Training", "Test"), {"train": 4, "test": 2}),
        (("train", "valid", "test"), {"train": 4, "validation": 2, "test": 2}),
        (("train", "dev", "testing"), {"train": 4, "validation": 2, "test": 2}),
    ],
)
def test_folders_by_the_usual_names_are_the_parts(tmp_path, parts, expected):
    for number, part in enumerate(parts):
        write_images(tmp_path / part, dict.fromkeys(("ant", "bee"), 1 if number else 2))
    train, test = (ImageFolder(str(tmp_path), split=split) for split in ("train", "test"))
    assert train.division["images"] == expected and len(test) == 2
    validation = [train.samples[index][0] for index in train.validation or []]
    assert len(validation) == expected.get("validation", 0) and all(f"/{parts[1]}/" in path for path in validation)
    assert all(f"/{parts[0]}/" in path for path in names(train) - set(validation))


def test_parts_of_other_names_are_said(tmp_path):
    for part in ("good", "judged", "last"):
        write_images(tmp_path / part, {"ant": 2, "bee": 2})
    splits = {"train": "good", "validation": "judged", "test": "last"}
    listing = folder_listing(str(tmp_path), splits=splits)
    assert {part: len(places) for part, places in listing.division.places.items()} == dict.fromkeys(PARTS, 4)
    with pytest.raises(DataError, match=r"^splits\.test: unknown split 'lst'; did you mean 'last'"):
        folder_listing(str(tmp_path), splits={**splits, "test": "lst"})
    with pytest.raises(DataError, match=r"^splits: unknown part 'tests'; did you mean 'test'"):
        folder_listing(str(tmp_path), splits={"tests": "last"})
    with pytest.raises(DataError, match=r"val and valid could both be meant; say which"):
        part_names(["train", "val", "valid"])


def test_a_seed_that_draws_nothing_is_refused(tmp_path):
    folders(tmp_path)
    assert len(ImageFolder(str(tmp_path), split="test")) == 6
    with pytest.raises(DataError, match=r"^split_seed: 7 was given, and the data say .*train, val.*leave it out"):
        ImageFolder(str(tmp_path), split="test", split_seed=7)


@pytest.mark.parametrize("split", [None, "train"])
def test_files_whose_names_are_no_text_are_refused_by_name(tmp_path, split):
    write_images(tmp_path, {"ant": 6, "bee": 6})
    os.rename(tmp_path / "bee" / "000.png", os.fsencode(tmp_path / "bee") + b"/caf\xe9.png")
    with pytest.raises(DataError, match=r"^root: the names of 1 files are no text .*bee/caf\\udce9.png'; rename"):
        ImageFolder(str(tmp_path), split=split)
    os.rename(os.fsencode(tmp_path / "bee") + b"/caf\xe9.png", os.fsencode(tmp_path / "bee") + b"/caf\xe9.txt")
    [note] = reading_notes(ImageFolder(str(tmp_path), split=split))
    assert note.endswith("bee/caf?.txt"), "a file that is not read"


def test_a_class_may_be_called_train_or_test(tmp_path):
    write_images(tmp_path, {"bus": 5, "train": 5, "test": 5})
    assert ImageFolder(str(tmp_path), split="train").classes == ["bus", "test", "train"]


def test_folders_beside_the_parts_are_told(tmp_path):
    root = folders(tmp_path)
    write_images(root / "unlabelled", {"": 1})
    [note] = reading_notes(ImageFolder(str(root), split="train"))
    assert "beside those for training and test are not read: unlabelled" in note
    assert reading_notes(ImageFolder(str(root), split="test")) == []


def test_the_order_of_classes_can_be_said_and_is_kept(tmp_path):
    write_images(tmp_path, {"ant": 4, "bee": 2})
    turned = ImageFolder(str(tmp_path), split="train", classes=["bee", "ant"])
    assert turned.classes == ["bee", "ant"] and np.bincount(turned.targets).tolist() == [1, 3]
    with pytest.raises(DataError, match="unknown class 'bee'"):
        ImageFolder(str(tmp_path), split="train", classes=["ant", "cat"])
    with pytest.raises(DataError, match="there is none for 'cat'"):
        ImageFolder(str(tmp_path), split="train", classes=["ant", "bee", "cat"])


def test_classes_and_their_number_come_into_the_config(tmp_path):
    write_images(tmp_path, {"ant": 4, "bee": 2, "cat": 2})
    cfg = compose(["dataset=imagefolder", f"dataset.root={tmp_path}", *PAIR])
    assert OmegaConf.is_missing(cfg.dataset, "num_classes")
    fill_in(cfg)
    assert cfg.dataset.num_classes == cfg.student.net.num_classes == 3
    assert cfg.dataset.classes == cfg.dataset.test.classes == ["ant", "bee", "cat"]


@pytest.mark.parametrize(
    ("counts", "overrides", "expected"),
    [
        ({"ant": 5, "bee": 0}, (), "dataset.root: no image in the class folder "),
        ({"ant": 5}, (), "dataset.classes: class folders in "),
        (
            {"ant": 5, "bee": 1},
            (),
            "dataset.test_fraction: too few images to keep 0.2 of each class for the test: bee (1)",
        ),
        ({"ant": 5, "bee": 5}, ("dataset.test_fraction=1.5",), "dataset.test_fraction: above 0 and below 1, not 1.5"),
        ({"ant": 5, "bee": 5}, ("dataset.num_classes=3",), "dataset.num_classes: 3 was given, and there are 2 classes"),
        ({"ant": 5, "bee": 5}, ("dataset.classes=[ant,bees]",), "dataset.classes: class folders in "),
        ({}, (), "dataset.root: "),
    ],
)
def test_what_is_wrong_with_a_folder_is_told_with_its_key(tmp_path, counts, overrides, expected):
    write_images(tmp_path, counts)
    (error,) = quick_errors(tmp_path, *overrides)
    assert error.startswith(expected)


@pytest.mark.slow
def test_parts_without_training_images_and_classes_that_none_train_are_told(tmp_path):
    write_images(tmp_path / "a" / "val", {"ant": 2, "bee": 2})
    (error,) = quick_errors(tmp_path / "a")
    assert "has val and no folder for training" in error and "dataset.splits.train=NAME" in error
    write_images(tmp_path / "b" / "train", {"ant": 2, "bee": 2})
    write_images(tmp_path / "b" / "val", {"ant": 2, "cat": 2})
    (error,) = quick_errors(tmp_path / "b")
    assert "b/train has no class folder cat" in error
    write_images(tmp_path / "c" / "images", {"ant": 2, "bee": 2})
    (error,) = quick_errors(tmp_path / "c")
    assert error.endswith(f"dataset.root={tmp_path}/c/images")


def test_settings_of_own_data_are_refused_where_nothing_reads_them():
    errors = read(compose(["dataset=digits", "dataset.test_fraction=0.3", *PAIR]))[0]
    assert errors == ["dataset.test_fraction: nothing of dataset=digits reads it; leave it out"]


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_images_are_turned_as_the_camera_was_held(tmp_path, suffix):
    pixels = np.zeros((8, 16, 3), np.uint8)
    pixels[:, 8:] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter to the right, to be seen upright
    path = tmp_path / f"x.{suffix}"
    Image.fromarray(pixels).save(path, exif=exif, **({"quality": 100} if suffix != "png" else {}))
    upright = load_image(path, upright=True)
    assert upright.shape == (3, 16, 8) and upright[:, :8].max() < 40 and upright[:, 8:].min() > 215
    if suffix != "tif":  # which Pillow turns in any case
        assert load_image(path).shape == (3, 8, 16)


def test_images_of_every_kind_become_rgb_of_8_bits(tmp_path):
    grey = Image.fromarray(np.full((6, 9), 200, np.uint8))
    kinds = {
        "grey.png": grey,
        "rgba.png": grey.convert("RGBA"),
        "grey_alpha.png": grey.convert("LA"),
        "palette.png": grey.convert("P"),
        "bits.png": Image.new("1", (9, 6), 1),
        "deep.png": Image.fromarray(np.full((6, 9), 200 * 256, np.uint16)),
        "grey.jpg": grey,
        "cmyk.jpg": grey.convert("RGB").convert("CMYK"),
        "palette.gif": grey.convert("P"),
    }
    for name, image in kinds.items():
        image.save(tmp_path / name)
        read_back = load_image(tmp_path / name, upright=True)
        assert read_back.shape == (3, 6, 9) and read_back.dtype == torch.uint8, name
        value = 255 if name == "bits.png" else 200
        assert (read_back.int() - value).abs().max() <= 3, name


def test_a_run_does_not_go_on_with_other_images(tmp_path):
    (tmp_path / "data.json").write_text('{"train": {"split": {"how": "x", "images": {"train": 8, "test": 2}}}}')
    refuse_other_data(tmp_path, {"train": {"split": {"how": "x", "images": {"train": 8, "test": 2}}}})
    with pytest.raises(DataError, match="8 train, 2 test then, 9 train, 2 test now"):
        refuse_other_data(tmp_path, {"train": {"split": {"how": "x", "images": {"train": 9, "test": 2}}}})

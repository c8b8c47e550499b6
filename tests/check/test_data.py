"""Data that is wrong is told in the list of errors, before a run begins."""

import json

import numpy as np
import pytest
from data_fixtures import folders, write_images
from omegaconf import OmegaConf
from PIL import Image

from distill_app import run as run_config
from distill_app.check.quick import fill_in
from distill_app.config.tree import compose

NETS = ("model@teacher=plain_8_16", "model@student=plain_8_16", "stage=digits", "runtime.threads=1")
PAIR = (*NETS, "prelude=none", "teacher.allow_random=true")
NO_CROP = ("dataset.train_transform=[]", "dataset.eval_transform=[]")


def of_folder(root, *overrides):
    return ("dataset=imagefolder", f"dataset.root={root}", "dataset.image_size=32", *PAIR, *overrides)


def of_published(root, *overrides):
    """As `of_folder`, of class folders in two places, as ImageNet comes."""
    words = ("dataset=imagenet", f"dataset.root={root}", "dataset.num_classes=???", "dataset.image_size=32")
    return (*words, *PAIR, *overrides)


def labelled(train, test, *, num_classes=3, classes=(None, None)):
    """A data set of one's own: the labels, and names of classes, of train and of test."""
    own = [
        {"_target_": "data_fixtures.Labelled", "labels": labels, "kept": True, "classes": names}
        for labels, names in zip((train, test), classes, strict=True)
    ]
    return {"train": own[0], "test": own[1], "num_classes": num_classes}


@pytest.fixture
def written(tmp_path):
    """Writes a data set option of one's own; returns the overrides and the folder that choose it."""

    def write(content):
        whole = {"name": "own", "image_size": 32, "task": {"_target_": "distill_app.tasks.Classification"}, **content}
        (tmp_path / "conf" / "dataset").mkdir(parents=True, exist_ok=True)
        OmegaConf.save(OmegaConf.create(whole), tmp_path / "conf" / "dataset" / "own.yaml")
        return ("dataset=own", "runtime.allow=[data_fixtures]", *PAIR), [str(tmp_path / "conf")]

    return write


@pytest.fixture
def own_errors(written, errors_of):
    """The errors of a data set of one's own."""

    def errors(content, *overrides):
        words, folder = written(content)
        return errors_of(*words, *overrides, config_dirs=folder)

    return errors


@pytest.mark.slow
def test_a_folder_of_images_passes_and_its_classes_are_counted(tmp_path, errors_of):
    root = folders(tmp_path, ("ant", "bee", "cat"))
    assert errors_of(*of_folder(root)) == []
    cfg = compose(of_folder(root))
    assert OmegaConf.is_missing(cfg.dataset, "num_classes")
    fill_in(cfg)
    assert cfg.dataset.num_classes == cfg.student.net.num_classes == 3


@pytest.mark.slow
def test_classes_are_counted_wherever_the_number_is_left_open(tmp_path, errors_of):
    root = folders(tmp_path, [f"class{number}" for number in range(9)])
    assert errors_of(*of_folder(root), "dataset.num_classes=9") == []
    words = ("dataset=imagenet", f"dataset.root={root}", "dataset.image_size=32", *PAIR)
    (error,) = errors_of(*words)
    assert error.startswith("dataset.num_classes: 1000 was given") and error.endswith("set dataset.num_classes=9")
    assert errors_of(*words, "dataset.num_classes=???") == []


@pytest.mark.slow
def test_images_of_own_data_that_cannot_be_read_are_told_before_the_first_batch(tmp_path, errors_of):
    root = folders(tmp_path)
    (root / "train" / "cat" / "002.png").write_bytes(b"no image")
    whole = (root / "train" / "dog" / "003.png").read_bytes()
    (root / "train" / "dog" / "003.png").write_bytes(whole[: len(whole) // 2])
    (error,) = errors_of(*of_folder(root))
    assert error.startswith("dataset.train: 2 of the 12 images that were looked at cannot be read, first image 2 (")
    assert "cat/002.png" in error and "runtime.corrupt_images=skip" in error
    assert errors_of(*of_folder(root), "runtime.corrupt_images=skip") == []


def test_a_folder_that_is_not_there_is_told_and_not_that_the_number_is_missing(tmp_path, errors_of):
    (error,) = errors_of(*of_folder(tmp_path / "nowhere"))
    assert error.startswith(f"dataset.root: {tmp_path}/nowhere is not there")


def test_a_number_that_nothing_can_be_counted_for_is_missing(errors_of):
    (error,) = errors_of("dataset=digits", "dataset.num_classes=???", *PAIR)
    assert error == "dataset.num_classes: is missing; set it: 'dataset.num_classes=...'"


@pytest.mark.slow
@pytest.mark.parametrize("count", [5, 20])
def test_a_data_set_that_names_its_classes_has_as_many(errors_of, count):
    (error,) = errors_of("dataset=digits", f"dataset.num_classes={count}", *PAIR)
    assert error.startswith(
        f"dataset.num_classes: {count} was given, and BundledImages of dataset.train has 10 classes"
    )
    assert error.endswith("set dataset.num_classes=10")


@pytest.mark.slow
def test_classes_of_another_order_in_test_are_an_error(own_errors):
    (error,) = own_errors(labelled([0, 1], [0, 1], num_classes=2, classes=(["a", "b"], ["b", "a"])))
    assert error.startswith("dataset.test: ") and "label 0 is 'a' in train and 'b' in test" in error
    (error,) = own_errors(labelled([0, 1], [0, 1], num_classes=2, classes=(["a", "b"], ["a", "b", "c"])))
    assert "label 2 is None in train and 'c' in test" in error


@pytest.mark.slow
def test_labels_of_both_splits_are_looked_at(own_errors):
    assert own_errors(labelled([0, 1, 2], [0, 1, 2])) == []
    train, test = own_errors(labelled([1, 2, 3], [0, 1, -1]))
    assert train.startswith("dataset.train: labels go from 1 to 3, and num_classes=3 means 0 to 2")
    assert test.startswith("dataset.test: labels go from -1 to 1")


def test_errors_of_data_are_told_once_though_several_stages_read_them(own_errors):
    (error,) = own_errors(labelled([1, 2, 3], [0, 1]), "prelude=comparison")
    assert error.startswith("dataset.train: labels go from 1 to 3")


@pytest.mark.slow
def test_a_task_may_judge_labels_in_its_own_way_or_not_at_all(own_errors):
    content = labelled([0, 1, 2, 7, 8], [0, 1])
    assert len(own_errors(content)) == 1
    assert own_errors({**content, "task": {"_target_": "data_fixtures.AnyLabel"}}) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (
            ["dataset.student_labels_per_class=1000"],
            "dataset.student_labels_per_class: 1000 was given, but class 4 has 98 training images (and 9 more classes "
            "too few); lower it to 98, or set null for all",
        ),
        (
            ["method.stages.distill.labels_per_class=1000"],
            "method.stages.distill.labels_per_class: 1000 was given, but class 4 has 98",
        ),
        (
            ["dataset.student_labels_per_class=0"],
            "dataset.student_labels_per_class: at least 1, or null",
        ),
        (["dataset.validation_fraction=0.0001"], "dataset.validation_fraction: 0.0001 of 1200 images in 10 classes"),
        (["stage.drop_last=true", "stage.batch_size=500"], "stage.drop_last: 100 samples do not fill one batch of 500"),
        (["dataset.num_classes=-3"], "dataset.num_classes: must be at least 1, got -3"),
    ],
)
def test_splits_and_budgets_that_the_data_cannot_give_are_in_the_list(errors_of, overrides, expected):
    error = errors_of("dataset=digits", *PAIR, *overrides)[0]
    assert error.startswith(expected)


def test_a_budget_and_other_things_that_are_wrong_are_in_one_list(errors_of):
    found = errors_of(
        "dataset=digits",
        *PAIR,
        "dataset.student_labels_per_class=1000",
        "dataset.eval_transform=[{_target_: torchvision.transforms.v2.RandomCrop, size: 99}]",
        "stage.lr=-1",
    )
    keys = [error.split(":")[0] for error in found]
    assert keys == ["stage.lr", "dataset.student_labels_per_class", "dataset.eval_transform"]


def test_nothing_is_left_behind_by_a_run_whose_data_are_wrong(tmp_path, distill):
    words = ("dataset=digits", *PAIR, "dataset.student_labels_per_class=1000", f"hydra.run.dir={tmp_path / 'run'}")
    code, _, err = distill(*words)
    assert code == 2 and err.count("student_labels_per_class") == 1
    assert not (tmp_path / "run" / "status.json").exists() and not (tmp_path / "run" / "train.log").exists()


@pytest.mark.slow
@pytest.mark.parametrize("split", ["train", "val"])
def test_one_image_of_another_size_among_many_is_found(tmp_path, errors_of, split):
    root = folders(tmp_path, train=40, val=40)
    assert errors_of(*of_folder(root, *NO_CROP)) == []
    Image.new("RGB", (48, 40)).save(root / split / "dog" / "017.png")
    (error,) = errors_of(*of_folder(root, *NO_CROP, "dataset.validation_fraction=0"))
    key = {"train": "dataset.train_transform", "val": "dataset.eval_transform"}[split]
    assert error.startswith(f"{key}: images come out in several sizes")
    assert "3x32x32 (image 0), 3x40x48 (image 57)" in error
    assert errors_of(*of_folder(root)) == []  # with crops to one size


@pytest.mark.slow
def test_a_task_that_collates_in_its_own_way_may_have_images_of_several_sizes(tmp_path, errors_of):
    root = folders(tmp_path, train=2)
    Image.new("RGB", (48, 40)).save(root / "val" / "dog" / "000.png")
    words = of_folder(root, *NO_CROP, "dataset.validation_fraction=0", "runtime.allow=[data_fixtures]")
    assert len(errors_of(*words)) == 1
    assert errors_of(*words, "dataset.task._target_=data_fixtures.OwnCollate") == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("transform", "expected"),
    [
        (
            "{_target_: torchvision.transforms.v2.RandomCrop, size: 64}",
            "dataset.train_transform: fails on an image of dataset.train: ValueError: Required crop size (64, 64)",
        ),
        (
            "{_target_: torchvision.transforms.v2.ToDtype, dtype: null}",
            "dataset.train_transform",
        ),
    ],
)
def test_a_transform_that_fails_on_the_images_is_in_the_list(errors_of, transform, expected):
    error = errors_of("dataset=digits", *PAIR, f"dataset.train_transform=[{transform}]")[0]
    assert error.startswith(expected)


def test_what_a_data_set_says_of_itself_is_told_in_its_own_words(own_errors):
    unwilling = {"_target_": "data_fixtures.Unwilling"}
    (error,) = own_errors({**labelled([0, 1, 2], [0]), "train": unwilling})
    assert error.startswith("dataset.train: data_fixtures.Unwilling: ")
    assert error.endswith("the index file is of another version")


def test_an_empty_data_set_is_an_error(errors_of):
    (error,) = errors_of("dataset=fake", *PAIR, "dataset.test.size=0")
    assert error == "dataset.test: FakeImages has no images"


def sixteen_bits(root):
    """Two classes that differ only in how bright they are, above 255."""
    for split in ("train", "val"):
        for name, level in (("dark", 4000), ("light", 44000)):
            write_images(root / split, {name: 0})
            for number in range(12):
                pixels = np.full((32, 32), level + 50 * number, dtype=np.uint16)
                Image.fromarray(pixels).save(root / split / name / f"{number:02}.png")
    return root


@pytest.mark.slow
def test_images_of_sixteen_bits_can_be_learnt_from(tmp_path):
    root = sixteen_bits(tmp_path / "data")
    words = of_folder(root, *NO_CROP, "method=ce", "stage.epochs=20", "stage.batch_size=8", "tracker=none")
    summary = run_config(compose(words), output_dir=str(tmp_path / "run"))
    assert summary["rows"][0]["accuracy"] == 1.0
    identity = json.loads((tmp_path / "run" / "data.json").read_text())["train"]
    assert identity["classes"] == ["dark", "light"]


def test_a_reader_that_would_cut_sixteen_bits_off_is_an_error(tmp_path, errors_of):
    root = sixteen_bits(tmp_path)
    words = of_published(root, *NO_CROP, "dataset.train._target_=torchvision.datasets.ImageFolder")
    (error,) = errors_of(*words)
    assert error.startswith(f"dataset.train: {root}/train/dark/00.png has more than 8 bits a pixel (mode I;16)")
    assert "use distill_app.data.ImageFolder" in error


@pytest.mark.slow
def test_images_whose_white_nobody_knows_are_an_error_by_name(tmp_path, errors_of):
    root = folders(tmp_path)
    for file in (root / "train" / "cat").iterdir():
        Image.fromarray(np.ones((32, 32), dtype=np.float32)).save(file.with_suffix(".tif"))
        file.unlink()
    (error,) = errors_of(*of_folder(root, *NO_CROP))
    assert error.startswith(f"dataset.train: {root}/train/cat/") and "+dataset.train.white=1.0" in error
    assert errors_of(*of_folder(root, *NO_CROP, "+dataset.train.white=1.0")) == []


def test_an_image_that_cannot_be_read_is_left_to_the_policy_of_the_run(tmp_path, errors_of):
    root = folders(tmp_path)
    (root / "train" / "cat" / "004.png").write_bytes(b"no image")
    assert errors_of(*of_published(root)) == []


@pytest.mark.slow
def test_what_is_not_read_is_told_in_the_plan_and_in_the_log(tmp_path, distill):
    root = folders(tmp_path / "data")
    (root / "train" / "cat" / "notes.txt").write_bytes(b"x")
    (root / "train" / ".ipynb_checkpoints").mkdir()
    code, out, _ = distill(*of_folder(root), "dry_run=true")
    assert code == 0
    assert out.count("warning: dataset.train: 1 files are not read as images (1 .txt;") == 1
    assert "warning: dataset.train: 1 hidden folders are no classes and are not read: train/.ipynb_checkpoints" in out
    code, _, err = distill(*of_folder(root), "debug=one_batch", f"hydra.run.dir={tmp_path / 'run'}")
    assert code == 0 and "cat/notes.txt" in err
    assert (tmp_path / "run" / "train.log").read_text().count("cat/notes.txt") == 1


@pytest.mark.slow
def test_classes_without_images_are_told_and_no_error(own_errors, written, distill):
    content = labelled([0, 1, 1], [0, 3], num_classes=4)
    assert own_errors(content) == []
    words, (folder,) = written(content)
    code, out, _ = distill("--config-dir", folder, *words, "dry_run=true")
    assert code == 0
    assert "warning: dataset: no training image of 2 of the 4 classes: 2, 3" in out
    assert "warning: dataset: test images of a class without training images: 3" in out


@pytest.mark.slow
def test_a_share_for_validation_that_the_data_have_a_part_for_is_told(tmp_path, distill):
    root = folders(tmp_path)
    told = "warning: dataset.validation_fraction: 0.3 is not used, the data have a part for that"
    code, out, _ = distill(*of_folder(root, "dataset.validation_fraction=0.3"), "dry_run=true")
    assert code == 0 and told not in out  # beside a part for the test it is
    write_images(root / "test", {"cat": 3, "dog": 3})
    code, out, _ = distill(*of_folder(root, "dataset.validation_fraction=0.3"), "dry_run=true")
    assert code == 0 and out.count(told) == 1
    code, out, _ = distill(*of_folder(root), "dry_run=true")
    assert code == 0 and "validation_fraction" not in out and "judged on validation" in out

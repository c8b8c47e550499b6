"""Every shipped conf/dataset file: it fits the schema, its targets exist, its images come out as promised."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import get_object, instantiate
from omegaconf import OmegaConf
from PIL import Image

from distill_app.config.groups import conf_dir
from distill_app.config.schema import DatasetConf
from distill_app.data import Samples, budget, hold_out, labels_of

FILES = sorted((Path(__file__).parents[2] / "conf" / "dataset").glob("*.yaml"))
# What the files leave to be found, or said.
OPEN = {
    "imagefolder": {"num_classes": 2},
    "csv": {"num_classes": 2},
    "huggingface": {"num_classes": 2},
    "coco_format": {"num_classes": 2},
    "segmentation_folder": {"num_classes": 2},
}
OFFLINE = ["digits", "fake", "fashion_mini"]


def load(name, **changes):
    """The file, mounted below another key than its own, as a stage's `data` is."""
    file = next(path for path in FILES if path.stem == name)
    dataset = OmegaConf.merge(OmegaConf.structured(DatasetConf), OmegaConf.load(file), changes)
    root = OmegaConf.create({"method": {"stages": {"distill": {"data": dataset}}}})
    OmegaConf.resolve(root)
    return root.method.stages.distill.data


def targets(node):
    if isinstance(node, dict):
        if "_target_" in node:
            yield node["_target_"]
        node = list(node.values())
    if isinstance(node, list):
        for part in node:
            yield from targets(part)


def make_samples(conf, split, dataset):
    transforms = [instantiate(item) for item in getattr(conf, f"{split}_transform")]
    return Samples(dataset, transforms=transforms, seed=0, stage="distill")


def test_the_promised_data_sets_are_there():
    assert {file.stem for file in FILES} >= {
        "cifar10",
        "cifar100",
        "digits",
        "fake",
        "fashion_mini",
        "fashion_mnist",
        "imagenet",
    }


@pytest.mark.parametrize("name", [file.stem for file in FILES])
def test_file_fits_the_schema_and_its_targets_import(name):
    conf = OmegaConf.to_container(load(name, **OPEN.get(name, {})))
    assert conf["name"] == name and conf["num_classes"] >= 1 and len(conf["normalize"]["mean"]) == 3
    assert (conf["root"] is None) == (conf["get"] is None)
    found = [t for t in targets(conf) if t != "distill_app.tasks.Classification"]
    assert len(found) >= 3
    assert all(callable(get_object(target)) for target in found)
    assert next(file for file in FILES if file.stem == name).read_text().startswith("# ")


@pytest.mark.parametrize("name", OFFLINE)
def test_data_set_without_download_gives_both_splits(name):
    conf = load(name)
    for split in ("train", "test"):
        dataset = instantiate(conf[split])
        sample = make_samples(conf, "train" if split == "train" else "eval", dataset)[(3, 0)]
        assert sample["input"].shape == (3, conf.image_size, conf.image_size)
        assert sample["input"].dtype == torch.uint8 and 0 <= sample["target"] < conf.num_classes
    labels = labels_of(instantiate(conf.train))
    train, validation = hold_out(labels, fraction=conf.validation_fraction)
    assert len(validation) and not set(train) & set(validation)
    assert len(budget(labels, train, per_class=conf.student_labels_per_class)) > 0


@pytest.mark.parametrize(("name", "image_size"), [("digits", 16), ("fashion_mini", 28), ("fake", 64)])
def test_image_size_reaches_images_and_transforms(name, image_size):
    conf = load(name, image_size=image_size)
    sample = make_samples(conf, "train", instantiate(conf.train))[(0, 0)]
    assert sample["input"].shape == (3, image_size, image_size)


@pytest.mark.parametrize("split", ["train", "eval"])
@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("cifar10", Image.new("RGB", (32, 32))),
        ("cifar100", Image.new("RGB", (32, 32))),
        ("fashion_mnist", Image.new("L", (28, 28))),
        ("imagenet", Image.new("RGB", (500, 375))),
        ("imagefolder", Image.new("RGB", (500, 375))),
        ("csv", Image.new("L", (100, 375))),
        ("huggingface", Image.new("RGBA", (40, 30))),
    ],
)
def test_transforms_turn_what_the_data_set_yields_into_uint8_of_the_size(name, image, split):
    conf = load(name, **OPEN.get(name, {}))
    sample = make_samples(conf, split, [(image, 1)])[(0, 0)]
    assert sample["input"].shape == (3, conf.image_size, conf.image_size)
    assert sample["input"].dtype == torch.uint8


def test_statistics_are_those_of_the_bundled_images():
    conf = load("digits")
    pixels = instantiate(conf.train).images.double() / 255
    assert np.allclose([pixels.mean(), pixels.std()], [conf.normalize.mean[0], conf.normalize.std[0]], atol=1e-4)


def test_data_folder_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("DISTILL_DATA", "/somewhere else")
    conf = load("cifar10")
    assert conf.root == conf.train.root == "/somewhere else/cifar10"
    assert "CIFAR10('/somewhere else/cifar10', download=True)" in conf["get"]


def test_the_config_tree_ships_these_files():
    assert (Path(conf_dir()) / "dataset" / "digits.yaml").is_file()

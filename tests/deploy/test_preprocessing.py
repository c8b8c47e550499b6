"""Preprocessing: the same pixels as in the evaluation of a run, from any kind of image, and as plain values."""

import itertools
import json

import numpy as np
import pytest
import torch
from engine_fixtures import resolved
from PIL import Image

from distill_app.config.schema import to_app
from distill_app.deploy.preprocessing import Preprocessing
from distill_app.errors import ConfigError, SettingError, UsageError
from distill_app.training.experiment import Experiment


def of(*overrides):
    return Preprocessing.of_dataset(to_app(resolved(*overrides, base=("prelude=none",))).dataset)


@pytest.fixture
def image():
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 70, 3), np.uint8))


@pytest.mark.slow
def test_pixels_are_those_of_the_runs_own_evaluation():
    config = resolved("dataset=fashion_mini", "model@student=plain_8_16", base=("prelude=none",))
    with Experiment.of(config) as experiment:
        (plan,) = experiment.plans
        batch = next(iter(experiment.data.test(plan)))
        expected = experiment.task(plan).prepare(batch, device=torch.device("cpu"))["input"][:4]
        data = experiment.data.dataset(plan, "test")
        made = Preprocessing.of_dataset(plan.data).batch(data[i][0] for i in range(4))
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-6)


def turned_photo(path):
    """A JPEG whose right half is white, and whose EXIF data say to turn it a quarter to the right."""
    exif, pixels = Image.Exif(), np.zeros((40, 60, 3), np.uint8)
    exif[0x0112], pixels[:, 30:] = 6, 255
    Image.fromarray(pixels).save(path, exif=exif)


@pytest.mark.slow
def test_photographs_are_turned_as_in_the_runs_own_evaluation(tmp_path):
    for label, number in itertools.product(("ant", "bee"), range(10)):
        (tmp_path / label).mkdir(exist_ok=True)
        turned_photo(tmp_path / label / f"{number}.jpg")
    config = resolved(
        "dataset=imagefolder",
        f"dataset.root={tmp_path}",
        "dataset.num_classes=2",
        "dataset.image_size=32",
        "model@student=plain_8_16",
        base=("prelude=none",),
    )
    with Experiment.of(config) as experiment:
        (plan,) = experiment.plans
        batch = next(iter(experiment.data.test(plan)))
        expected = experiment.task(plan).prepare(batch, device=torch.device("cpu"))["input"][0]
        how = Preprocessing.of_dataset(plan.data)
    assert how.upright and expected[:, -1].min() > expected[:, 0].max(), "what was right is below"
    photo = tmp_path / "ant" / "0.jpg"
    torch.testing.assert_close(how(photo), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(how(Image.open(photo)), expected, rtol=0, atol=0.1)  # Pillow's own decoder
    again = Preprocessing.of(json.loads(json.dumps(how.described())), source="file")
    assert torch.equal(again(photo), how(photo))


def test_an_export_that_does_not_say_whether_photographs_are_turned_leaves_them(tmp_path):
    turned_photo(tmp_path / "x.jpg")
    told = of("dataset=digits").described()
    assert told.pop("upright") is False
    first, turned = (Preprocessing.of({**told, **more}, source="net.json") for more in ({}, {"upright": True}))
    assert not first.upright and first.pixels(tmp_path / "x.jpg").shape == (3, 40, 60)
    assert turned.pixels(tmp_path / "x.jpg").shape == (3, 60, 40)


def test_images_of_any_size_come_out_as_one_where_the_data_have_one_by_themselves(image):
    how = of("dataset=digits")
    assert [each["_target_"].rpartition(".")[2] for each in how.transforms] == ["Resize", "CenterCrop"]
    assert how(image).shape == (3, 8, 8)
    exact = image.resize((8, 8))
    plain = (torch.from_numpy(np.array(exact)).permute(2, 0, 1) / 255 - 0.3058) / 0.3755
    torch.testing.assert_close(how(exact), plain)


@pytest.mark.slow
def test_transforms_that_make_a_size_are_left_alone(image):
    how = of("dataset=imagefolder", "dataset.num_classes=3", "dataset.image_size=64", "dataset.root=.")
    assert len(how.transforms) == 2 and how(image).shape == (3, 64, 64)


def test_paths_pillow_images_tensors_and_arrays_are_the_same_image(image, tmp_path):
    how = of("dataset=digits")
    image.save(tmp_path / "image.png")
    array = np.array(image)
    kinds = [tmp_path / "image.png", str(tmp_path / "image.png"), torch.from_numpy(array).permute(2, 0, 1), array]
    first, *others = [how(kind) for kind in kinds]
    assert all(torch.equal(first, other) for other in others)
    torch.testing.assert_close(how(image), first, rtol=0, atol=0.03)  # Pillow rounds between two passes


@pytest.mark.slow
def test_grey_and_transparent_images_have_the_channels_that_the_network_takes(image):
    assert of("dataset=digits")(image.convert("L")).shape == (3, 8, 8)
    assert of("dataset=digits")(image.convert("RGBA")).shape == (3, 8, 8)
    grey = of("dataset=digits", "dataset.channels=1")
    assert grey(image).shape == (1, 8, 8) and grey.described()["channels"] == 1


def test_it_comes_back_from_a_file_as_it_was(image):
    how = of("dataset=digits")
    again = Preprocessing.of(json.loads(json.dumps(how.described())), source="file")
    assert torch.equal(again(image), how(image))


@pytest.mark.parametrize(
    "change", [{"mean": "a"}, {"std": None}, {"transforms": 3}, {"channels": "x"}, {"size": []}, {"upright": 1}]
)
def test_a_file_that_says_it_wrong_is_refused(change):
    told = {**of("dataset=digits").described(), **change}
    with pytest.raises(UsageError, match=r"net\.json does not say how images are prepared"):
        Preprocessing.of(told, source="net.json")


def test_a_file_may_build_nothing_but_transforms(image):
    told = {**of("dataset=digits").described(), "transforms": [{"_target_": "os.system", "command": "true"}]}
    with pytest.raises(ConfigError, match="outside what may be built"):
        Preprocessing.of(told, source="net.json")(image)


def test_images_of_several_sizes_are_no_batch(image):
    told = {**of("dataset=digits").described(), "transforms": []}
    with pytest.raises(SettingError, match="images of several sizes, 50 x 70, 70 x 50"):
        Preprocessing.of(told, source="net.json").batch([image, image.rotate(90, expand=True)])

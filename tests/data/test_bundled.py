"""The images that come with the installation."""

from importlib import resources

import numpy as np
import pytest
import torch

from distill_app.data import BundledImages, FakeImages


@pytest.mark.parametrize(
    ("name", "split", "size", "per_class"),
    [
        ("digits", "train", 1200, (100, 140)),
        ("digits", "test", 597, (40, 75)),
        ("fashion_mini", "train", 5000, (500, 500)),
        ("fashion_mini", "test", 2000, (200, 200)),
    ],
)
def test_bundled_split_has_its_size_and_balance(name, split, size, per_class):
    images = BundledImages(name, split, image_size=32)
    counts = np.bincount(images.targets)
    assert len(images) == len(images.targets) == len(images.images) == size
    assert len(counts) == len(images.classes) == 10
    assert per_class[0] <= counts.min() <= counts.max() <= per_class[1]


@pytest.mark.parametrize(
    ("name", "image_size"),
    [("digits", 8), ("digits", 16), ("fashion_mini", 28), ("fashion_mini", 32), ("fashion_mini", 64)],
)
def test_item_is_rgb_uint8_of_the_asked_size(name, image_size):
    image, label = BundledImages(name, "test", image_size=image_size)[3]
    assert image.dtype == torch.uint8 and image.shape == (3, image_size, image_size)
    assert torch.equal(image[0], image[2]) and image.max() > 200
    assert isinstance(label, int)


def test_padding_keeps_the_pixels_and_adds_black():
    native, _ = BundledImages("fashion_mini", "test", image_size=28)[0]
    padded, _ = BundledImages("fashion_mini", "test", image_size=32)[0]
    assert torch.equal(padded[:, 2:30, 2:30], native)
    assert padded.sum() == native.sum()


def test_upscaling_keeps_the_mean():
    native = BundledImages("digits", "test", image_size=8).images.float()
    large = BundledImages("digits", "test", image_size=32).images.float()
    assert native.max() == 255
    assert abs(native.mean() - large.mean()) < 0.5


def test_train_and_test_share_no_fashion_image():
    train = BundledImages("fashion_mini", "train", image_size=28).images.flatten(1).numpy()
    test = BundledImages("fashion_mini", "test", image_size=28).images.flatten(1).numpy()
    assert not {row.tobytes() for row in train} & {row.tobytes() for row in test}


def test_changing_an_item_in_place_leaves_the_data_set_alone():
    images = BundledImages("digits", "train", image_size=8)
    before = images.images.clone()
    images[0][0].zero_()
    assert torch.equal(images.images, before)


@pytest.mark.parametrize(
    ("name", "image_size", "needed"), [("digits", 28, "multiple of 8"), ("fashion_mini", 30, "28 or 32")]
)
def test_impossible_size_says_what_is_possible(name, image_size, needed):
    with pytest.raises(ValueError, match=f"dataset.image_size.*{needed}"):
        BundledImages(name, "train", image_size=image_size)


def test_unknown_name_and_split_list_what_there_is():
    with pytest.raises(ValueError, match="digits, fashion_mini"):
        BundledImages("mnist", "train", image_size=32)
    with pytest.raises(ValueError, match="train, test"):
        BundledImages("digits", "val", image_size=32)


def test_licences_lie_beside_the_images_and_the_whole_is_small():
    folder = resources.files("distill_app.data") / "bundled"
    assert "Zalando" in (folder / "LICENSE.fashion_mini.txt").read_text()
    assert "Alpaydin" in (folder / "LICENSE.digits.txt").read_text()
    assert sum(len(file.read_bytes()) for file in folder.iterdir()) < 3_500_000


def test_fake_images_repeat_differ_and_leave_the_generator_alone():
    state = torch.get_rng_state()
    train = FakeImages(20, image_size=9, num_classes=4, seed=0)
    test = FakeImages(20, image_size=9, num_classes=4, seed=1)
    assert torch.equal(train[5][0], train[5][0]) and train[5][0].shape == (3, 9, 9)
    assert not torch.equal(train[5][0], train[6][0]) and not torch.equal(train[5][0], test[5][0])
    assert np.bincount(train.targets).tolist() == [5, 5, 5, 5]
    assert torch.equal(state, torch.get_rng_state())

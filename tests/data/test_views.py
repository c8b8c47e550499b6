"""Several images per sample: rotated views from the wrapper to the rows that networks run on."""

from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import default_collate

from distill_app.adapters import SelectView
from distill_app.data import BundledImages, EpochOrder, RotatedViews, Samples, make_loader
from distill_app.tasks import Classification

CPU = torch.device("cpu")


def digits(**changes):
    return Samples(
        BundledImages("digits", "train", image_size=8), **({"transforms": [], "seed": 0, "stage": "a"} | changes)
    )


def task():
    return Classification(normalize=SimpleNamespace(mean=[0.1, 0.2, 0.3], std=[0.5, 0.6, 0.7]), num_classes=10)


def test_a_sample_holds_the_four_rotations_the_upright_one_first():
    plain, views = digits()[(5, 0)], RotatedViews(digits())[(5, 0)]
    image = plain["input"]
    assert views["input"].shape == (4, 3, 8, 8) and views["input"].dtype == torch.uint8
    assert views["input"][0].equal(image)
    assert views["input"][1].equal(image.transpose(1, 2).flip(1)), "a quarter turn against the clock"
    assert views["input"][2].equal(image.flip(1, 2))
    assert views["input"][1].rot90(-1, (1, 2)).equal(image) and views["input"][3].rot90(1, (1, 2)).equal(image)
    assert (views["target"], views["index"]) == (plain["target"], plain["index"])


def test_views_are_prepared_as_rows_grouped_by_image_with_one_label_an_image():
    samples = RotatedViews(digits())
    raw = default_collate(samples.__getitems__([(position, 0) for position in range(3)]))
    batch = task().prepare(raw, device=CPU)
    assert batch["input"].shape == (12, 3, 8, 8) and batch["target"].shape == batch["index"].shape == (3,)
    upright = task().prepare(default_collate(digits().__getitems__([(p, 0) for p in range(3)])), device=CPU)
    torch.testing.assert_close(SelectView()(batch["input"]), upright["input"], rtol=0, atol=0)
    torch.testing.assert_close(SelectView(view=2)(batch["input"]), upright["input"].flip(2, 3), rtol=0, atol=0)


def test_one_image_a_sample_is_prepared_as_before():
    raw = default_collate(digits().__getitems__([(0, 0), (1, 0)]))
    batch = task().prepare(raw, device=CPU)
    expected = (raw["input"][1, 2] / 255 - 0.3) / 0.7
    torch.testing.assert_close(batch["input"][1, 2], expected)


def test_views_of_an_augmented_image_are_views_of_the_same_augmentation():
    class Shuffle:
        def __call__(self, image):
            return image.flatten(1)[:, torch.randperm(64)].view(3, 8, 8)

    views = RotatedViews(digits(transforms=[Shuffle()]))[(0, 3)]["input"]
    assert views[2].flip(1, 2).equal(views[0])
    assert not views[0].equal(RotatedViews(digits(transforms=[Shuffle()]))[(0, 4)]["input"][0])


def test_views_are_the_same_with_workers():
    samples = RotatedViews(digits(indices=range(32)))
    batches = []
    for workers in (0, 2):
        order = EpochOrder(32, batch_size=16, seed=0, stage="a", shuffle=True)
        batches.append(next(iter(make_loader(samples, order=order, num_workers=workers, device=CPU))))
    assert batches[0]["input"].shape == (16, 4, 3, 8, 8)
    assert batches[0]["input"].equal(batches[1]["input"]) and batches[0]["index"].equal(batches[1]["index"])


def test_images_that_are_not_square_are_refused_with_what_to_do():
    samples = digits(transforms=[lambda image: image[:, :6]])
    with pytest.raises(ValueError, match=r"square images, got \(3, 6, 8\).*CenterCrop"):
        RotatedViews(samples)[(0, 0)]

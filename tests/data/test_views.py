"""Several images per sample: rotated views from the wrapper to the rows that networks run on."""

from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from torch.utils.data import default_collate
from torchvision.transforms.v2 import CenterCrop
from torchvision.transforms.v2.functional import to_pil_image

from distill_app.adapters import SelectView
from distill_app.data import BundledImages, EpochOrder, Mixup, RotatedViews, Samples, StrongView, make_loader
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


class Crop:
    """A random crop to six pixels, of tensors and of pictures."""

    def __call__(self, image):
        left, top = torch.randint(3, (2,)).tolist()
        return image.crop((left, top, left + 6, top + 6)) if isinstance(image, Image.Image) else image[:, :6, :6]


class Numbered:
    """Two images of 8 x 8 in which no two pixels are alike, as tensors or as pictures."""

    def __init__(self, *, pictures: bool = False):
        pixels = torch.arange(128, dtype=torch.uint8).view(2, 1, 8, 8).expand(2, 3, 8, 8)
        self.items = [to_pil_image(each) for each in pixels] if pictures else list(pixels)

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return self.items[index], index


def each(dataset, *transforms, **changes):
    return RotatedViews(Samples(dataset, transforms=transforms, **({"seed": 0, "stage": "a"} | changes)), each=True)


@pytest.mark.parametrize("pictures", [False, True], ids=["tensors", "pictures"])
def test_without_a_transform_it_is_the_same_whether_each_view_is_augmented_or_one(pictures):
    data = Numbered(pictures=pictures)
    views, expected = each(data)[(1, 0)], RotatedViews(Samples(data, seed=0, stage="a"))[(1, 0)]
    assert views["input"].equal(expected["input"]) and views["input"].dtype == torch.uint8
    assert (views["target"], views["index"]) == (1, 1)


def test_each_rotation_is_cropped_for_itself_and_the_upright_one_is_the_plain_sample():
    data = Numbered(pictures=True)
    seen = set()
    for view in range(8):
        found = each(data, Crop())[(0, view)]["input"]
        assert found.shape == (4, 3, 6, 6)
        assert found[0].equal(Samples(data, transforms=[Crop()], seed=0, stage="a")[(0, view)]["input"])
        # Turned back, a crop of the rotated image is one of the image: its least pixel says where it lies.
        seen.add(tuple(int(found[turns].rot90(-turns, (1, 2))[0].min()) for turns in range(4)))
    assert all(corner in (0, 1, 2, 8, 9, 10, 16, 17, 18) for corners in seen for corner in corners)
    assert len(seen) == 8 and any(len(set(corners)) > 1 for corners in seen)


def test_views_that_are_augmented_each_are_a_function_of_the_key():
    data, keys = Numbered(pictures=True), [(0, 0), (0, 1), (1, 0)]
    first, again = (each(data, Crop()).__getitems__(keys), each(data, Crop()).__getitems__(keys[::-1])[::-1])
    assert all(a["input"].equal(b["input"]) for a, b in zip(first, again, strict=True))
    assert not first[0]["input"].equal(first[1]["input"])
    assert not each(data, Crop(), seed=1)[(0, 0)]["input"].equal(first[0]["input"])


def test_images_that_are_not_square_may_be_rotated_before_they_are_cropped():
    class Wide(Numbered):
        def __getitem__(self, index):
            return self.items[index][:, :6], index

    assert each(Wide(), CenterCrop(5))[(0, 0)]["input"].shape == (4, 3, 5, 5)
    with pytest.raises(ValueError, match=r"several sizes, \(3, 6, 8\), \(3, 8, 6\).*crop to one size"):
        each(Wide())[(0, 0)]


def test_views_that_are_augmented_each_cannot_wrap_a_wrapper():
    with pytest.raises(ValueError, match="each=true has to be the first wrapper, not one around Mixup"):
        RotatedViews(Mixup(digits(), num_classes=10), each=True)


@pytest.mark.slow
def test_sskd_takes_either_by_one_key(composed):
    cfg = composed("method=sskd", "+method.params.views.each=true")
    assert [cfg.method.stages[name].wrappers.views.each for name in ("pretext", "distill")] == [True, True]
    assert "each" not in composed("method=sskd").method.params.views


def test_a_strong_view_stands_behind_the_weak_one_and_is_a_function_of_view_and_index():
    plain, views = digits()[(5, 0)], StrongView(digits())
    first, again, other = (views[(5, view)]["input"] for view in (0, 0, 1))
    assert first.shape == (2, 3, 8, 8) and first.dtype == torch.uint8
    assert first[0].equal(plain["input"]) and first.equal(again)
    strong = [views[(position, 0)]["input"] for position in range(20)]
    assert any(not image[1].equal(image[0]) for image in strong) and other.shape == first.shape


def test_a_strong_view_may_be_made_by_any_transform_that_keeps_size_and_type():
    negative = StrongView(digits(), transform=lambda image: 255 - image)[(3, 0)]["input"]
    assert (negative[0] + negative[1] == 255).all()
    with pytest.raises(ValueError, match=r"keeps size and type, got \(3, 4, 4\).*from \(3, 8, 8\)"):
        StrongView(digits(), transform=CenterCrop(4))[(3, 0)]

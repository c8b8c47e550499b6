"""Segmentation: figures of a confusion matrix, maps that move with their images, sizes, and what is refused."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torchvision import tv_tensors
from torchvision.transforms import v2

from distill_app.data import FashionSeg, MapCrop, Samples
from distill_app.errors import DataError
from distill_app.tasks import Segmentation
from distill_app.tasks.base import merged

NORMALIZE = SimpleNamespace(mean=[0.5, 0.25, 0.0], std=[1.0, 1.0, 1.0])
CPU = torch.device("cpu")


def task(num_classes=4, **options) -> Segmentation:
    return Segmentation(normalize=NORMALIZE, num_classes=num_classes, **options)


def batch_of(target: torch.Tensor) -> dict:
    return {"input": torch.zeros(len(target), 3, *target.shape[1:]), "target": target}


def answer_of(classes: torch.Tensor, num_classes: int = 4) -> torch.Tensor:
    return nn.functional.one_hot(classes, num_classes).permute(0, 3, 1, 2).float()


def test_figures_are_those_of_every_pixel_that_has_a_class():
    target = torch.tensor([[[0, 0, 1, 1], [0, 0, 255, 1]]])
    found = torch.tensor([[[0, 1, 1, 1], [0, 0, 2, 0]]])
    made = task()
    sums = made.start()
    made.add(sums, answer_of(found), batch_of(target))
    figures, details = made.figures(sums), made.details(sums)
    # Class 0: 3 of 4 pixels found and one too many; class 1: 2 of 3 and one too many; 2 is answered where nothing is.
    assert figures["mIoU"] == pytest.approx((3 / 5 + 2 / 4) / 2)
    assert figures["pixel_accuracy"] == pytest.approx(5 / 7) and "agreement" not in figures
    assert figures["mean_accuracy"] == pytest.approx((3 / 4 + 2 / 3) / 2)
    assert [line["IoU"] for line in details["per_class"]] == [3 / 5, 2 / 4, None, None]
    assert [line["pixels"] for line in details["per_class"]] == [4, 3, 0, 0] and details["images"] == 1


def test_a_class_that_is_answered_and_never_there_counts_as_missed():
    made = task()
    sums = made.start()
    made.add(sums, answer_of(torch.tensor([[[0, 3]]])), batch_of(torch.tensor([[[0, 0]]])))
    assert made.details(sums)["per_class"][3] == {"IoU": 0.0, "accuracy": None, "pixels": 0}
    assert made.figures(sums)["mIoU"] == pytest.approx((1 / 2 + 0) / 2)


def test_without_a_labelled_pixel_nothing_is_defined():
    made = task()
    sums = made.start()
    made.add(sums, answer_of(torch.zeros(1, 2, 2, dtype=torch.int64)), batch_of(torch.full((1, 2, 2), 255)))
    assert set(made.figures(sums).values()) == {None} == set(made.figures(made.start()).values())


def test_parts_of_several_processes_give_the_figures_of_all_to_the_bit():
    rng, made = np.random.default_rng(0), task()
    target = torch.from_numpy(rng.integers(0, 5, (6, 9, 7)))
    target[target == 4] = 255
    answers = [torch.from_numpy(rng.normal(size=(6, 4, 3, 4))).float() for _ in range(2)]

    def sums_of(rows: slice) -> dict:
        sums, batch = made.start(), batch_of(target[rows])
        made.add(sums, {"out": answers[0][rows], "aux": answers[1][rows]}, batch)
        made.compare(sums, {"out": answers[0][rows]}, answers[1][rows], batch)
        return sums

    whole = made.figures(sums_of(slice(None)))
    parts = merged([sums_of(slice(0, 1)), made.start(), sums_of(slice(1, 4)), sums_of(slice(4, 6))])
    assert made.figures(parts) == whole and 0 < whole["agreement"] < 1
    assert parts["confusion"].dtype == torch.int64 and int(parts["confusion"].sum()) == int((target != 255).sum())


def finished(made: Segmentation, image: torch.Tensor, target, index: int = 0) -> dict:
    return made.finish({"input": image, "target": target, "index": index})


def test_images_of_several_sizes_are_padded_by_their_mean_and_their_maps_by_no_class():
    made = task()
    samples = [
        finished(made, torch.full((3, h, w), 9, dtype=torch.uint8), tv_tensors.Mask(torch.ones(h, w).byte()), index)
        for index, (h, w) in enumerate([(4, 6), (5, 3)])
    ]
    batch = made.prepare(made.collate(samples), device=CPU)
    assert batch["input"].shape == (2, 3, 5, 6) and batch["target"].shape == (2, 5, 6)
    assert batch["index"].tolist() == [0, 1] and batch["target"].dtype == torch.int64
    assert (batch["target"][0, 4:] == 255).all() and (batch["target"][1, :, 3:] == 255).all()
    assert batch["input"][0, :, 4:].abs().max() < 0.01, "normalised, the mean is 0"
    wide = task(pad_to=8)
    assert wide.collate(samples)["input"].shape == (2, 3, 8, 8)
    assert made.varies(SimpleNamespace(sizes=[(4, 6), (5, 3)])) and not wide.varies(SimpleNamespace(sizes=[(4, 6)]))


class Borders(nn.Module):
    """Its answer depends on what lies around a pixel: padding would change it."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1, stride=2)

    def forward(self, images):
        return {"out": self.conv(images) + images.mean(dim=(1, 2, 3), keepdim=True)}


def test_an_evaluation_of_padded_images_is_that_of_each_image_by_itself():
    torch.manual_seed(0)
    made, network = task(), Borders()
    shapes = [(9, 12), (12, 8), (6, 6)]
    samples = []
    for index, (h, w) in enumerate(shapes):
        classes = tv_tensors.Mask(torch.randint(0, 4, (h, w), dtype=torch.uint8))
        samples.append(finished(made, torch.randint(0, 256, (3, h, w), dtype=torch.uint8), classes, index))
    together, alone = made.start(), made.start()
    with torch.no_grad():
        for sums, batches in ((together, [samples]), (alone, [[each] for each in samples])):
            for each in batches:
                batch = made.prepare(made.collate(each), device=CPU)
                made.add(sums, made.ask(network, batch, name="student"), batch)
    assert torch.equal(together["confusion"], alone["confusion"]) and together["images"] == 3


def test_sizes_of_which_batches_would_be_of_several_are_told():
    any_size, one_size = task(), task(pad_to=50)
    assert any_size.sizes_vary([(40, 50)] * 2) is None
    assert "dataset.task.pad_to" in any_size.sizes_vary([(40, 50), (50, 40)])
    assert one_size.sizes_vary([(40, 50), (50, 40)]) is None is one_size.sizes_vary([])
    assert "60 x 40 px behind the transforms" in one_size.sizes_vary([(40, 50), (60, 40)])


def test_transforms_move_image_and_map_alike():
    made = task(num_classes=11)
    transforms = [
        v2.RandomResize(60, 130),
        v2.RandomHorizontalFlip(p=1.0),
        v2.RandomAffine(degrees=20, fill={tv_tensors.Mask: 255, "others": 0}),
        MapCrop(100),
    ]
    data = FashionSeg("test", count=4, sides=(80, 112))
    samples = Samples(data, transforms=transforms, joint=True, finish=made.finish, seed=0, stage="train")
    for sample in samples.__getitems__([(index, 0) for index in range(4)]):
        image, target = sample["input"], sample["target"]
        assert image.shape == (3, 100, 100) and target.shape == (100, 100) and target.dtype == torch.uint8
        items = (target > 0) & (target < 255)
        # Items are bright on a dark background, wherever they are now.
        bright = image.float().mean(dim=0)
        assert items.any() and bright[items].mean() > bright[target == 0].mean() + 40
    still = Samples(data, joint=True, finish=made.finish, seed=0, stage="train")
    flipped = Samples(
        data, transforms=[v2.RandomHorizontalFlip(p=1.0)], joint=True, finish=made.finish, seed=0, stage=""
    )
    first, second = still[(0, 0)], flipped[(0, 0)]
    assert torch.equal(first["input"].flip(-1), second["input"])
    assert torch.equal(first["target"].flip(-1), second["target"])


def test_a_crop_larger_than_the_image_adds_pixels_of_no_class():
    image, target = MapCrop([8, 10])(
        tv_tensors.Image(torch.full((3, 6, 4), 7, dtype=torch.uint8)), tv_tensors.Mask(torch.zeros(6, 4).byte())
    )
    assert image.shape == (3, 8, 10) and target.shape == (8, 10)
    assert torch.equal(target == 255, (image == 0).all(dim=0)) and (target == 0).sum() == 24
    with pytest.raises(ValueError, match="size: a side or height and width"):
        MapCrop(0)


@pytest.mark.parametrize(
    ("target", "match"),
    [
        (torch.zeros(4, 5, dtype=torch.uint8), r"a target is a tensor \(4, 5\), and a map of classes as .*Mask"),
        (3, "a target is of type int"),
        (tv_tensors.Mask(torch.zeros(4, 4, dtype=torch.uint8)), "the map has 4 x 4 pixels, and its image 4 x 5"),
        (tv_tensors.Mask(torch.full((4, 5), 4, dtype=torch.uint8)), "classes go from 4 to 4, and num_classes=4 means"),
        (tv_tensors.Mask(torch.zeros(4, 5)), "of whole numbers"),
        (tv_tensors.Mask(torch.zeros(2, 4, 5, dtype=torch.uint8)), "of whole numbers"),
    ],
)
def test_what_is_no_map_of_the_image_is_refused(target, match):
    made, image = task(), torch.zeros(3, 4, 5, dtype=torch.uint8)
    with pytest.raises(DataError, match=match):
        finished(made, image, target)
    (problem,) = made.label_problems([(image, target)])
    assert problem.startswith("item 0: ")


def test_a_wrapper_that_changes_maps_or_images_alone_is_told():
    made, target = task(), torch.zeros(2, 4, 5, dtype=torch.int64)
    for batch in (
        {"input": torch.zeros(2, 3, 4, 5), "target": target.float()},  # Mixup
        {"input": torch.zeros(2, 4, 3, 4, 5), "target": target},  # RotatedViews
        {"input": torch.zeros(2, 3, 8, 8), "target": target},
    ):
        with pytest.raises(DataError, match=r"dataset\.wrappers: .*each image needs its map"):
            made.prepare(batch, device=CPU)


def test_networks_of_other_classes_or_answers_do_not_fit():
    made, batch = task(), batch_of(torch.zeros(1, 4, 4, dtype=torch.int64))
    assert "tells 5 classes apart, and there are 4" in made.misfit(torch.zeros(1, 5, 2, 2), batch)
    assert "a mapping with 'out' is needed" in made.misfit({"aux": torch.zeros(1, 4, 2, 2)}, batch)
    assert "(1, 4)" in made.misfit(torch.zeros(1, 4), batch)
    assert made.misfit({"out": torch.zeros(1, 4, 2, 2)}, batch) is None
    assert made.mismatch(torch.zeros(1, 4, 2, 2), torch.zeros(1, 3, 2, 2)) is not None
    with pytest.raises(ValueError, match="tells 5 classes apart"):
        made.add(made.start(), torch.zeros(1, 5, 2, 2), batch)
    with pytest.raises(ValueError, match="2 to 255 with the background, not 300"):
        task(num_classes=300)

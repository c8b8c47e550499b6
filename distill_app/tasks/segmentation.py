"""Semantic segmentation: a class for each pixel."""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import default_collate

from distill_app.data.map_files import IGNORED, MOST_CLASSES
from distill_app.data.maps import checked_map, map_problems, padded
from distill_app.data.samples import finished_image
from distill_app.errors import DataError
from distill_app.losses.pixels import outputs_of, resized_logits
from distill_app.runs.metrics import Metric
from distill_app.tasks.base import Batch, Sums
from distill_app.tasks.drawing import drawn_map
from distill_app.tasks.images import ImageTask


class Segmentation(ImageTask):
    """Images in, maps of logits (B, C, h, w) out: a tensor, or a mapping with `out` as torchvision's networks give it.

    A target is a `torchvision.tv_tensors.Mask` (H, W) of class numbers, 255 for pixels that are neither learnt nor
    judged; transforms of torchvision's v2 move image and map alike. Logits that are smaller than the map are
    interpolated to its size before the largest is taken.

    Images of several sizes are padded on the right and below by the mean colour, their maps by 255. In an evaluation
    each image of such a batch runs by itself and without padding, so that figures do not depend on its neighbours.

    Metrics: mIoU, the mean over classes of the intersection over union of all pixels of the data set; pixel_accuracy;
    mean_accuracy, the mean over classes of the share of their pixels that are found; agreement, the share of labelled
    pixels at which the class is the teacher's. Details: IoU and accuracy of each class. All come from one confusion
    matrix of whole numbers, so that they are exact over batches and processes. A class with neither a pixel nor an
    answer has no IoU and no part in the mean; one that is answered and never there has an IoU of 0.

    Args:
        normalize: `mean` and `std` per channel, of images scaled to [0, 1].
        num_classes: How many classes there are, the background among them.
        pad_to: In batches all images are padded at least to a square of this side in pixels; None: to the largest. A
            cache of maps needs one size, that of the crop.

    Raises:
        ValueError: More classes than maps have numbers for.
    """

    answer = "output.out"
    joint_transforms = True
    metrics = (
        Metric("mIoU", percent=True),
        Metric("pixel_accuracy", percent=True),
        Metric("mean_accuracy", percent=True, table=False, line=False),
        Metric("agreement", percent=True),
    )

    def __init__(self, *, normalize: Any, num_classes: int, pad_to: int | None = None):
        super().__init__(normalize=normalize, num_classes=num_classes)
        if not 2 <= num_classes <= MOST_CLASSES:
            raise ValueError(f"num_classes: 2 to {MOST_CLASSES} with the background, not {num_classes}")
        if pad_to is not None and pad_to < 1:
            raise ValueError(f"pad_to: a side in pixels, not {pad_to}")
        self.pad_to, self._fill = pad_to, self.mean.flatten().clone()

    def label_problems(self, dataset: Any) -> list[str]:
        """Targets of some items that are no maps, or name classes that there are not."""
        return map_problems(dataset, num_classes=self.num_classes)

    def varies(self, dataset: Any) -> str | None:
        return self._padding_problem(getattr(dataset, "sizes", ()))

    def sizes_vary(self, sizes: Collection[tuple[int, int]]) -> str | None:
        height, width = max(sizes, key=max, default=(0, 0))
        if self.pad_to is None or max(height, width) <= self.pad_to:
            return self._padding_problem(sizes)
        return (
            f"an image has {height} x {width} px behind the transforms, and its batch grows beyond dataset.task.pad_to="
            f"{self.pad_to}; raise dataset.task.pad_to, or end dataset.train_transform with a crop to that side"
        )

    def _padding_problem(self, sizes: Collection[tuple[int, int]]) -> str | None:
        if self.pad_to is not None or len(set(sizes)) < 2:
            return None
        return (
            "images of several sizes may be padded to the largest of their batch; set dataset.task.pad_to to the side "
            "that no image exceeds behind the transforms, such as that of their crop"
        )

    # A method here, where whole images have none: the map is looked at, too.
    def finish(self, sample: dict[str, Any]) -> dict[str, Any]:
        """Image and map as uint8.

        Raises:
            DataError: A target that is no map, one that transforms have left behind, or a class that there is not.
        """
        sample = finished_image(sample)
        name = f"item {sample['index']}"
        target = checked_map(sample["target"], sample["input"], num_classes=self.num_classes, name=name)
        return sample | {"target": target}

    def collate(self, samples: list[dict[str, Any]]) -> Batch:
        """One tensor of images and one of maps, padded where sizes differ, and `size` (B, 2), that of each before."""
        rest = [{key: value for key, value in each.items() if key not in ("input", "target")} for each in samples]
        if any(each["input"].dim() != 3 or each["target"].dim() != 2 for each in samples):
            return default_collate(samples)  # of a wrapper that makes several images of one; `prepare` says what fits
        return default_collate(rest) | padded(samples, fill=self._fill, pad_to=self.pad_to)

    def prepare(self, batch: Mapping[str, Any], *, device: torch.device) -> Batch:
        """As of all images; maps become int64.

        Raises:
            DataError: Maps that are not those of the images: a wrapper has changed one of them alone.
        """
        prepared = super().prepare(batch, device=device)
        images, target = prepared["input"], prepared["target"]
        if target.is_floating_point() or target.shape != (len(images), *images.shape[-2:]):
            raise DataError(
                f"dataset.wrappers: targets are {tuple(target.shape)} of {target.dtype} for images "
                f"{tuple(images.shape)}, and each image needs its map of whole numbers; leave out wrappers (also those "
                f"of the stage) that mix images or make several of one, such as Mixup, CutMix or RotatedViews"
            )
        return prepared | {"target": target.long()}

    def ask(self, network: nn.Module, batch: Mapping[str, Any], *, name: str) -> Any:
        """The logits of an evaluation, (B, C, H, W) or smaller; padding has no part in them."""
        images, sizes = batch["input"], batch.get("size")
        if sizes is None or bool((sizes == sizes.new_tensor(images.shape[-2:])).all()):
            return network(images)
        whole: Tensor | None = None
        for row, (height, width) in enumerate(sizes.tolist()):
            logits = outputs_of(network(images[row : row + 1, :, :height, :width]))["out"]
            if whole is None:
                whole = logits.new_zeros(len(images), logits.shape[1], *images.shape[-2:])
            whole[row, :, :height, :width] = resized_logits(logits, (height, width))[0]
        return whole

    def misfit(self, answer: Any, batch: Mapping[str, Any]) -> str | None:
        try:
            width = outputs_of(answer)["out"].shape[1]
        except ValueError as error:
            return f"gives no maps: {error}"
        if width == self.num_classes:
            return None
        return f"tells {width} classes apart, and there are {self.num_classes} (with the background)"

    def mismatch(self, answer: Any, other: Any) -> str | None:
        mine, theirs = (outputs_of(each)["out"].shape[1] for each in (answer, other))
        return None if mine == theirs else f"one tells {mine} classes apart and the other {theirs}"

    @property
    def scores(self) -> str:
        return "pixels"

    def start(self) -> Sums:
        shape = (self.num_classes, self.num_classes)
        return {"confusion": torch.zeros(shape, dtype=torch.int64), "images": 0, "same": 0, "compared": 0}

    def add(self, sums: Sums, answer: Any, batch: Mapping[str, Any]) -> None:
        if (problem := self.misfit(answer, batch)) is not None:
            raise ValueError(f"the network {problem}")
        target, found = batch["target"], self._classes(answer, batch)
        labelled = target != IGNORED
        places = target[labelled] * self.num_classes + found[labelled]
        counted = torch.bincount(places, minlength=self.num_classes**2).view(self.num_classes, -1)
        sums["confusion"] = sums["confusion"].to(counted.device) + counted
        sums["images"] += len(target)

    def compare(self, sums: Sums, answer: Any, other: Any, batch: Mapping[str, Any]) -> None:
        labelled = batch["target"] != IGNORED
        same = self._classes(answer, batch) == self._classes(other, batch)
        sums["same"] += (same & labelled).sum()
        sums["compared"] += labelled.sum()

    def _classes(self, answer: Any, batch: Mapping[str, Any]) -> Tensor:
        height, width = batch["target"].shape[-2:]
        return resized_logits(outputs_of(answer)["out"].float(), (height, width)).argmax(dim=1)

    def figures(self, sums: Sums) -> dict[str, Any]:
        confusion = sums["confusion"]
        found = {
            "mIoU": _mean(_shares(confusion)),
            "pixel_accuracy": _share(int(confusion.trace()), int(confusion.sum())),
            "mean_accuracy": _mean(_recalls(confusion)),
        }
        compared = int(sums["compared"])
        return found | ({"agreement": int(sums["same"]) / compared} if compared else {})

    def draw(self, batch: Mapping[str, Any], answer: Any) -> list[Tensor]:
        """The class of every pixel, in its colour; pixels that are not judged are white in the truth."""
        images = batch["input"] * self.std.to(batch["input"]) + self.mean.to(batch["input"])
        maps = batch["target"] if answer is None else self._classes(answer, batch)
        sizes = batch.get("size", images.new_tensor(images.shape[-2:]).expand(len(images), 2)).long().tolist()
        return [
            drawn_map(image[:, :height, :width], classes[:height, :width], ignored=IGNORED)
            for image, classes, (height, width) in zip(images, maps, sizes, strict=True)
        ]

    def details(self, sums: Sums) -> dict[str, Any]:
        """`per_class`: IoU, accuracy and the number of pixels of each class."""
        confusion = sums["confusion"]
        columns = zip(_shares(confusion), _recalls(confusion), confusion.sum(dim=1).tolist(), strict=True)
        lines = [{"IoU": iou, "accuracy": accuracy, "pixels": pixels} for iou, accuracy, pixels in columns]
        return {"images": int(sums["images"]), "per_class": lines}


def _shares(confusion: Tensor) -> list[float | None]:
    """The intersection over union of each class; None where there is neither a pixel nor an answer of it."""
    both = confusion.diagonal()
    union = confusion.sum(dim=0) + confusion.sum(dim=1) - both
    return [_share(*each) for each in zip(both.tolist(), union.tolist(), strict=True)]


def _recalls(confusion: Tensor) -> list[float | None]:
    pairs = zip(confusion.diagonal().tolist(), confusion.sum(dim=1).tolist(), strict=True)
    return [_share(*each) for each in pairs]


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _mean(values: list[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else None

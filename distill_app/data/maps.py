"""Data sets of images with a map of classes, a number for each pixel; and how such samples become batches."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.data import Dataset
from torchvision import tv_tensors

from distill_app.data.images import load_image
from distill_app.data.looks import some_items
from distill_app.data.map_files import IGNORED, coded, map_listing, read_map, sizes_of
from distill_app.errors import DataError
from distill_app.words import some


class MapImages(Dataset):
    """Image files with maps of classes; items are (image, map): a tv_tensors.Image and a uint8 tv_tensors.Mask (H, W).

    Args:
        files: Image and map of each item.
        classes: Names, in the order of their numbers.
        values: The number that stands for each class in the files; None: the class itself.
        notes: What may be a mistake, for the log.
    """

    def __init__(
        self,
        files: Sequence[tuple[str, str]],
        *,
        classes: Sequence[str],
        values: Sequence[int] | None = None,
        notes: Sequence[str] = (),
    ):
        self.pairs, self.classes = list(files), list(classes)
        self.values, self._notes = values, list(notes)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        file, place = self.pairs[index]
        image = load_image(file)
        classes = coded(self.raw_map(place), num_classes=len(self.classes), values=self.values, name=place)
        if classes.shape != tuple(image.shape[-2:]):
            there, needed = (" x ".join(map(str, size)) for size in (classes.shape, image.shape[-2:]))
            raise ValueError(f"{place} has {there} pixels (height x width), and its image {needed}")
        return tv_tensors.Image(image), tv_tensors.Mask(torch.from_numpy(classes))

    def raw_map(self, place: str) -> np.ndarray:
        """The numbers of a file, int32 (H, W)."""
        return read_map(place)

    @cached_property
    def sizes(self) -> list[tuple[int, int]]:
        """Height and width of every image, by its header."""
        return [sizes_of(file, file)[0] for file, _ in self.pairs]

    @property
    def files(self) -> list[str]:
        """The file of every image."""
        return [file for file, _ in self.pairs]

    def notes(self) -> list[str]:
        """What may be a mistake and lets a run go on."""
        return self._notes


class MapFolder(MapImages):
    """A folder `images` and a folder `masks`, with parts in or above them; items are as those of `MapImages`.

    Maps are PNG or another lossless format of grey values or of a palette, as large as their images. Before anything
    trains every image has to have its map, and the headers of all have to agree in size.

    Args:
        root: The folder.
        split: `train`, whose images of validation come along, or `test`.
        splits: Part -> name of its folder, where that is none of the usual ones.
        classes: Names in the order of their numbers; None: a line each of `classes.txt`, else counted in the maps.
        values: The number that stands for each class in the files, such as [0, 255]; None: the class itself.
        test_fraction: The share that is tested, where there are no parts; None: 0.2.
        split_seed: What draws it.

    Attributes:
        validation: Positions of the images that are there to validate, None if the folder has none of its own.
        division: How all images fall into parts, as a run records it.

    Raises:
        DataError: No such folders, images without a map, maps of another size, or maps that cannot be read or counted.
    """

    def __init__(
        self,
        root: str,
        *,
        split: str,
        splits: Mapping[str, str | None] | None = None,
        classes: Sequence[str] | None = None,
        values: Sequence[int] | None = None,
        test_fraction: float | None = None,
        split_seed: int = 0,
    ):
        if split not in ("train", "test"):
            raise DataError(f"split: train or test, not {split!r}")
        listing = map_listing(
            root, splits=splits, classes=classes, values=values, test_fraction=test_fraction, split_seed=split_seed
        )
        files = [listing.files[index] for index in listing.places(split)]
        super().__init__(files, classes=listing.classes, values=values, notes=listing.notes if split == "train" else ())
        self.validation, self.division = listing.validation(split), listing.record()
        self.sizes = _checked_sizes(files, root=str(root))


def _checked_sizes(files: Sequence[tuple[str, str]], *, root: str) -> list[tuple[int, int]]:
    sizes, problems = [], []
    for image, place in files:
        try:
            size, problem = sizes_of(image, place)
        except (OSError, ValueError, SyntaxError) as error:
            size, problem = (0, 0), str(error)
        sizes.append(size)
        problems += [problem] if problem else []
    if problems:
        count = f"{len(problems)} of {len(files)} images are wrong" if len(problems) > 1 else "an image is wrong"
        raise DataError(f"root: {root}: {count}: {some(problems)}")
    return sizes


def map_problems(dataset: Any, *, num_classes: int) -> list[str]:
    """What is wrong with the targets of some items, a message each, without the config key."""
    for index, image, target in some_items(dataset):
        problem = _kind_problem(target) or _map_problem(target, size=_size_of(image), num_classes=num_classes)
        if problem:
            return [f"item {index}: {problem}"]
    return []


def _kind_problem(target: Any) -> str | None:
    if isinstance(target, tv_tensors.Mask):
        return None
    kind = f"a tensor {tuple(target.shape)}" if isinstance(target, Tensor) else f"of type {type(target).__name__}"
    return (
        f"a target is {kind}, and a map of classes as torchvision.tv_tensors.Mask (H, W) is needed, which transforms "
        f"move with its image; data sets of torchvision give it behind wrap_dataset_for_transforms_v2"
    )


def _size_of(image: Any) -> tuple[int, int]:
    return (image.height, image.width) if hasattr(image, "height") else tuple(image.shape[-2:])


def _map_problem(target: Tensor, *, size: tuple[int, int], num_classes: int) -> str | None:
    if target.is_floating_point() or target.dim() not in (2, 3) or target.shape[:-2].numel() != 1:
        return f"a map of classes is of whole numbers (H, W), not {target.dtype} {tuple(target.shape)}"
    if tuple(target.shape[-2:]) != size:
        return f"the map has {target.shape[-2]} x {target.shape[-1]} pixels, and its image {size[0]} x {size[1]}"
    there = target[target != IGNORED]
    if len(there) and not (int(there.min()) >= 0 and int(there.max()) < num_classes):
        return (
            f"classes go from {int(there.min())} to {int(there.max())}, and num_classes={num_classes} means 0 to "
            f"{num_classes - 1}, with {IGNORED} for pixels that are ignored"
        )
    return None


def checked_map(target: Any, image: Tensor, *, num_classes: int, name: str) -> Tensor:
    """A map behind the transforms, uint8 (H, W).

    Raises:
        DataError: No map that transforms move, one of another size than the image, or a class that there is not.
    """
    size = (image.shape[-2], image.shape[-1])
    problem = _kind_problem(target) or _map_problem(target, size=size, num_classes=num_classes)
    if problem:
        raise DataError(f"dataset: {name}: {problem} (behind dataset.train_transform or eval_transform)")
    plain: Tensor = target.as_subclass(Tensor).reshape(target.shape[-2:]).to(torch.uint8)
    return plain


def padded(samples: Sequence[Mapping[str, Any]], *, fill: Tensor, pad_to: int | None = None) -> dict[str, Tensor]:
    """Images and maps of one size, and which part of each is the image itself.

    What is added, on the right and below, has the colour `fill` and belongs to no class.

    Args:
        samples: With `input` (3, H, W), and `target` (H, W).
        fill: A number for each channel, in [0, 1].
        pad_to: The sides at least; None: those of the largest image.

    Returns:
        `input` (B, 3, H, W), `target` (B, H, W), and `size` int64 (B, 2): height and width before.
    """
    sizes = torch.tensor([sample["input"].shape[-2:] for sample in samples])
    height, width = (max(int(side), pad_to or 0) for side in sizes.amax(dim=0))
    images, maps = [], []
    for sample in samples:
        image, target = sample["input"].as_subclass(Tensor), sample["target"]
        h, w = image.shape[-2:]
        if (h, w) != (height, width):
            colour = fill.view(-1, 1, 1)
            colour = (colour * 255).round().to(image.dtype) if image.dtype == torch.uint8 else colour.to(image.dtype)
            canvas = colour.expand(len(image), height, width).clone()
            canvas[:, :h, :w] = image
            image, target = canvas, pad(target, (0, width - w, 0, height - h), value=IGNORED)
        images.append(image)
        maps.append(target)
    return {"input": torch.stack(images), "target": torch.stack(maps), "size": sizes}

"""A small data set held as one tensor on the training device, where whole batches are cropped and flipped at once.

The batches are those of `Samples`, bit for bit: every image has the place, the crop and the flip that it has when it is
loaded alone. Whatever cannot be held so is loaded sample by sample.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate
from torchvision.transforms import v2

from distill_app.data import draws
from distill_app.data.loading import with_place
from distill_app.data.order import Key, Order
from distill_app.data.samples import Samples, finished_image
from distill_app.words import size_text

LIMIT = 2 * 10**9  # bytes that `auto` takes of the device
# Samples whose crops are computed and sent together: few enough not to delay the first batch, 2 ms, and enough to
# share the cost of the draws, 0.5 us a sample.
BLOCK = 4096
CHUNK = 256  # samples read together
COMPARED = 16  # samples that are made both ways before a loader is used
# Per pixel, and black stays black: it does not matter whether they come before or after a crop or flip.
_PER_PIXEL = (v2.PILToTensor, v2.ToImage, v2.RGB, v2.Grayscale)
_FIXED = (*_PER_PIXEL, v2.CenterCrop, v2.Resize)
_RANDOM = (v2.RandomCrop, v2.RandomHorizontalFlip)


class NotResident(ValueError):
    """Why samples cannot be held on the device."""


class Mismatch(NotResident):
    """Batches differ from the samples made one by one: this version of torch draws otherwise."""


def held_transforms(samples: Any, *, collate: Callable[..., Any] = default_collate) -> list[Any]:
    """The transforms that are the same in every view, and are applied once when the images are read.

    Raises:
        NotResident: A wrapper, a task, a policy, a transform or a data set that needs the samples one by one.
    """
    if type(samples) is not Samples:
        raise NotResident(f"the wrapper {type(samples).__name__} works on single samples")
    if collate is not default_collate:
        raise NotResident("a collate function of its own works on single samples")
    if samples.joint or samples.finish is not finished_image:
        raise NotResident("the task makes every sample in a way of its own")
    if samples.corrupt != "raise":
        raise NotResident(f"runtime.corrupt_images={samples.corrupt} replaces or leaves out single images")
    held, random = [], False
    for transform in samples.transforms:
        if _is_known_random(transform):
            random = True
        elif type(transform) not in _FIXED or (random and type(transform) not in _PER_PIXEL):
            raise NotResident(_unknown_transform(transform, random))
        else:
            held.append(transform)
    _require_memory(samples.dataset)
    return held


def _is_known_random(transform: Any) -> bool:
    if type(transform) is v2.RandomCrop:
        # Without padding the others are of no consequence, and rare enough to be refused all the same.
        black = isinstance(transform.fill, int | float) and transform.fill == 0
        return black and transform.padding_mode == "constant" and not transform.pad_if_needed
    return type(transform) is v2.RandomHorizontalFlip


def _unknown_transform(transform: Any, random: bool) -> str:
    if type(transform) in _FIXED and random:
        return f"the transform {transform} comes after a random one"
    known = ", ".join(kind.__name__ for kind in (*_RANDOM, *_FIXED))
    return f"the transform {transform} is none of {known} (crops with constant padding 0 and without pad_if_needed)"


def _require_memory(dataset: Any) -> None:
    arrays = [getattr(dataset, name, None) for name in ("images", "data")]
    if not any(isinstance(array, Tensor | np.ndarray) and len(array) == len(dataset) for array in arrays):
        raise NotResident(
            f"{type(dataset).__name__} does not have all images in memory, in a tensor or array `images` or `data`"
        )
    own = [name for name in ("transform", "target_transform") if getattr(dataset, name, None) is not None]
    if own:
        raise NotResident(f"{type(dataset).__name__} has a {own[0]} of its own")


@dataclass(frozen=True)
class Images:
    """All images of a data set on the device, and their labels on the host.

    Attributes:
        pixels: uint8, the flat (N, planes, H + 1, W + 1): the last row and column of each plane are black, which is
            what lies outside of an image. Grey images of three equal channels have one plane.
        labels: (N,) int64.
        channels: of an image in a batch.
        planes: of an image as it is held.
        height: H in pixels.
        width: W in pixels.
    """

    pixels: Tensor
    labels: np.ndarray
    channels: int
    planes: int
    height: int
    width: int

    @classmethod
    def read(cls, dataset: Any, transforms: Sequence[Any], *, device: torch.device, limit: int | None) -> "Images":
        """Reads every item once, as it comes when it is loaded alone.

        Args:
            dataset: of (image, label).
            transforms: those that are not random.
            device: where the pixels go.
            limit: in bytes; None: whatever there is room for.

        Raises:
            NotResident: More bytes than the limit, images of several sizes or not of uint8, keys beside image and
                label, or labels that are not whole numbers.
        """
        parts: list[Tensor] = []
        labels: list[Tensor] = []
        for batch in _read(dataset, transforms):
            images = batch["input"]
            parts.append(images[:, :1].clone() if _grey(images) else images)
            labels.append(batch["target"])
            planes, (channels, height, width) = max(part.shape[1] for part in parts), images.shape[1:]
            size = len(dataset) * planes * (height + 1) * (width + 1)
            if limit is not None and size > limit:
                raise NotResident(f"the images would take {size_text(size)}, more than {size_text(limit)}")
        pixels = torch.zeros(len(dataset), planes, height + 1, width + 1, dtype=torch.uint8)
        for part, held in zip(parts, pixels.split(CHUNK), strict=True):
            held[:, :, :height, :width] = part
        return cls(pixels.flatten().to(device), torch.cat(labels).numpy(), channels, planes, height, width)

    def row_starts(self, indices: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Where rows begin in the pixels: (B, planes, h), of images (B,) and rows (B, h) of each."""
        planes = indices[:, None] * self.planes + np.arange(self.planes)
        starts = (planes[:, :, None] * (self.height + 1) + rows[:, None, :]) * (self.width + 1)
        # Half the index, and half the time to gather with it.
        return starts.astype(np.int32 if self.pixels.numel() < 2**31 else np.int64)

    def gather(self, row_starts: Tensor, columns: Tensor) -> Tensor:
        """Images uint8 (B, channels, h, w) of row starts (B, planes, h) and columns (B, w) on the device."""
        places = row_starts.unsqueeze(-1) + columns[:, None, None, :]
        images = self.pixels.index_select(0, places.flatten()).view(places.shape)
        return images.expand(-1, self.channels, -1, -1).contiguous()


def _read(dataset: Any, transforms: Sequence[Any]) -> Iterator[dict[str, Tensor]]:
    """All samples in order, `CHUNK` collated at a time, if they are alike."""
    reader = Samples(dataset, transforms=transforms, seed=0, stage="resident")
    size = None
    for start in range(0, len(dataset), CHUNK):
        samples = reader.__getitems__([(position, 0) for position in range(start, min(start + CHUNK, len(dataset)))])
        size = size or samples[0]["input"].shape
        if any(sample["input"].shape != size for sample in samples):
            raise NotResident("the images are of different sizes")
        yield _collated(samples)


def _collated(samples: list[dict[str, Any]]) -> dict[str, Tensor]:
    if extra := samples[0].keys() - {"input", "target", "index"}:
        raise NotResident(f"the samples have more than image and label: {', '.join(sorted(extra))}")
    batch = default_collate(samples)
    if batch["input"].dtype != torch.uint8 or batch["input"].dim() != 4:
        image = samples[0]["input"]
        raise NotResident(f"the images are {image.dtype} {tuple(image.shape)}, not uint8 (channels, height, width)")
    if not isinstance(batch["target"], Tensor) or batch["target"].dtype != torch.int64 or batch["target"].dim() != 1:
        raise NotResident("the labels are not one whole number each")
    return batch


def _grey(images: Tensor) -> bool:
    return images.shape[1] == 3 and all(torch.equal(images[:, 0], images[:, channel]) for channel in (1, 2))


class ResidentLoader:
    """Stands in the place of a `Loader`: the same batches, made on the device.

    A batch is {"input", "target", "index"}: input uint8 (B, C, h, w) and target int64 (B,) on the device, index int64
    (B,) on the host; and its place, as `loading.with_place` tells it. There are no workers; the host only computes
    which pixels to take.

    Args:
        samples: what the batches are of.
        images: those of the samples' data set, with the transforms that are not random applied.
        order: where each epoch's keys come from.

    Raises:
        NotResident: A crop that is larger than the images.
        Mismatch: Some samples are not what `samples` makes of them.
    """

    def __init__(self, samples: Samples, images: Images, *, order: Order) -> None:
        self.dataset = samples
        self.order = order
        self.images = images
        self._random: list[Any] = [transform for transform in samples.transforms if type(transform) in _RANDOM]
        self._compare()

    @property
    def how(self) -> str:
        """How the images are loaded, for the plan."""
        pixels = self.images.pixels
        return f"resident on {pixels.device}, {size_text(pixels.numel())}"

    def close(self) -> None:
        """Nothing to end: there are no workers."""

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        view = self.order.view
        for block in _blocks(self.order):
            for batch in self._batches(block):
                yield with_place(batch, view=view)

    def _batches(self, block: list[list[Key]]) -> Iterator[dict[str, Tensor]]:
        positions, views = np.array([key for keys in block for key in keys], dtype=np.int64).T
        indices = self.dataset.indices[positions]
        rows, columns = self._lines(self.dataset.seed_of(views.astype(np.uint64), indices.astype(np.uint64)))
        starts = self.images.row_starts(indices, rows)
        sent = (self._sent(array) for array in (starts, columns.astype(starts.dtype), self.images.labels[indices]))
        index, sizes = self._pinned(indices), [len(keys) for keys in block]
        parts = [tensor.split(sizes) for tensor in (*sent, index)]
        for starts_, columns_, target, index_ in zip(*parts, strict=True):
            yield {"input": self.images.gather(starts_, columns_), "target": target, "index": index_}

    def _lines(self, seeds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The rows (N, h) and columns (N, w) of the images that the transforms show to each seed."""
        height, width = self.images.height, self.images.width
        count = sum(2 if isinstance(transform, v2.RandomCrop) else 1 for transform in self._random)
        words = iter(draws.first_words(seeds, count))
        rows = np.broadcast_to(np.arange(height), (len(seeds), height))
        columns = np.broadcast_to(np.arange(width), (len(seeds), width))
        for transform in self._random:
            if isinstance(transform, v2.RandomCrop):
                left, right, top, bottom = transform.padding or (0, 0, 0, 0)
                tall, wide = transform.size
                # Drawn in this order, and only where there is a choice.
                rows = _cropped(rows, words, before=top, after=bottom, size=tall, outside=height)
                columns = _cropped(columns, words, before=left, after=right, size=wide, outside=width)
            else:
                flipped = draws.uniform(next(words)) < np.float32(transform.p)
                columns = np.where(flipped[:, None], columns[:, ::-1], columns)
        return rows, columns

    def _pinned(self, array: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(array)
        return tensor.pin_memory() if self.images.pixels.is_cuda else tensor

    def _sent(self, array: np.ndarray) -> Tensor:
        return self._pinned(array).to(self.images.pixels.device, non_blocking=True)

    def _compare(self) -> None:
        """Makes some samples both ways."""
        spread = np.linspace(0, len(self.dataset) - 1, COMPARED).astype(int)
        keys = [(position, 1) for position in np.unique(spread).tolist()]
        (mine,) = self._batches([keys])
        theirs = default_collate(self.dataset.__getitems__(keys))
        for name, value in theirs.items():
            if value.dtype != mine[name].dtype or not torch.equal(value, mine[name].cpu()):
                raise Mismatch(
                    f"`{name}` differs from what samples made one by one have, with torch {torch.__version__}"
                )


def _cropped(
    lines: np.ndarray, words: Iterator[np.ndarray], *, before: int, after: int, size: int, outside: int
) -> np.ndarray:
    """The rows (or columns) that a random crop leaves of rows (N, h), padded on both sides: (N, size)."""
    count = lines.shape[1]
    slack = count + before + after - size
    if slack < 0:
        raise NotResident(f"a crop of {size} pixels is larger than the image")
    first = draws.below(next(words), slack + 1) if slack else np.zeros(len(lines), np.int64)
    taken = first[:, None] - before + np.arange(size)
    inside = (taken >= 0) & (taken < count)
    return np.where(inside, np.take_along_axis(lines, np.where(inside, taken, 0), axis=1), outside)


def _blocks(order: Iterable[list[Key]]) -> Iterator[list[list[Key]]]:
    """Batches in groups of about `BLOCK` samples."""
    block: list[list[Key]] = []
    count = 0
    for keys in order:
        block.append(keys)
        count += len(keys)
        if count >= BLOCK:
            yield block
            block, count = [], 0
    if block:
        yield block

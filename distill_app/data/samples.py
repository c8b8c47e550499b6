"""From a key (position, view) to a sample: loading, augmentation with a seed of its own, corrupt images."""

import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from distill_app.data.images import eight_bits, finished
from distill_app.data.order import Key
from distill_app.errors import CorruptImageError, DataError
from distill_app.seeds import generator_kept, stable_hash
from distill_app.words import warn

POLICIES = ("raise", "skip", "leave_out")
# What Pillow, torchvision and our own opener raise for bytes that are not a good image. Errors of a program
# (TypeError, KeyError, ...) are not among them and pass through.
_BAD_IMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    RuntimeError,
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
_WHOLE = (torch.uint8, torch.int8, torch.int16, torch.int32)
_MASK = 0xFFFF_FFFF_FFFF_FFFF


def _splitmix64(value: Any) -> Any:
    """The finaliser of SplitMix64 (Steele et al. 2014) of an int, or of each uint64 of an array.

    Neighbours give unrelated numbers, in 0.6 us.
    """
    value = (value + 0x9E37_79B9_7F4A_7C15) & _MASK
    value = ((value ^ value >> 30) * 0xBF58_476D_1CE4_E5B9) & _MASK
    value = ((value ^ value >> 27) * 0x94D0_49BB_1331_11EB) & _MASK
    return value ^ value >> 31


class Samples(Dataset):
    """The samples of one split of one stage, loaded and augmented.

    A sample is {"input", "target", "index"}: input as the transforms and `finish` leave it; transforms
    see Pillow images with 8 bits a channel (a Pillow image becomes uint8 RGB, uint16 becomes uint8); index the position
    in the underlying, unsplit data set. An item that is a dict keeps its other keys.

    Each sample is made with torch's global CPU generator seeded by (seed, stage, view, index), which is what
    torchvision's v2 transforms draw from: neither workers nor ranks nor restarts change an image. A transform
    that draws from `random` or `numpy.random` is outside of this.

    Args:
        dataset: items are (image, label) or dicts with `input` and `target`.
        indices: which items of the data set, in which positions; None: all.
        transforms: applied to the image in this order.
        joint: they are called with (input, target) and return both.
        finish: makes of a sample what is collated; by default a PIL image becomes uint8 RGB.
        seed: of the run.
        stage: name of the stage.
        corrupt: `raise` at an image that cannot be read, or `skip`: take the next position that can, in the
            same view, and remember; or `leave_out`, which evaluations do instead: the sample is missing in its batch.
        max_skipped: how many different images may be skipped, by all workers of this process together.

    Raises:
        ValueError: An unknown policy.
    """

    def __init__(
        self,
        dataset: Any,
        *,
        indices: Sequence[int] | np.ndarray | None = None,
        transforms: Sequence[Callable[..., Any]] = (),
        joint: bool = False,
        finish: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
        seed: int,
        stage: str,
        corrupt: str = "raise",
        max_skipped: int = 10,
    ) -> None:
        if corrupt not in POLICIES:
            raise ValueError(f"runtime.corrupt_images: {corrupt!r} is not one of {', '.join(POLICIES)}")
        self.dataset = dataset
        self.indices = np.arange(len(dataset)) if indices is None else np.asarray(indices, dtype=np.int64)
        self.transforms = list(transforms)
        self.joint = joint
        self.finish = finished_image if finish is None else finish
        self.corrupt = corrupt
        self.max_skipped = max_skipped
        self._base = stable_hash("sample", seed, stage)
        # A byte per position in shared memory: every worker sees it, and marking twice counts once.
        size = len(self.indices) if corrupt != "raise" else 0
        self._bad = torch.zeros(size, dtype=torch.uint8).share_memory_()

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def skipped(self) -> list[int]:
        """Indices of the images that could not be read so far."""
        return self.indices[self._bad.nonzero().flatten().numpy()].tolist() if len(self._bad) else []

    def __getitem__(self, key: Key) -> dict[str, Any]:
        return self.__getitems__([key])[0]

    def __getitems__(self, keys: Sequence[Key]) -> list[dict[str, Any]]:
        """The samples of a batch; a DataLoader calls this once per batch."""
        with generator_kept():
            if self.corrupt == "leave_out":
                return [sample for key in keys if (sample := self._loaded(*key, variants=None)) is not None]
            return [self.load(key) for key in keys]

    def seed_of(self, view: Any, index: Any) -> Any:
        """The seed with which an image is augmented; of many at once, if view and index are arrays of uint64."""
        return _splitmix64(_splitmix64(self._base ^ view) ^ index)

    def load(self, key: Key, *, variants: Sequence[Callable[[Any], Any]] | None = None) -> dict[str, Any]:
        """One sample; torch's generator stays where the last transform left it, for a wrapper to go on.

        Args:
            key: Position and view.
            variants: `input` becomes a stack of as many images: the image, read once, changed by each of these before
                the transforms, which draw anew for each. None: one image, as it was read.

        Raises:
            DataError: The transforms leave the variants with several sizes.
        """
        position, view = key
        for _ in range(len(self)):
            sample = self._loaded(position, view, variants=variants)
            if sample is not None:
                return sample
            position = (position + 1) % len(self)
        raise CorruptImageError("runtime.corrupt_images=skip: not one image of the data set can be read")

    def _loaded(
        self, position: int, view: int, *, variants: Sequence[Callable[[Any], Any]] | None
    ) -> dict[str, Any] | None:
        """The sample of a position, None where its image cannot be read."""
        index = int(self.indices[position])
        torch.default_generator.manual_seed(self.seed_of(view, index))
        sample = self._read(position, index)
        if sample is None:
            return None
        image = sample["input"]
        made = [self._made({**sample, "input": change(image)}) for change in variants or [lambda image: image]]
        return made[0] if variants is None else made[0] | {"input": _stacked([each["input"] for each in made])}

    def _made(self, sample: dict[str, Any]) -> dict[str, Any]:
        for transform in self.transforms:
            self._apply(transform, sample)
        if self.finish is finished_image:
            return sample | {"input": finished(sample["input"], name=self._name(sample["index"]))}
        return self.finish(sample)

    def _apply(self, transform: Callable[..., Any], sample: dict[str, Any]) -> None:
        if not self.joint:
            sample["input"] = transform(sample["input"])
            return
        both = transform(sample["input"], sample["target"])
        if not isinstance(both, tuple | list) or len(both) != 2:
            raise DataError(
                f"dataset: the transform {transform} is called with (input, target), as the task has "
                f"joint_transforms, and must return both; it returned a {type(both).__name__}"
            )
        sample["input"], sample["target"] = both

    def _read(self, position: int, index: int) -> dict[str, Any] | None:
        if len(self._bad) and self._bad[position]:
            return None
        try:
            item = self.dataset[index]
        except DataError:  # of all images alike, so that to skip this one would be no help
            raise
        except _BAD_IMAGE as error:
            self._refuse_or_mark(position, index, error)
            return None
        sample = _as_sample(item, index)
        if isinstance(sample["input"], Image.Image):  # before the transforms: few of them know what white is
            sample["input"] = eight_bits(sample["input"], name=self._name(index))
        return sample

    def _name(self, index: int) -> str:
        return f"image {index}{_file_of(self.dataset, index)}"

    def _refuse_or_mark(self, position: int, index: int, error: Exception) -> None:
        problem = f"{self._name(index)} cannot be read: {_first_line(error)}"
        if self.corrupt == "raise":
            raise CorruptImageError(f"{problem}; mend or remove it, or set runtime.corrupt_images=skip") from error
        self._bad[position] = 1
        count = int(self._bad.count_nonzero())
        if count > self.max_skipped:
            raise CorruptImageError(
                f"{problem}; that makes {count}, and runtime.max_skipped is {self.max_skipped}"
            ) from error
        instead = "the next one is taken instead" if self.corrupt == "skip" else "it is left out"
        warn(f"{problem}; {instead} ({count} of at most {self.max_skipped})")


def _stacked(images: list[Tensor]) -> Tensor:
    sizes = sorted({tuple(image.shape) for image in images})
    if len(sizes) > 1:
        raise DataError(
            f"images that are made from one have several sizes, {', '.join(map(str, sizes))}: end the dataset's "
            "train_transform with a crop to one size"
        )
    return torch.stack(images)


def _as_sample(item: Any, index: int) -> dict[str, Any]:
    if isinstance(item, Mapping):
        if not {"input", "target"} <= item.keys():
            raise DataError(f"dataset: item {index} has the keys {sorted(item)}; input and target are needed")
        return {**item, "target": _as_target(item["target"], index), "index": index}
    if isinstance(item, tuple | list) and len(item) == 2:
        image, target = item
        return {"input": image, "target": _as_target(target, index), "index": index}
    size = f" of {len(item)}" if isinstance(item, tuple | list) else ""
    raise DataError(
        f"dataset: item {index} is a {type(item).__name__}{size}; (image, label) or a dict with the keys "
        "input and target is needed"
    )


def _as_target(target: Any, index: int) -> Any:
    """One whole number of any type as int64, which is what losses take."""
    if target is None:
        raise DataError(
            f"dataset: item {index} has no label (None); leave it out, for example by torch.utils.data.Subset"
        )
    if isinstance(target, np.integer):
        return int(target)
    if isinstance(target, Tensor) and target.dim() == 0 and target.dtype in _WHOLE:
        return target.long()
    return target


def finished_image(sample: dict[str, Any]) -> dict[str, Any]:
    """A sample whose image is a tensor of 8 bits a channel.

    Raises:
        DataError: The image is nothing that becomes one.
    """
    return sample | {"input": finished(sample["input"], name=f"image {sample['index']}")}


def _file_of(dataset: Any, index: int) -> str:
    try:
        files = getattr(dataset, "files", None)
        return f" ({files[index] if files is not None else dataset.samples[index][0]})"
    except (AttributeError, IndexError, KeyError, TypeError):
        return ""


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


class SampleWrapper(Dataset):
    """Adds keys to every sample; whatever `extend` puts there is collated and addressable as `batch.<key>`.

        class WithRotation(SampleWrapper):
            def extend(self, sample):
                turns = int(torch.randint(4, ()))
                return sample | {"rotated": sample["input"].rot90(turns, (1, 2)), "turns": turns}

    In a config: `dataset.wrappers: {rotation: {_target_: mypackage.WithRotation}}`; it is called with the
    samples and its other arguments. Random numbers drawn from torch's generator in `extend` are a function of
    (seed, stage, view, index) too. For another view of the same image, override `load` and call
    `self.samples.load((position, other_view))` as well.

    Args:
        samples: `Samples`, or another wrapper.
    """

    def __init__(self, samples: Any) -> None:
        self.samples = samples

    def extend(self, sample: dict[str, Any]) -> dict[str, Any]:
        """Returns the sample with what this wrapper adds; the default adds nothing."""
        return sample

    def load(self, key: Key) -> dict[str, Any]:
        """One sample, extended."""
        return self.extend(self.samples.load(key))

    @property
    def indices(self) -> np.ndarray:
        """Position -> index in the underlying data set."""
        return self.samples.indices

    @property
    def skipped(self) -> list[int]:
        """Indices of the images that could not be read so far."""
        return self.samples.skipped

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: Key) -> dict[str, Any]:
        return self.__getitems__([key])[0]

    def __getitems__(self, keys: Sequence[Key]) -> list[dict[str, Any]]:
        with generator_kept():
            return [self.load(key) for key in keys]

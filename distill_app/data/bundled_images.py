"""Real images that come with the installation, and images made of noise; both need no download."""

from functools import partial
from importlib import resources
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad
from torch.utils.data import Dataset

from distill_app.seeds import stable_hash

SPLITS = ("train", "test")


def _fit_digits(images: Tensor, image_size: int) -> Tensor:
    if image_size < 8 or image_size % 8:
        raise ValueError(f"dataset.image_size: digits are 8x8; a multiple of 8 is needed, not {image_size}")
    return _upscale(images, image_size // 8)


def _fit_fashion(images: Tensor, image_size: int) -> Tensor:
    # 32 is the smallest size that every torchvision network takes; the border is the images' own background.
    native = next((size for size in (32, 28) if image_size >= size and image_size % size == 0), None)
    if native is None:
        raise ValueError(
            "dataset.image_size: fashion_mini images are 28x28, or 32x32 with a black border; a multiple of "
            f"28 or 32 is needed, not {image_size}"
        )
    return _upscale(pad(images, [(native - 28) // 2] * 4), image_size // native)


def _upscale(images: Tensor, factor: int) -> Tensor:
    if factor == 1:
        return images
    enlarge = partial(interpolate, scale_factor=factor, mode="bilinear")
    # In pieces: all images as float at once would take four times the memory of the result.
    return torch.cat([enlarge(part.float()).round().byte() for part in images.split(256)])


_FIT = {"digits": _fit_digits, "fashion_mini": _fit_fashion}
_CLASSES = {
    "digits": [str(digit) for digit in range(10)],
    "fashion_mini": [
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ],
}


class BundledImages(Dataset):
    """Real grey images from the installation, in memory, as RGB.

    `digits`: 1200 + 597 handwritten digits of 8x8 (UCI optdigits, as scikit-learn has them); any multiple of
    8 by bilinear upscaling. `fashion_mini`: 5000 + 2000 images of Fashion-MNIST, 500 + 200 of each class,
    28x28; padded with black to 32x32; multiples of either by bilinear upscaling.

    An item is (uint8 tensor (3, S, S), label).

    Args:
        name: `digits` or `fashion_mini`.
        split: `train` or `test`.
        image_size: S, the side in pixels.

    Raises:
        ValueError: An unknown name or split, or a size that the images cannot be fitted to.
    """

    def __init__(self, name: str, split: str, *, image_size: int) -> None:
        if name not in _FIT:
            raise ValueError(f"bundled images: {name!r} is unknown; there are {', '.join(sorted(_FIT))}")
        if split not in SPLITS:
            raise ValueError(f"bundled images: split {split!r} is unknown; there are {', '.join(SPLITS)}")
        source = resources.files("distill_app.data") / "bundled" / f"{name}.npz"
        with source.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            pixels = torch.from_numpy(arrays[f"{split}_images"])
            self.targets: list[int] = arrays[f"{split}_labels"].tolist()
        # One channel is kept and repeated per item: a third of the memory.
        self.images = _FIT[name](pixels.unsqueeze(1), image_size)
        self.classes = list(_CLASSES[name])

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        # A copy, so that a transform working in place cannot change the data set.
        return self.images[index].expand(3, -1, -1).contiguous(), self.targets[index]


class FakeImages(Dataset):
    """Noise, the same for the same index, with balanced labels: for wiring tests and timing, not learning.

    Unlike torchvision's FakeData it never touches torch's global generator (nor CUDA's) and knows its labels.
    An item is (uint8 tensor (3, S, S), label), or with `multilabel` (image, float tensor (num_classes,)).

    Args:
        size: number of images.
        image_size: S, the side in pixels.
        num_classes: the labels are index modulo this.
        seed: images of different seeds differ; give train and test different ones.
        multilabel: every third class, counted from the index, is there instead.
    """

    def __init__(
        self, size: int, *, image_size: int, num_classes: int, seed: int = 0, multilabel: bool = False
    ) -> None:
        self.image_size = image_size
        self.seed = seed
        self.targets: list[Any] = [index % num_classes for index in range(size)]
        if multilabel:
            classes = torch.arange(num_classes)
            self.targets = [((index + classes) % 3 == 0).float() for index in range(size)]
        self.classes = [str(label) for label in range(num_classes)]

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        count = 3 * self.image_size**2
        words = np.random.Philox(key=stable_hash("fake", self.seed, index)).random_raw(-(-count // 8))
        pixels = words.astype("<u8").view(np.uint8)[:count].reshape(3, self.image_size, self.image_size)
        return torch.from_numpy(pixels), self.targets[index]

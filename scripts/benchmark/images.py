"""The images of the benchmark: uint8 noise in memory, one copy of it for every implementation."""

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import transforms

MEAN, STD = 0.5, 0.29  # as in conf/dataset/fake.yaml


class ImagesInMemory(Dataset):
    """As many samples as asked for, over a few stored images: fetching one costs an index and no more.

    An item is (uint8 tensor (3, S, S), label).

    Args:
        size: Number of samples.
        image_size: S, the side in pixels.
        num_classes: The labels are index modulo this.
        stored: Number of different images.
    """

    def __init__(self, size: int, *, image_size: int, num_classes: int, stored: int) -> None:
        generator = torch.Generator().manual_seed(0)
        shape = (min(stored, size), 3, image_size, image_size)
        self.images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        self.targets = [index % num_classes for index in range(size)]
        self.classes = [str(label) for label in range(num_classes)]

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index % len(self.images)], self.targets[index]


def normalized(images: Tensor) -> Tensor:
    """uint8 (B, 3, S, S) -> float32, with the statistics of the data set."""
    return images.float().div_(255.0).sub_(MEAN).div_(STD)


class Pictures(Dataset):
    """The same images as pictures of Pillow, through torchvision's first transforms, as published recipes load them.

    Args:
        images: Which.
        padding: Of the random crop.
    """

    def __init__(self, images: ImagesInMemory, *, padding: int) -> None:
        self.pictures = [transforms.functional.to_pil_image(image) for image in images.images]
        self.targets = images.targets
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(images.images.shape[-1], padding=padding),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize([MEAN] * 3, [STD] * 3),
            ]
        )

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.pictures[index % len(self.pictures)]), self.targets[index]

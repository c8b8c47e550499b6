"""Transforms of an image together with its map, as far as torchvision's cannot be named in a config."""

from collections.abc import Sequence
from typing import Any

from torchvision import tv_tensors
from torchvision.transforms import v2

from distill_app.data.map_files import IGNORED


class MapCrop:
    """Cuts a random part of one size out of image and map; where they are smaller, they are padded first.

    In a config: `{_target_: distill_app.data.MapCrop, size: 480}`. As torchvision's RandomCrop with pad_if_needed,
    which would pad the map with the first class; here what is added belongs to no class (255), and is black in the
    image.

    Args:
        size: Of the part: its side, or height and width.
    """

    def __init__(self, size: int | Sequence[int]):
        sides = [size, size] if isinstance(size, int) else [int(side) for side in size]
        if len(sides) != 2 or min(sides) < 1:
            raise ValueError(f"size: a side or height and width in pixels, not {size}")
        self.size = sides
        fill: Any = {tv_tensors.Mask: IGNORED, "others": 0}
        self._crop = v2.RandomCrop(sides, pad_if_needed=True, fill=fill)

    def __call__(self, image: Any, target: Any) -> tuple[Any, Any]:
        """The same part of both."""
        image, target = self._crop(image, target)
        return image, target

    def __repr__(self) -> str:
        return f"MapCrop(size={self.size})"

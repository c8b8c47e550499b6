"""Maps of classes as pictures: the number of a class for each pixel, with a colour for whoever looks at them."""

from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor


def write_map(file: Path, classes: Tensor, *, size: tuple[int, int]) -> None:
    """Writes a map as PNG with a palette, whose entries' numbers are the classes.

    Args:
        file: Where; its folder is there.
        classes: uint8 (H, W).
        size: Width and height of the picture, to which the map is brought by its nearest pixels.
    """
    picture = Image.fromarray(classes.numpy())
    if picture.size != size:
        picture = picture.resize(size, Image.Resampling.NEAREST)
    picture.putpalette(colours().flatten().tolist())
    picture.save(file)


def colours() -> np.ndarray:
    """The colours of Pascal VOC's maps, uint8 (256, 3): the bits of a number, lowest first, are the highest of the
    channels in turn.
    """
    numbers, found = np.arange(256), np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            found[:, channel] |= ((numbers >> channel) & 1).astype(np.uint8) << (7 - bit)
        numbers = numbers >> 3
    return found

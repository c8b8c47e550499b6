"""What is in an image, drawn into it: boxes with what they are, masks, keypoints; or the class of every pixel."""

import colorsys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.utils import draw_bounding_boxes, draw_keypoints, draw_segmentation_masks

_LEAST, _MOST = 320, 640  # pixels of the longer side: texts need some, and files should not grow
_GOLDEN = 0.61803398875  # of a turn of hue from one class to the next: no two near ones are alike


def drawn(
    image: Tensor,
    *,
    boxes: Tensor,
    labels: Sequence[int],
    texts: Sequence[str],
    masks: Tensor | None = None,
    keypoints: Tensor | None = None,
) -> Tensor:
    """An image with objects, each class in a colour of its own.

    Args:
        image: float (3, H, W) in [0, 1], or one grey channel.
        boxes: (N, 4) as x1, y1, x2, y2 in pixels.
        labels: Of the N objects.
        texts: What is written at each box.
        masks: (N, H, W), which values above one half are of.
        keypoints: (N, K, 3): x, y, and whether it is there.

    Returns:
        uint8 (3, H', W'), made larger or smaller to a side of 320 to 640 pixels.
    """
    picture, factor = _picture(image)
    size = (picture.shape[-2], picture.shape[-1])
    if not len(boxes):
        return picture
    colours = [_colour(label) for label in labels]
    if masks is not None:
        within = _resized(masks.detach().float().cpu(), size) > 0.5
        picture = draw_segmentation_masks(picture, within, alpha=0.5, colors=colours)
    scaled = boxes.detach().float().cpu() * factor
    # A box without an area, such as torchvision refuses to draw, is a line: a pixel of it is seen.
    scaled[:, 2:] = torch.maximum(scaled[:, 2:], scaled[:, :2] + 1)
    side = max(10, max(size) / 32)
    picture = draw_bounding_boxes(
        picture,
        scaled,
        labels=list(texts),
        colors=colours,
        width=2,
        font=_font(),
        font_size=int(side),
        label_colors="white",
        label_background_colors=colours,
        fill_labels=True,
    )
    if keypoints is not None:
        places = keypoints.detach().float().cpu()
        picture = draw_keypoints(picture, places[..., :2] * factor, colors="white", visibility=places[..., 2] > 0)
    return picture


def drawn_map(image: Tensor, classes: Tensor, *, ignored: int) -> Tensor:
    """An image with the class of every pixel, each in a colour of its own; class 0, the background, stays as it is.

    Args:
        image: float (3, H, W) in [0, 1], or one grey channel.
        classes: (H, W), whole numbers.
        ignored: What is no class; drawn white.

    Returns:
        uint8 (3, H', W'), made larger or smaller to a side of 320 to 640 pixels.
    """
    picture, _ = _picture(image)
    places = functional.interpolate(classes[None, None].cpu().float(), picture.shape[-2:], mode="nearest")[0, 0].long()
    there = [int(number) for number in places.unique() if number != 0]
    if not there:
        return picture
    colours = [(255, 255, 255) if number == ignored else _colour(number) for number in there]
    masks = torch.stack([places == number for number in there])
    return draw_segmentation_masks(picture, masks, alpha=0.5, colors=colours)


def _picture(image: Tensor) -> tuple[Tensor, float]:
    """An image as uint8 (3, H', W') of a size that can be looked at, and how many times as large it is."""
    height, width = image.shape[-2:]
    factor = min(max(height, width, _LEAST), _MOST) / max(height, width)
    size = (max(1, round(height * factor)), max(1, round(width * factor)))
    resized = _resized(image.detach().float().cpu().expand(3, -1, -1), size)
    return resized.mul(255).round().clamp(0, 255).byte(), factor


def _resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return functional.interpolate(maps.unsqueeze(0), size, mode="bilinear", antialias=True).squeeze(0)


def _colour(label: int) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(label * _GOLDEN % 1.0, 0.9, 0.75)
    return round(255 * red), round(255 * green), round(255 * blue)


def _font() -> str:
    """A font that has more than the signs of ASCII; it comes with matplotlib."""
    import matplotlib

    return str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"))

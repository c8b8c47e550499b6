"""Images with what a network says of them, as one picture."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import to_pil_image

from distill_app.deploy.preprocessing import Preprocessing
from distill_app.errors import UsageError
from distill_app.runs.plots import DPI, new_canvas, plain

_COLUMNS, _MOST, _SIDE = 6, 60, 224  # images in a row, on a picture, and pixels of one
_PICTURES, _MOST_PICTURES = 3, 24  # of those with objects in them, which are larger


def draw(
    path: Path, answers: Sequence[tuple[Path, Sequence[tuple[str, float]]]], *, preprocessing: Preprocessing
) -> None:
    """Draws images with their classes; of many the first.

    Args:
        path: The picture.
        answers: Images that can be read, each with its classes and their probabilities.
        preprocessing: How the network reads images.

    Raises:
        UsageError: There is no image, or the picture cannot be written.
    """
    if not answers:
        raise UsageError("--grid: there is no image to draw")
    shown = answers[:_MOST]
    columns = min(_COLUMNS, len(shown))
    rows = math.ceil(len(shown) / columns)
    lines = max(len(guesses) for _, guesses in shown)
    figure = new_canvas(width=2.0 * columns, height=(2.1 + 0.17 * lines) * rows)
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axis in axes:
        axis.set_axis_off()
    for axis, (image, guesses) in zip(axes, shown, strict=False):
        axis.imshow(_small(preprocessing.pixels(image)))
        text = "\n".join(f"{plain(label)} {100 * share:.1f}%" for label, share in guesses)
        axis.set_title(text, fontsize=8)
        axis.text(0.5, -0.04, plain(image.name), fontsize=6, ha="center", va="top", transform=axis.transAxes)
    _save(figure, path)


def draw_pictures(path: Path, pictures: Sequence[tuple[Path, Tensor]]) -> None:
    """Draws pictures side by side, each with the name of its image; of many the first.

    Args:
        path: The file.
        pictures: Images that can be read, with what was made of them, uint8 (3, H, W).

    Raises:
        UsageError: There is no picture, or the file cannot be written.
    """
    if not pictures:
        raise UsageError("--grid: there is no image to draw")
    shown = pictures[:_MOST_PICTURES]
    columns = min(_PICTURES, len(shown))
    rows = math.ceil(len(shown) / columns)
    figure = new_canvas(width=3.4 * columns, height=3.6 * rows)
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axis in axes:
        axis.set_axis_off()
    for axis, (image, picture) in zip(axes, shown, strict=False):
        axis.imshow(picture.permute(1, 2, 0).numpy())
        axis.set_title(plain(image.name), fontsize=8)
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=DPI)
    except OSError as error:
        raise UsageError(f"--grid: cannot write {path}: {error.strerror or error}") from error


def _small(pixels: Tensor) -> Image.Image:
    small: Image.Image = to_pil_image(pixels)
    small.thumbnail((_SIDE, _SIDE))
    return small

"""Images with what a network says of them, as one picture."""

import math
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from distill_app.data.images import eight_bits, open_image
from distill_app.errors import UsageError
from distill_app.runs.plots import DPI, new_canvas, plain

_COLUMNS, _MOST, _SIDE = 6, 60, 224  # images in a row, on a picture, and pixels of one


def draw(path: Path, answers: Sequence[tuple[Path, Sequence[tuple[str, float]]]]) -> None:
    """Draws images with their classes; of many the first.

    Args:
        path: The picture.
        answers: Images that can be read, each with its classes and their probabilities.

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
        axis.imshow(_small(image))
        text = "\n".join(f"{plain(label)} {100 * share:.1f}%" for label, share in guesses)
        axis.set_title(text, fontsize=8)
        axis.text(0.5, -0.04, plain(image.name), fontsize=6, ha="center", va="top", transform=axis.transAxes)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=DPI)
    except OSError as error:
        raise UsageError(f"--grid: cannot write {path}: {error.strerror or error}") from error


def _small(path: Path) -> Image.Image:
    with open_image(path) as image:
        small = eight_bits(image, name=str(path)).convert("RGB")
    small.thumbnail((_SIDE, _SIDE))
    return small

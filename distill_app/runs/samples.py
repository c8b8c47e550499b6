"""Pictures of each stage: `samples/STAGE.png`, training images as it sees them, and `samples/STAGE_answers.png`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

FOLDER = "samples"
ANSWERS = "_answers"  # behind the name of a stage
_HEAD, _GAP = 22, 4  # pixels: of a line of headings, and between pictures
_COLUMNS, _LEAST, _MOST = 8, 64, 160  # images in a row; pixels of a side


def place_of(folder: Path, stage: str) -> Path:
    """Where the picture of a stage lies."""
    return folder / FOLDER / f"{stage.replace('/', '-')}.png"


def place_of_answers(folder: Path, stage: str) -> Path:
    """Where the picture of what networks say at the end of a stage lies."""
    return place_of(folder, f"{stage}{ANSWERS}")


def pictures(folder: Path) -> Mapping[str, Path]:
    """Stage -> picture, of those that are there."""
    return {file.stem: file for file in sorted((folder / FOLDER).glob("*.png"))}


def answers(folder: Path) -> Mapping[str, Path]:
    """Stage -> picture of what networks said at its end, of those that are there."""
    return {file.stem.removesuffix(ANSWERS): file for file in pictures(folder).values() if file.stem.endswith(ANSWERS)}


def write_samples(path: Path, images: Any) -> None:
    """Writes images, uint8 (N, 3, H, W), in rows of eight; small ones are enlarged, large ones made smaller."""
    from PIL import Image

    height, width = images.shape[2:]
    factor = max(1, _LEAST // max(height, width)) if max(height, width) <= _MOST else _MOST / max(height, width)
    size = (max(1, int(width * factor)), max(1, int(height * factor)))
    rows = -(-len(images) // _COLUMNS)
    columns = min(_COLUMNS, len(images))
    sheet = Image.new("RGB", (columns * (size[0] + 2) - 2, rows * (size[1] + 2) - 2))
    for position, pixels in enumerate(images):
        image = _image(pixels)
        how = Image.Resampling.NEAREST if factor >= 1 else Image.Resampling.BILINEAR
        row, column = divmod(position, _COLUMNS)
        sheet.paste(image.resize(size, how), (column * (size[0] + 2), row * (size[1] + 2)))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)  # a link there is replaced, not followed
    sheet.save(path)


def write_answers(path: Path, columns: Mapping[str, Any]) -> None:
    """Writes pictures side by side, a row for each image.

    Args:
        path: The PNG.
        columns: What stands above -> pictures, uint8 (3, H, W) each, as many in every column, and those of one image
            of one size.
    """
    from PIL import Image, ImageDraw

    rows = [[_image(pixels) for pixels in row] for row in zip(*columns.values(), strict=True)]
    wide = max(image.width for row in rows for image in row)
    high = [max(image.height for image in row) for row in rows]
    size = (len(columns) * (wide + _GAP) - _GAP, _HEAD + sum(high) + _GAP * (len(rows) - 1))
    sheet = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(sheet)
    for number, name in enumerate(columns):
        pen.text((number * (wide + _GAP) + 4, 4), name, fill="black")
    top = _HEAD
    for row, height in zip(rows, high, strict=True):
        for number, image in enumerate(row):
            sheet.paste(image, (number * (wide + _GAP), top))
        top += height + _GAP
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)  # a link there is replaced, not followed
    sheet.save(path)


def _image(pixels: Any) -> Any:
    from PIL import Image

    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().cpu().numpy())

"""Some training images of each stage, as the stage sees them, in one picture: `samples/STAGE.png`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

FOLDER = "samples"
_COLUMNS, _LEAST, _MOST = 8, 64, 160  # images in a row; pixels of a side


def place_of(folder: Path, stage: str) -> Path:
    """Where the picture of a stage lies."""
    return folder / FOLDER / f"{stage.replace('/', '-')}.png"


def pictures(folder: Path) -> Mapping[str, Path]:
    """Stage -> picture, of those that are there."""
    return {file.stem: file for file in sorted((folder / FOLDER).glob("*.png"))}


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
        image = Image.fromarray(pixels.permute(1, 2, 0).contiguous().cpu().numpy())
        how = Image.Resampling.NEAREST if factor >= 1 else Image.Resampling.BILINEAR
        row, column = divmod(position, _COLUMNS)
        sheet.paste(image.resize(size, how), (column * (size[0] + 2), row * (size[1] + 2)))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)  # a link there is replaced, not followed
    sheet.save(path)

"""Pictures of runs in the page: what networks said of images at the end of a stage."""

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from distill_app.runs.samples import answers

_MOST = 12  # of a page
_WIDTH, _PIXELS = 900, 40_000_000  # of a picture, and the most that a file of somebody else's may have


def pictures_of(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """For each picture its `run`, `stage` and `image`, a JPEG as a data URI; of many the first."""
    found: list[dict[str, str]] = []
    for each in _all(runs):
        if len(found) == _MOST:
            break
        found.append(each)
    return found


def _all(runs: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, str]]:
    for run in runs:
        for stage, file in answers(Path(run["folder"])).items():
            if (image := _embedded(file)) is not None:
                yield {"run": str(run["path"]), "stage": stage, "image": image}


def _embedded(file: Path) -> str | None:
    """A picture as a data URI; None of a file that is none."""
    from PIL import Image

    try:
        with Image.open(file, formats=["PNG"]) as opened:
            if opened.width * opened.height > _PIXELS:
                return None
            image = opened.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    image.thumbnail((_WIDTH, image.height))
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=82)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"

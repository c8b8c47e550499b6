"""What `distill evaluate --full` leaves in a run: a file for each network and split, below `evaluation`."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distill_app.runs.files import read_object, write_sealed

FOLDER = "evaluation"


def place_of(folder: Path, *, network: str, split: str, mark: str = "") -> Path:
    """Where an evaluation lies, without its ending.

    Args:
        folder: Of the run.
        network: Which network.
        split: Of the data.
        mark: The checkpoint, empty for the weights that the run ended with.
    """
    parts = [network, split, *([mark] if mark else [])]
    return folder / FOLDER / "_".join(re.sub(r"[^\w.-]+", "-", part) for part in parts)


def write(place: Path, value: Mapping[str, Any]) -> Path:
    """Writes an evaluation and says where."""
    place.parent.mkdir(parents=True, exist_ok=True)
    file = place.with_name(f"{place.name}.json")
    write_sealed(file, value)
    return file


def read_all(folder: Path) -> dict[str, dict[str, Any]]:
    """The evaluations of a run by name, those that can be read; what is in them may come from others."""
    files = sorted((folder / FOLDER).glob("*.json"))
    found = {file.stem: read_object(file) for file in files}
    return {name: value for name, value in found.items() if value is not None}

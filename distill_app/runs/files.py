"""Writing and reading the files of a run: whole or not at all, strict JSON."""

import json
import math
import os
import tempfile
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distill_app.runs.untrusted import read_text

_TEMPORARY, _SEAL = ".tmp", "crc32"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


UMASK = _umask()  # looked at once: for a moment it is that of the whole process, and of its other threads


def now() -> str:
    """The local time with its offset from UTC, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def finite(value: Any, *, path: str = "", notes: dict[str, str] | None = None) -> Any:
    """Replaces NaN and infinities, which JSON lacks, by None; `notes` maps their paths to "nan" or "inf"."""
    if isinstance(value, Mapping):
        prefix = f"{path}." if path else ""
        return {str(k): finite(v, path=f"{prefix}{k}", notes=notes) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(v, path=f"{path}[{i}]", notes=notes) for i, v in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        if notes is not None:
            notes[path] = str(float(value))
        return None
    return value


def _jsonable(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        return finite(value.item())
    raise TypeError(f"cannot write {type(value).__name__} as JSON")


def to_json(value: Any, *, indent: int | None = None) -> str:
    """Strict JSON: what is not finite becomes null, paths become text, zero-dimensional arrays numbers."""
    return json.dumps(finite(value), indent=indent, default=_jsonable, allow_nan=False)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Replaces a file atomically: a reader sees the old or the new content, also after a crash."""
    path = Path(path)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=_TEMPORARY)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes private files, but a run is to be read by the group as its other files are.
        os.chmod(temporary, 0o666 & ~UMASK)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def remove_leftovers(*folders: str | os.PathLike[str]) -> None:
    """Removes what a process that was killed in `write_text` has left in folders, and not below them."""
    for folder in folders:
        for file in Path(folder).glob(f".*{_TEMPORARY}"):
            file.unlink(missing_ok=True)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Replaces a JSON file atomically (see `to_json` for what is converted)."""
    write_text(path, to_json(value, indent=2) + "\n")


def write_sealed(path: str | os.PathLike[str], value: Mapping[str, Any]) -> None:
    """Replaces a file with a JSON object and a checksum of it, its last entry: numbers in it are results."""
    plain = json.loads(to_json(value))
    write_json(path, {**plain, _SEAL: _digest(plain)})


def _digest(value: Mapping[str, Any]) -> str:
    return f"{zlib.crc32(to_json(value).encode()):08x}"


def read_object(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The JSON object in a file; None where there is none, it cannot be read, or does not match its checksum."""
    try:
        value = json.loads(read_text(path))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    seal = value.pop(_SEAL, None)
    return value if seal is None or seal == _digest(value) else None

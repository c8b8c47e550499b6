"""`metrics.jsonl`: a record a line, each with a checksum, so that what a damaged disk makes of one is no result.

The checksum stands last under `timing`, where everything is that two equal runs need not share.
"""

import json
import os
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distill_app.runs.files import to_json, write_text
from distill_app.runs.untrusted import MOST_BYTES_OF_LINES, read_limited

METRICS = "metrics.jsonl"
_SEALED = re.compile(r', "crc32": "([0-9a-f]{8})"\}\}$')


@dataclass
class Journal:
    """What a file of records holds.

    Attributes:
        records: Those that can be trusted, in their order.
        damaged: The numbers of the other lines, counted from 1.
    """

    records: list[dict[str, Any]] = field(default_factory=list)
    damaged: list[int] = field(default_factory=list)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> "Journal":
        """Reads a file; where there is none, there are no records.

        Files of earlier versions have no checksums: there a line counts that is a JSON object.

        Raises:
            IrregularFile: It is no regular file, or is too large for one.
        """
        if not os.path.lexists(path):
            return cls()
        return cls.of(read_limited(path, most=MOST_BYTES_OF_LINES))

    @classmethod
    def of(cls, content: bytes) -> "Journal":
        """The records in the content of a file, or in a part of it."""
        lines = content.decode("utf-8", errors="replace").split("\n")
        sealed = any(_SEALED.search(line) for line in lines)
        found = cls()
        for number, line in enumerate(lines, start=1):
            record = _record(line, sealed=sealed)
            if record is not None:
                found.records.append(record)
            elif line:
                found.damaged.append(number)
        return found

    def loss(self, expected: int | None) -> str:
        """What is lost of so many records, in words with the numbers of damaged lines; empty where nothing is."""
        words = []
        if expected is not None and len(self.records) != expected:
            words.append(f"{len(self.records)} records are there, {expected} were written")
        if self.damaged:
            lines = ", ".join(map(str, self.damaged[:10])) + (", ..." if len(self.damaged) > 10 else "")
            words.append(f"damaged: line {lines}" if len(self.damaged) == 1 else f"damaged: lines {lines}")
        return "; ".join(words)


class JournalFile:
    """A file of records that is being written: each record is whole on its way to the disk before the next one.

    Attributes:
        count: The records that were appended or kept since it was opened.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.count = 0
        _drop_partial_line(self.path)
        self._open()

    def append(self, record: Mapping[str, Any]) -> None:
        """Writes a record behind the others.

        Raises:
            OSError: The disk is full, say: it is what results are made of, so this is an error of the run.
        """
        self._file.write(sealed_line(record))
        self.count += 1

    def keep(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Replaces the file by these records, whole or not at all."""
        self._file.close()
        write_text(self.path, "".join(map(sealed_line, records)))
        self.count = len(records)
        self._open()

    def sync(self) -> None:
        """Brings what was appended to the disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _open(self) -> None:
        self._file = open(self.path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115


def _drop_partial_line(path: Path) -> None:
    # A killed process leaves half a line; the next record must not be glued to it.
    if path.exists():
        content = path.read_bytes()
        if content and not content.endswith(b"\n"):
            with open(path, "r+b") as file:
                file.truncate(content.rfind(b"\n") + 1)


def sealed_line(record: Mapping[str, Any]) -> str:
    """The line of a record, with its line break; what depends on the clock lies under `timing`."""
    rest = {key: value for key, value in record.items() if key != "timing"}
    text = to_json({**rest, "timing": record.get("timing") or {"time": None}})
    return f'{text[:-2]}, "crc32": "{zlib.crc32(text.encode()):08x}"}}}}\n'


def _record(line: str, *, sealed: bool) -> dict[str, Any] | None:
    """The record of a line; None where it is none, or not what was written."""
    seal = _SEALED.search(line)
    if sealed:
        if seal is None:
            return None
        line = f"{line[: seal.start()]}}}}}"
        if f"{zlib.crc32(line.encode()):08x}" != seal[1]:
            return None
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None

"""Opening files that may come from somebody else: regular ones alone, and no more of them than a file has need of.

A fifo never ends, a device is no file, and a link in a run or a cache leads wherever its maker liked.
"""

import os
import stat
import zipfile
import zlib
from collections.abc import Iterator
from io import BufferedRandom, BufferedReader
from pathlib import Path
from typing import BinaryIO

from distill_app.errors import IrregularFile
from distill_app.words import size_text

MOST_BYTES = 2**24  # of JSON and YAML that is read as a whole; those of a run have some kilobytes
MOST_BYTES_OF_LINES = 2**31  # of metrics.jsonl: ten million records
_COMPRESSED = 2**25  # what archives may gain by unpacking
# What a run reads again or goes on writing; files of others in its folder are nobody's business.
NAMES = (
    *(".lock", "config_resolved.yaml", "command.txt", "status.json", "summary.json", "data.json", "git.json"),
    *("metrics.jsonl", "train.log", "git.diff", "env.json", "weights.json", "tracker.json"),
)
FOLDERS = ("checkpoints", "tensorboard", "samples", ".hydra")  # in which a run replaces and removes files


def open_regular(
    path: str | os.PathLike[str], *, links: bool = False, writable: bool = False
) -> BufferedReader | BufferedRandom:
    """Opens a regular file that is there, without waiting for whatever else may stand in its place.

    Args:
        path: The file.
        links: Whether it may be a symbolic link: where the user named it, or has put it there.
        writable: Opens it for writing as well.

    Raises:
        IrregularFile: It is a link, a fifo, a device, a socket or a folder.
        OSError: It cannot be opened.
    """
    if not links and os.path.islink(path):
        raise _linked(path)
    _require_regular(path, os.stat(path))  # opening some devices does something already
    access = os.O_RDWR if writable else os.O_RDONLY
    descriptor = os.open(path, access | os.O_NONBLOCK | os.O_CLOEXEC | (0 if links else os.O_NOFOLLOW))
    try:
        _require_regular(path, os.fstat(descriptor))
        return open(descriptor, "r+b") if writable else open(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_limited(path: str | os.PathLike[str], *, most: int = MOST_BYTES) -> bytes:
    """All of a regular file of a run or a cache, if that is not too much.

    Raises:
        IrregularFile: It is no regular file, or has more bytes than `most`.
        OSError: It cannot be read.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise IrregularFile(f"{path} has {size_text(size)}; at most {size_text(most)} are read of such a file")
        return file.read(most)


def read_text(path: str | os.PathLike[str], *, most: int = MOST_BYTES) -> str:
    """The same as text.

    Raises:
        IrregularFile: See `read_limited`.
        OSError: It cannot be read.
        UnicodeDecodeError: It is no text.
    """
    return read_limited(path, most=most).decode("utf-8")


def swells(file: BinaryIO) -> bool:
    """Whether a zip archive, as torch.save writes, unpacks to much more than it is: torch would do it, however large.

    Tensors are never compressed by torch; only the program text of TorchScript is. The file is left at its beginning.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
            return unpacked > os.fstat(file.fileno()).st_size + _COMPRESSED
    except (zipfile.BadZipFile, NotImplementedError, ValueError):
        return False  # what is no archive unpacks to nothing
    finally:
        file.seek(0)


def damaged_member(file: BinaryIO) -> str | None:
    """The first member of an archive of torch.save that does not match its checksum, which torch does not look at.

    None where all do, and for a file that is no archive. The file is left at its beginning.
    """
    try:
        if not zipfile.is_zipfile(file):
            return None
        with zipfile.ZipFile(file) as archive:
            return archive.testzip()
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, ValueError, EOFError) as error:
        return f"a member ({error})"
    finally:
        file.seek(0)


def refuse_irregular(folder: str | os.PathLike[str]) -> None:
    """Refuses a run's folder in which something else stands in the place of a file that a run reads or goes on writing.

    The folder itself may be a link: runs are moved to other disks.

    Raises:
        IrregularFile: There is a link, a fifo or the like.
    """
    for name in FOLDERS:
        for place, folders, _ in os.walk(Path(folder, name)):
            for path in (Path(place), *(Path(place, each) for each in folders)):
                if path.is_symlink():
                    raise _linked(path)
    for path in _files_of(Path(folder)):
        if path.is_symlink():
            raise _linked(path)
        if path.exists():
            _require_regular(path, path.stat())


def _files_of(folder: Path) -> Iterator[Path]:
    yield from (folder / name for name in NAMES)
    for parent in (folder / ".hydra", folder / "checkpoints"):
        yield from (Path(place, name) for place, _, names in os.walk(parent) for name in names)


def _linked(path: str | os.PathLike[str]) -> IrregularFile:
    return IrregularFile(
        f"{path} is a symbolic link, which is not followed here: what lies in a run or a cache may come from others. "
        f"If it is yours, put the file itself in its place"
    )


def _require_regular(path: str | os.PathLike[str], status: os.stat_result) -> None:
    if stat.S_ISREG(status.st_mode):
        return
    kinds = (
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISFIFO, "a fifo"),
        (stat.S_ISSOCK, "a socket"),
    )
    kind = next((name for test, name in kinds if test(status.st_mode)), "a device")
    raise IrregularFile(f"{path} is {kind}, not a file; remove it, or put a file in its place")

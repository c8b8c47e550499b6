"""Folders with one folder per class: which are classes, which files are images, and what is passed over. No torch."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

# All suffixes of the formats that `load_image` opens, in any case.
IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif"),
    *(".png", ".apng", ".webp", ".bmp", ".tif", ".tiff", ".gif"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
)
# What systems and programs leave beside and inside of the folders that they look into, as all that begins with a dot.
_LEFT_BEHIND = ("__MACOSX", "__pycache__", "lost+found", "@eaDir", "$RECYCLE.BIN", "System Volume Information")


def is_hidden(name: str) -> bool:
    """Whether a name in a folder of images is that of something which a system or a program left there."""
    return name.startswith(".") or name in _LEFT_BEHIND


def is_image(name: str) -> bool:
    """Whether a file is read as an image, by its name."""
    return not is_hidden(name) and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def class_folders(root: str | Path) -> list[str]:
    """The names of the class folders, in the order of their labels."""
    return sorted(name for name in _folders_in(root) if not is_hidden(name))


def hidden_folders(root: str | Path) -> list[str]:
    """The names of the folders beside the class folders that are none."""
    return sorted(name for name in _folders_in(root) if is_hidden(name))


def _folders_in(root: str | Path) -> list[str]:
    with os.scandir(root) as entries:
        return [entry.name for entry in entries if entry.is_dir()]


def has_image(folder: str | Path) -> bool:
    """Whether there is an image in a class folder, at any depth; it looks no further than the first."""
    with os.scandir(folder) as entries:
        if any(is_image(entry.name) for entry in entries):
            return True
    return any(files for _, files in ClassFolders([]).walk(str(folder), root=str(folder)))


@dataclass
class ClassFolders:
    """What lies in a folder of class folders.

    Attributes:
        classes: The names of the class folders, in the order of their labels.
        samples: Path and label of every image, ordered by label, folder and name.
        unread: Paths below the root of files that are not read: no images by their names, or links that lead nowhere.
        hidden: The same of folders that are passed over.
        loops: The same of links to a folder that they lie in, which would repeat their images without end.
        beside: Folders beside those for training, validation and test.
    """

    classes: list[str]
    samples: list[tuple[str, int]] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)
    loops: list[str] = field(default_factory=list)
    beside: list[str] = field(default_factory=list)

    @classmethod
    def scan(cls, root: str | Path) -> "ClassFolders":
        """Lists everything once; links are followed.

        Raises:
            OSError: A folder that cannot be listed.
        """
        root = str(root)
        found = cls(class_folders(root), hidden=hidden_folders(root))
        above = (os.path.realpath(root),)
        for label, name in enumerate(found.classes):
            folders = sorted(found.walk(os.path.join(root, name), root=root, above=above))
            found.samples += [(os.path.join(folder, file), label) for folder, files in folders for file in files]
        with os.scandir(root) as entries:  # an image that lies beside the class folders is of no class
            found.unread += [entry.name for entry in entries if is_image(entry.name) and not entry.is_dir()]
        for names in (found.unread, found.hidden):
            names.sort()
        return found

    def walk(self, folder: str, *, root: str, above: tuple[str, ...] = ()) -> Iterator[tuple[str, list[str]]]:
        """Yields a folder and those below it with the names of their images, and notes what is not read.

        Args:
            folder: Where to begin.
            root: What the noted paths are relative to.
            above: The real paths of the folders on the way to it.
        """
        place = os.path.realpath(folder)
        if place in above:
            self.loops.append(os.path.relpath(folder, root))
            return
        images, deeper = [], []
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir() and is_hidden(entry.name):
                    self.hidden.append(os.path.relpath(entry.path, root))
                elif entry.is_dir():
                    deeper.append(entry.path)
                elif is_image(entry.name) and entry.is_file():
                    images.append(entry.name)
                else:
                    self.unread.append(os.path.relpath(entry.path, root))
        yield folder, sorted(images)
        for path in sorted(deeper):
            yield from self.walk(path, root=root, above=(*above, place))

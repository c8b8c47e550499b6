"""Folders that are not there, or without what should be in them, told with what is there. No torch."""

import difflib
import os
from pathlib import Path

from distill_app.data.class_folders import IMAGE_SUFFIXES, class_folders, has_image, is_hidden

SHOWN = 3


def absence(root: str, *, kind: str = "folder") -> str:
    """That a folder or file is not there, and what is: its nearest name beside it, and the nearest folder above it."""
    place = os.path.abspath(root)
    if os.path.exists(place):
        return f"{root} is a {'file' if os.path.isfile(place) else 'folder'}, not a {kind}"
    if root.startswith("~"):
        return f"{root} is not there: ~ is the home folder in a shell only; write {os.path.expanduser(root)}"
    missing = place
    while not os.path.isdir(above := os.path.dirname(missing)):
        missing = above
    names = os.listdir(above) if os.access(above, os.R_OK) else []
    near = difflib.get_close_matches(os.path.basename(missing), names, n=1, cutoff=0.5)
    hint = f"; did you mean {os.path.join(above, near[0])}?" if near else ""
    there = "" if missing == place else f", nor is {missing}"
    return f"{root} is not there ({place}{there}){hint}"


def folder_problems(root: str | Path) -> list[str]:
    """What keeps a folder from being a data set of class folders: missing, no classes, or empty classes."""
    if not os.path.isdir(root):
        return [f"{root} is not a folder{_beside(Path(root))}"]
    try:
        classes = class_folders(root)
        if not classes:
            return [f"{root} has no class folders{_contents(root)}"]
        empty = [name for name in classes if not has_image(os.path.join(root, name))]
    except OSError as error:
        return [f"{error.filename} cannot be listed: {error.strerror}"]
    if not empty:
        return []
    more = f" and {len(empty) - SHOWN} more" if len(empty) > SHOWN else ""
    names = ", ".join(f"{os.path.join(root, name)}{_contents(os.path.join(root, name))}" for name in empty[:SHOWN])
    return [f"no image in the class folder{'s' if len(empty) > 1 else ''} {names}{more}"]


def _beside(root: Path) -> str:
    """What lies where a folder of class folders was looked for: it may have another name, or none of its own."""
    if not root.parent.is_dir():
        return ""
    names = sorted(name for name in os.listdir(root.parent) if not is_hidden(name))
    shown = f"{', '.join(names[: 2 * SHOWN])}{', ...' if len(names) > 2 * SHOWN else ''}"
    return f" ({root.parent} has: {shown or 'nothing'})"


def _contents(folder: str | Path) -> str:
    """What lies in a folder without images."""
    names = sorted(os.listdir(folder))
    if not names:
        return ""
    suffixes = sorted({os.path.splitext(name)[1].lower() for name in names} - {""} - set(IMAGE_SUFFIXES))
    kinds = f"; images are {' '.join(IMAGE_SUFFIXES)}, not {' '.join(suffixes[:SHOWN])}" if suffixes else ""
    return f" (it has {', '.join(names[:SHOWN])}{', ...' if len(names) > SHOWN else ''}{kinds})"

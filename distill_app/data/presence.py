"""Is the data where the config says? Answered before anything is built, without importing torch."""

import difflib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from distill_app.data.class_folders import IMAGE_SUFFIXES, class_folders, has_image, hidden_folders, is_hidden

# What torchvision's data sets expect below their root.
EXPECTED = {
    "torchvision.datasets.CIFAR10": "cifar-10-batches-py",
    "torchvision.datasets.CIFAR100": "cifar-100-python",
    "torchvision.datasets.FashionMNIST": "FashionMNIST/raw",
}
OBJECTS = "distill_app.data.CocoDetection"
TORCHVISION = "torchvision.datasets.ImageFolder"
SHOWN = 3


def missing_data(dataset: Any, *, key: str = "dataset") -> list[str]:
    """What is wrong with the files of a data set, a message each; empty if nothing is.

    Args:
        dataset: a `DatasetConf`, as a config node or a dataclass.
        key: where it is in the config, for the messages.
    """
    node = dataset if OmegaConf.is_config(dataset) else OmegaConf.structured(dataset)
    conf: Any = OmegaConf.to_container(node, resolve=True)
    hint = f"; to get the data: {conf['get']}" if conf.get("get") else ""
    root = conf.get("root")
    if root is not None and not os.path.isdir(root):
        return [f"{key}.root: {absence(root)}{hint}"]
    splits = {name: conf[name] for name in ("train", "test") if isinstance(conf.get(name), Mapping)}
    expected = {EXPECTED.get(split.get("_target_", "")) for split in splits.values()} - {None}
    problems = [
        f"{key}.root: {root} has no {name}{hint}"
        for name in sorted(map(str, expected))
        if root is not None and not Path(root, name).is_dir()
    ]
    problems += [f"{problem}{hint}" for problem in _object_problems(splits, key=key)]
    folders = {name: folder for name, split in splits.items() if (folder := _folder(split)) is not None}
    for name, folder in folders.items():
        problems += [f"{key}.{name}.root: {problem}{hint}" for problem in folder_problems(folder)]
        if splits[name]["_target_"] == TORCHVISION:
            problems += [f"{key}.{name}: {problem}" for problem in _torchvision_problems(folder)]
    return problems or _class_problems(folders, key=key, num_classes=conf.get("num_classes"))


def count_classes(dataset: DictConfig) -> int | None:
    """How many classes the training images of a config node have: class folders, or categories of a file of objects.

    None where they lie in neither; 0 where there is no such folder or file, which `missing_data` tells.
    """
    try:
        names = ("_target_", "root", "annotations", "labels")
        conf = {name: OmegaConf.select(dataset, f"train.{name}") for name in names}
    except OmegaConfBaseException:  # a root that cannot be resolved is told by whoever resolves the config
        return None
    if str(conf["_target_"]).endswith(OBJECTS):
        return _count_categories(str(conf["annotations"]), ids=conf["labels"] == "ids")
    folder = _folder(conf)
    if folder is None:
        return None
    return len(class_folders(folder)) if os.path.isdir(folder) else 0


def _count_categories(path: str, *, ids: bool) -> int:
    """Categories that a file of objects declares, or the highest of their ids; 0 where it is none."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        found = {int(each["id"]) for each in content["categories"]}
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return 0
    return max(found, default=0) if ids else len(found)


def _object_problems(splits: Mapping[str, Any], *, key: str) -> list[str]:
    """Folders of images and files of objects that are not there."""
    problems = []
    for name, split in splits.items():
        if not str(split.get("_target_")).endswith(OBJECTS):
            continue
        root, file = str(split.get("root")), str(split.get("annotations"))
        problems += [] if os.path.isdir(root) else [f"{key}.{name}.root: {absence(root)}"]
        problems += [] if os.path.isfile(file) else [f"{key}.{name}.annotations: there is no file {file}"]
    return problems


def _folder(conf: Mapping[str, Any]) -> str | None:
    """The root of an image folder's config."""
    is_folder = str(conf.get("_target_")).endswith(".ImageFolder") and isinstance(conf.get("root"), str)
    return conf["root"] if is_folder and conf["root"] != "???" else None


def absence(root: str) -> str:
    """That a folder is not there, and what is: its nearest name beside it, and the nearest folder above it."""
    place = os.path.abspath(root)
    if os.path.exists(place):
        return f"{root} is a file, not a folder"
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


def _torchvision_problems(root: str) -> list[str]:
    hidden = hidden_folders(root) if os.path.isdir(root) else []
    return [
        f"{TORCHVISION} takes the folder {os.path.join(root, name)} for a class; remove it, or use "
        f"distill_app.data.ImageFolder"
        for name in hidden[:SHOWN]
    ]


def _class_problems(folders: dict[str, str], *, key: str, num_classes: Any) -> list[str]:
    """Labels are positions among the sorted names: another set of folders in test means other labels."""
    names = {split: class_folders(root) for split, root in folders.items()}
    problems = []
    if "train" in names and isinstance(num_classes, int) and len(names["train"]) != num_classes:
        count = len(names["train"])
        problems.append(
            f"{key}.num_classes: {num_classes} was given, {folders['train']} has {count} class folders; "
            f"set {key}.num_classes={count}"
        )
    if len(names) == 2 and names["train"] != names["test"]:
        only = {split: sorted(set(names[split]) - set(names[other])) for split, other in _BOTH_WAYS}
        sides = [f"{folders[split]} alone has {_shown(odd)}" for split, odd in only.items() if odd]
        problems.append(
            f"{key}.test.root: {folders['train']} and {folders['test']} differ in the class folders "
            f"{_shown(only['train'] + only['test'])}: {'; '.join(sides)}. Labels are positions among the sorted names, "
            f"so the two would not mean the same"
        )
    return problems


_BOTH_WAYS = (("train", "test"), ("test", "train"))


def _shown(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")

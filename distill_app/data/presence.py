"""Is the data where the config says? Answered before anything is built, without importing torch."""

import os
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

# As torchvision's ImageFolder.
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
# What torchvision's data sets expect below their root.
EXPECTED = {
    "torchvision.datasets.CIFAR10": "cifar-10-batches-py",
    "torchvision.datasets.CIFAR100": "cifar-100-python",
    "torchvision.datasets.FashionMNIST": "FashionMNIST/raw",
}
_SHOWN = 3


def missing_data(dataset: Any, *, key: str = "dataset") -> list[str]:
    """What is wrong with the files of a data set, a message each; empty if nothing is.

    Args:
        dataset: a `DatasetConf`, as a config node or a dataclass.
        key: where it is in the config, for the messages.
    """
    node = dataset if OmegaConf.is_config(dataset) else OmegaConf.structured(dataset)
    conf: Any = OmegaConf.to_container(node, resolve=True)
    if conf.get("root") is None:
        return []
    hint = f"; to get the data: {conf['get']}" if conf.get("get") else ""
    place = f"{key}.root: {conf['root']}"
    if not os.path.isdir(conf["root"]):
        return [f"{place} is not there ({os.path.abspath(conf['root'])}){hint}"]
    splits = {name: conf[name] for name in ("train", "test") if isinstance(conf.get(name), dict)}
    expected = {EXPECTED.get(split.get("_target_", "")) for split in splits.values()} - {None}
    problems = [
        f"{place} has no {name}{hint}" for name in sorted(map(str, expected)) if not Path(conf["root"], name).is_dir()
    ]
    folders = {
        name: split["root"]
        for name, split in splits.items()
        if split.get("_target_", "").endswith(".ImageFolder") and "root" in split
    }
    for name, folder in folders.items():
        problems += [f"{key}.{name}.root: {problem}{hint}" for problem in folder_problems(folder)]
    return problems or _class_problems(folders, key=key, num_classes=conf.get("num_classes"))


def folder_problems(root: str | Path) -> list[str]:
    """What keeps a folder from being a data set of class folders: missing, no classes, or empty classes."""
    if not os.path.isdir(root):
        return [f"{root} is not a folder"]
    classes = class_folders(root)
    if not classes:
        return [f"{root} has no class folders"]
    empty = [name for name in classes if not _has_image(os.path.join(root, name))]
    if not empty:
        return []
    more = f" and {len(empty) - _SHOWN} more" if len(empty) > _SHOWN else ""
    names = ", ".join(os.path.join(root, name) for name in empty[:_SHOWN])
    return [f"no image in the class folder{'s' if len(empty) > 1 else ''} {names}{more}"]


def class_folders(root: str | Path) -> list[str]:
    """The names of the class folders, in the order of their labels."""
    with os.scandir(root) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir())


def _has_image(folder: str) -> bool:
    # os.walk lists a whole folder before it yields; scanning usually ends at the first entry.
    with os.scandir(folder) as entries:
        if any(entry.name.lower().endswith(IMAGE_SUFFIXES) for entry in entries):
            return True
    walk = os.walk(folder, followlinks=True)
    return any(name.lower().endswith(IMAGE_SUFFIXES) for _, _, names in walk for name in names)


def _class_problems(folders: dict[str, str], *, key: str, num_classes: Any) -> list[str]:
    """Labels are positions among the sorted names: another set of folders in test means other labels."""
    names = {split: class_folders(root) for split, root in folders.items()}
    if "train" in names and isinstance(num_classes, int) and len(names["train"]) > num_classes:
        count = len(names["train"])
        return [
            f"{key}.num_classes: {num_classes} was given, {folders['train']} has {count} class folders; "
            f"set {key}.num_classes={count}"
        ]
    if len(names) == 2 and names["train"] != names["test"]:
        odd = sorted(set(names["train"]) ^ set(names["test"]))
        shown = ", ".join(odd[:_SHOWN])
        return [f"{key}: {folders['train']} and {folders['test']} differ in the class folders {shown}"]
    return []

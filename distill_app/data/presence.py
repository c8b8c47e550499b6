"""Is the data where the config says? Answered before anything is built, without importing torch."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from distill_app.data.absence import SHOWN, absence, folder_problems
from distill_app.data.class_folders import class_folders, hidden_folders
from distill_app.data.objects import MOST_ID
from distill_app.data.own import is_own, own_classes, own_problems, unread_settings

# What torchvision's data sets expect below their root.
EXPECTED = {
    "torchvision.datasets.CIFAR10": "cifar-10-batches-py",
    "torchvision.datasets.CIFAR100": "cifar-100-python",
    "torchvision.datasets.FashionMNIST": "FashionMNIST/raw",
}
OBJECTS = "distill_app.data.CocoDetection"
WITH_OBJECTS = (OBJECTS, "distill_app.data.CocoSegmentation")  # files that name them
TORCHVISION = "torchvision.datasets.ImageFolder"


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
    if is_own(conf.get("train")):
        return own_problems(conf, key=key)
    problems += [f"{problem}{hint}" for problem in _object_problems(splits, key=key)]
    folders = {name: folder for name, split in splits.items() if (folder := _folder(split)) is not None}
    for name, folder in folders.items():
        problems += [f"{key}.{name}.root: {problem}{hint}" for problem in folder_problems(folder)]
        if splits[name]["_target_"] == TORCHVISION:
            problems += [f"{key}.{name}: {problem}" for problem in _torchvision_problems(folder)]
    problems += unread_settings(conf, key=key)
    return problems or _class_problems(folders, key=key, num_classes=conf.get("num_classes"))


def classes_of(dataset: DictConfig) -> list[str] | None:
    """The names of the classes of a config node's data, as far as files say them; None where they do not.

    Those of objects are the categories that a file declares. An empty list where there should be some and nothing is,
    which `missing_data` tells.
    """
    if OmegaConf.is_missing(dataset, "train") or not OmegaConf.is_dict(dataset.train):
        return None
    try:
        train: Any = OmegaConf.to_container(dataset.train, resolve=True)
    except OmegaConfBaseException:  # what cannot be resolved is told by whoever resolves the config
        return [] if is_own(OmegaConf.to_container(dataset.train, resolve=False)) else None
    if is_own(train):
        return own_classes(train)
    if str(train.get("_target_")).endswith(OBJECTS):
        return _categories(str(train.get("annotations")), ids=train.get("labels") == "ids")
    folder = _folder(train)
    if folder is None:
        return None
    return class_folders(folder) if os.path.isdir(folder) else []


def _categories(path: str, *, ids: bool) -> list[str]:
    """Names of the categories that a file of objects declares, in the order of their ids; none where it is no file.

    Args:
        path: The file.
        ids: Whether ids are the labels: then ids that no category has are classes, too, named by their number.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        names = {int(each["id"]): str(each.get("name", each["id"])) for each in content["categories"]}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return []
    if not ids:
        return [names[number] for number in sorted(names)]
    if (last := max(names, default=0)) > MOST_ID:  # which the data set refuses
        return []
    return [names.get(number, str(number)) for number in range(1, last + 1)]


def _object_problems(splits: Mapping[str, Any], *, key: str) -> list[str]:
    """Folders of images and files of objects that are not there."""
    problems = []
    for name, split in splits.items():
        if not str(split.get("_target_")).endswith(WITH_OBJECTS):
            continue
        root, file = str(split.get("root")), str(split.get("annotations"))
        problems += [] if os.path.isdir(root) else [f"{key}.{name}.root: {absence(root)}"]
        problems += [] if os.path.isfile(file) else [f"{key}.{name}.annotations: there is no file {file}"]
    return problems


def _folder(conf: Mapping[str, Any]) -> str | None:
    """The root of an image folder's config."""
    is_folder = str(conf.get("_target_")).endswith(".ImageFolder") and isinstance(conf.get("root"), str)
    return conf["root"] if is_folder and conf["root"] != "???" else None


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

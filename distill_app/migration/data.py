"""Data sets, their transforms, and what loads them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from distill_app.config.groups import conf_dir
from distill_app.errors import UsageError
from distill_app.migration.ledger import Node
from distill_app.migration.networks import home
from distill_app.migration.transforms import TO_TENSOR, class_of, keywords, listed, transforms

TORCHVISION = "torchvision.datasets"
SPLIT = "datasets.util.split_dataset"
# Class -> the data set of this package that it is.
BASES = {"CIFAR10": "cifar10", "CIFAR100": "cifar100", "ImageFolder": "imagenet"}


@dataclass
class Source:
    """A data set as the file describes it: its class, arguments and transforms, and of which split a part it is."""

    node: Node
    kind: str
    given: Node  # its arguments as they stand there
    arguments: dict[str, Any]
    transforms: list[Node] = field(default_factory=list)
    share: float = 1.0  # of the images
    whole: str | None = None  # what it is a part of

    def like(self, other: "Source") -> bool:
        """Whether the images are the same."""
        return (self.kind, self.arguments, self.share) == (other.kind, other.arguments, other.share)


@dataclass
class Data:
    """What the experiment says of its data: an option of the group `dataset`, a file for it, what it sets beside."""

    option: str
    content: dict[str, Any] | None
    conf: dict[str, Any]
    train: str  # the id of the training data
    whole_test: bool = False


def sources(node: Node) -> dict[str, Source]:
    """All data sets of the file by the id that loaders use; those that none names are never looked at again."""
    found: dict[str, Source] = {}
    parts = [child.value for _, child in node.items() if child.tag == "!access_by_index_or_key"]
    wholes = [part["data"] for part in parts if isinstance(part.get("data"), Mapping)]
    for name, child in node.items():
        if child.value in wholes:
            child.use()  # what is in it is read where its parts refer to it
        elif child.tag is not None:
            found |= _tagged(name, child)
        elif child.has("splits"):
            found |= _of_splits(child)
        else:
            child.leave("no description of a data set that is known here")
    return found


def _tagged(name: str, node: Node) -> dict[str, Source]:
    """The form of version 1: what !import_call would build, or a part of a split."""
    if node.tag == "!access_by_index_or_key":
        split = node.get("data")
        part = _part(split, node.whole("index_or_key"))
        return {name: part} if part is not None else {}
    if str(node.value.get("key", "")).endswith(SPLIT):
        node.leave("no part of it is read")
        return {}
    source = _called(node)
    return {name: source} if source is not None else {}


def _called(node: Node) -> Source | None:
    kind = class_of(node, TORCHVISION)
    if kind is None or not kind.isidentifier():
        node.leave("its class is no data set of torchvision; name one of your own by dataset.train._target_")
        return None
    arguments = keywords(node)
    source = Source(node, kind, arguments, {}, listed(arguments.get("transform")))
    arguments.text("root", default=None)
    arguments.flag("download", default=None)
    given = ("transform", "target_transform", "transforms", "loader")
    for name in given:
        child = arguments.get(name)
        if not child:
            child.use()
        elif name != "transform":
            child.leave("transforms of labels and loaders of one's own belong into a data set of your own here")
    source.arguments = arguments.handed_on(*given)
    return source


def _part(split: Node, index: int) -> Source | None:
    """A part of split_dataset: the whole, its share, and the transforms that it has for itself."""
    if split.tag != "!import_call" or not split.text("key").endswith(SPLIT):
        split.leave("no part of a data set that is known here")
        return None
    arguments = keywords(split)
    source = _called(arguments.get("dataset"))
    lengths = _lengths(arguments) or [9, 1]
    seed = arguments.whole("generator_seed", default=None)
    arguments.text("dataset_id", default=None)
    if source is None or index >= len(lengths):
        split.leave("no part of a data set that is known here")
        return None
    own = Node(None, split.ledger)
    for place, child in enumerate(arguments.get("sub_splits_configs").entries()):
        if place == index:
            own = child
        else:
            child.get("transform").use()  # that of another part
    return _share(source, own.get("transform"), lengths, index, f"{split.key} {seed}")


def _lengths(node: Node) -> list[float]:
    lengths = node.numbers("lengths")
    if lengths and not min(lengths) > 0:
        raise node.get("lengths").wrong("no list of shares above 0")
    return lengths


def _share(source: Source, transform: Node, lengths: list[float], index: int, whole: str) -> Source:
    source.share = float(lengths[index]) / float(sum(lengths))
    # The same split under several ids has several paths; what it is of, and how it was drawn, says which it is.
    source.whole = f"{source.kind} {sorted(source.arguments.items(), key=str)} {whole.rsplit(' ', 1)[-1]}"
    source.transforms = listed(transform) or source.transforms
    return source


def _of_splits(node: Node) -> dict[str, Source]:
    """The form of version 0: a class and its splits."""
    kind = node.text("type", "key")
    if not kind.isidentifier():
        raise node.get("type", "key").wrong("no class of torchvision.datasets")
    node.text("name", default=None)
    node.text("root", default=None)
    found: dict[str, Source] = {}
    for _, split in node.get("splits").items():
        arguments, name = split.get("params", "kwargs"), split.text("dataset_id")
        listing = arguments.get("transform_params", "transform_configs")
        listing.use() if not listing else None
        steps = listing.entries()
        arguments.text("root", default=None)
        arguments.flag("download", default=None)
        given = ["transform_params", "transform_configs"]
        for argument, child in arguments.items():
            if argument not in given and (argument.endswith(("_params", "_configs", "_cls")) or argument == "loader"):
                given.append(argument)
                child.leave("transforms of labels and loaders of one's own belong into a data set of your own here")
        source = Source(split, kind, arguments, arguments.handed_on(*given), steps)
        if not split.has("random_split"):
            found[name] = source
            continue
        division = split.get("random_split")
        lengths, seed = _lengths(division), division.whole("generator_seed", default=None)
        parts = division.get("sub_splits").entries()
        if len(parts) > len(lengths):
            raise division.get("lengths").wrong(f"not as long as the list of {len(parts)} sub_splits")
        for place, part in enumerate(parts):
            own = Source(split, kind, arguments, dict(source.arguments))
            transform = part.get("transform_params", "transform_configs")
            found[part.text("dataset_id")] = _share(own, transform, lengths, place, f"split {seed}")
    return found


def dataset(train: Source, test: Source, *, num_classes: int) -> Data:
    """The data set with the transforms of training and evaluation.

    Raises:
        UsageError: Training and test data are of two classes.
    """
    if train.kind != test.kind:
        raise UsageError(
            f"{test.node.key}: {test.kind} tests what was trained on {train.kind}; here both are of one class"
        )
    conf: dict[str, Any] = {"num_classes": num_classes}
    found, normalize = transforms(train.transforms)
    judged, other = transforms(test.transforms)
    if normalize is not None and other is not None and normalize != other:
        test.node.differ("training and test images are normalised alike here, as those of training")
    if normalize is None:
        normalize = {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}
    first = [] if train.kind == "ImageFolder" else [TO_TENSOR]
    conf |= {"train_transform": first + found, "eval_transform": first + judged, "normalize": normalize}
    size = next((each["size"] for each in reversed(found) if isinstance(each.get("size"), int)), None)
    conf |= {"image_size": size} if size else {}
    if train.kind == "ImageFolder":
        return _folders(train, test, conf)
    return _torchvision(train, test, conf)


def _folders(train: Source, test: Source, conf: dict[str, Any]) -> Data:
    roots = [home(source.given.text("root")) for source in (train, test)]
    for source in (train, test):
        source.arguments.pop("root", None)
    _leavearguments(train, test)
    above = [root.rpartition("/")[0] for root in roots]
    if above[0] == above[1] and [root.rpartition("/")[2] for root in roots] == ["train", "val"]:
        conf["root"] = above[0]
    else:
        conf |= {"root": None, "train": {"root": roots[0]}, "test": {"root": roots[1]}}
    own = conf["num_classes"] != 1000
    conf["name"] = "images" if own else "imagenet"
    conf |= {"get": None} if own or conf["root"] is None else {}
    return Data("imagenet", None, _without(conf, "imagenet"), train="")


def _torchvision(train: Source, test: Source, conf: dict[str, Any]) -> Data:
    root, other = (home(source.arguments.pop("root", None) or "") for source in (train, test))
    for source in (train, test):
        if source.arguments.pop("download", False):
            source.node.differ("nothing is downloaded: the data have to be there, dataset.get says how to get them")
    conf["root"] = root
    base = BASES.get(train.kind)
    if base is not None and train.arguments == {"train": True} and test.arguments == {"train": False}:
        conf |= {"test": {"root": other}} if other != root else {}
        return Data(base, None, _without(conf, base), train="")
    name = train.kind.lower()
    target = {"_target_": f"{TORCHVISION}.{train.kind}", "root": "${..root}"}
    sides = {"train": target | train.arguments, "test": target | test.arguments}
    sides["test"] |= {"root": other} if other != root else {}
    task = {"_target_": "distill_app.tasks.Classification"}
    content = {"name": name, "image_size": None, **conf, **sides, "task": task}
    return Data(f"{name}_imported", content, {}, train="")


def _leavearguments(*found: Source) -> None:
    for source in found:
        for name in source.arguments:
            source.given.get(name).leave(f"the folders of {source.kind} take no such argument here")


def _without(conf: dict[str, Any], option: str) -> dict[str, Any]:
    """What the shipped data set does not say already."""
    with open(f"{conf_dir()}/dataset/{option}.yaml", encoding="utf-8") as file:
        shipped = yaml.safe_load(file)
    size = shipped["image_size"]
    return {key: value for key, value in conf.items() if _plain(shipped.get(key), size) != _plain(value, size)}


def _plain(value: Any, size: int) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item, size) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, size) for item in value]
    return size if value == "${...image_size}" else value


def validation(data: Data, train: Source, *, val_node: Node, same_as_test: bool) -> None:
    """What judges the epochs: the test images, or a part of those of training."""
    if train.whole is not None:
        data.conf["validation_fraction"] = round(1.0 - train.share, 6)
        val_node.differ(
            "as large a part of the training images is held out, of every class alike, and drawn in another way: the "
            "images are others"
        )
    elif same_as_test:
        data.conf["validation_fraction"] = 0.0
    else:
        data.conf["validation_fraction"] = 0.1
        val_node.leave(
            "validation images of their own have no counterpart: a tenth of the training images is held out for it"
        )
    if data.content is not None:
        data.content |= data.conf
        data.conf = {}

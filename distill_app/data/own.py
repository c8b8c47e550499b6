"""Data of the user's own, by what the config says of them: whether they are there, and which classes they have.

Answered before anything is built, without torch; what is right here is built by the class that the config names.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from distill_app.data.hub import hub_classes, hub_listing
from distill_app.data.listing import folder_listing, found_classes
from distill_app.data.map_files import map_listing
from distill_app.data.tables import table_classes, table_listing
from distill_app.errors import DataError
from distill_app.words import some

# The class -> what lists its images, and what finds its classes alone, for those where that takes less.
_LISTED: dict[str, Callable[..., Any]] = {
    "distill_app.data.ImageFolder": folder_listing,
    "distill_app.data.CsvImages": table_listing,
    "distill_app.data.HuggingFaceImages": hub_listing,
    "distill_app.data.MapFolder": map_listing,
}
_CLASSES: dict[str, Callable[..., list[str]]] = {
    "distill_app.data.ImageFolder": found_classes,
    "distill_app.data.CsvImages": table_classes,
    "distill_app.data.HuggingFaceImages": hub_classes,
}
# Keys of a data set's config that only own data have.
SETTINGS = ("classes", "file", "path", "subset", "columns", "splits", "test_fraction", "split_seed")


def is_own(conf: Any) -> bool:
    """Whether the config of training images is of a data set that finds its classes and parts by itself."""
    return isinstance(conf, Mapping) and conf.get("_target_") in _LISTED and conf.get("split") is not None


def own_classes(conf: Mapping[str, Any]) -> list[str]:
    """The classes, in the order of their labels; [] where they cannot be found, which `own_problems` tells.

    Args:
        conf: Of the training images, resolved.
    """
    if conf.get("classes"):
        return [str(name) for name in conf["classes"]]
    function = _CLASSES.get(conf["_target_"]) or _LISTED[conf["_target_"]]
    if _unsaid(function, conf):
        return []
    try:
        found = _called(function, conf)
        return list(found if isinstance(found, list) else found.classes)
    except (DataError, OSError):
        return []


def own_problems(conf: Mapping[str, Any], *, key: str) -> list[str]:
    """What keeps own data from being read, or from the classes that the config names, a message each.

    Args:
        conf: Of the data set, resolved.
        key: Where it is in the config.
    """
    if unread := unread_settings(conf, key=key):
        return unread
    function = _LISTED[conf["train"]["_target_"]]
    if unsaid := _unsaid(function, conf["train"]):
        return [f"{key}.{name}: is missing; set it: '{key}.{name}=...'" for name in unsaid]
    try:
        listing = _called(function, conf["train"])
    except DataError as error:
        return [f"{key}.{error}"]
    except OSError as error:
        return [f"{key}: {error.filename} cannot be read: {error.strerror or error}"]
    count = conf.get("num_classes")
    if isinstance(count, int) and count != len(listing.classes):
        return [
            f"{key}.num_classes: {count} was given, and there are {len(listing.classes)} classes "
            f"({some(listing.classes)}); set {key}.num_classes={len(listing.classes)}, or leave it out"
        ]
    return []


def own_listing(conf: Mapping[str, Any]) -> Any:
    """The images of own data: a `Listing`, or a `HubListing`.

    Args:
        conf: Of the training images, resolved.

    Raises:
        DataError, OSError: As told by `own_problems`.
    """
    return _called(_LISTED[conf["_target_"]], conf)


def unread_settings(conf: Mapping[str, Any], *, key: str) -> list[str]:
    """Settings of own data that were given to a data set of this program which does not read them."""
    train = conf.get("train")
    target = str(train.get("_target_", "")) if isinstance(train, Mapping) else ""
    if not target.startswith(("distill_app.data.", "torchvision.datasets.")):
        return []
    read = inspect.signature(_LISTED[target]).parameters if is_own(train) else ()
    given = [name for name in SETTINGS if name not in read and _says_something(conf.get(name))]
    return [f"{key}.{name}: nothing of dataset={conf.get('name')} reads it; leave it out" for name in given]


def _says_something(value: Any) -> bool:
    return any(value.values()) if isinstance(value, Mapping) else bool(value)


def _unsaid(function: Callable[..., Any], conf: Mapping[str, Any]) -> list[str]:
    """What a data set cannot be found without, and nobody has said."""
    needed = [name for name, each in inspect.signature(function).parameters.items() if each.default is each.empty]
    return [name for name in needed if conf.get(name) is None]


def _called(function: Callable[..., Any], conf: Mapping[str, Any]) -> Any:
    known = inspect.signature(function).parameters
    return function(**{name: value for name, value in conf.items() if name in known})

"""Data of the user's own, by what the config says of them: whether they are there, and which classes they have.

Answered before anything is built, without torch; what is right here is built by the class that the config names.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from distill_app.data.listing import folder_listing, found_classes
from distill_app.errors import DataError
from distill_app.words import some

# The class -> what lists its images, and what finds its classes alone where that takes less.
_LISTED: dict[str, Callable[..., Any]] = {"distill_app.data.ImageFolder": folder_listing}
_CLASSES: dict[str, Callable[..., list[str]]] = {"distill_app.data.ImageFolder": found_classes}
# Keys of a data set's config that only own data have, with the value that says nothing.
SETTINGS: dict[str, Any] = {"splits": {}, "test_fraction": None, "split_seed": 0}


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
    try:
        return _called(_CLASSES[conf["_target_"]], conf)
    except (DataError, OSError):
        return []


def own_problems(conf: Mapping[str, Any], *, key: str) -> list[str]:
    """What keeps own data from being read, or from the classes that the config names, a message each.

    Args:
        conf: Of the data set, resolved.
        key: Where it is in the config.
    """
    try:
        listing = _called(_LISTED[conf["train"]["_target_"]], conf["train"])
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


def unread_settings(conf: Mapping[str, Any], *, key: str) -> list[str]:
    """Settings of own data that were given to a data set of this program which does not read them."""
    target = str((conf.get("train") or {}).get("_target_", "")) if isinstance(conf.get("train"), Mapping) else ""
    if not target.startswith(("distill_app.data.", "torchvision.datasets.")):
        return []
    given = [name for name, nothing in SETTINGS.items() if conf.get(name, nothing) != nothing]
    return [f"{key}.{name}: nothing of dataset={conf.get('name')} reads it; leave it out" for name in given]


def _called(function: Callable[..., Any], conf: Mapping[str, Any]) -> Any:
    known = inspect.signature(function).parameters
    return function(**{name: value for name, value in conf.items() if name in known})

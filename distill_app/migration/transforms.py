"""Transforms of images, and what !import_call would call."""

from typing import Any

from distill_app.migration.ledger import Node

V2 = "torchvision.transforms.v2"
TO_TENSOR = {"_target_": f"{V2}.PILToTensor"}


def class_of(node: Node, module: str) -> str | None:
    """The name of a class of a module of torchvision that !import_call names, None of others."""
    if node.tag != "!import_call":
        return None
    key, package = node.text("key", default=""), node.text("package", default=None)
    place, _, name = f"{package}.{key}".rpartition(".") if package else key.rpartition(".")
    return name if place == module or place.startswith(f"{module}.") else None


def keywords(node: Node) -> Node:
    """The keyword arguments of !import_call."""
    init = node.get("init")
    if init.has("args"):
        init.get("args").leave("arguments by position; name them, under kwargs")
    init.use() if not init else None
    return init.get("kwargs")


def listed(node: Node) -> list[Node]:
    """The transforms of a Compose, of a list, or one."""
    if node.tag == "!import_call" and str(node.value.get("key", "")).endswith(".Compose"):
        class_of(node, "torchvision.transforms")
        return keywords(node).get("transforms").entries()
    if isinstance(node.value, list):
        return node.entries()
    return [node] if node else []


def transforms(nodes: list[Node]) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    """The transforms as torchvision's version 2 has them, and the mean and deviation behind them."""
    found: list[dict[str, Any]] = []
    normalize, tensors = None, False
    for node in nodes:
        plain = node.tag is None  # version 0
        name = node.text("type", "key") if plain else class_of(node, "torchvision.transforms")
        arguments = node.get("params", "kwargs") if plain else keywords(node)
        if name == "ToTensor":
            tensors = True
        elif name == "Normalize":
            normalize = {part: arguments.numbers(part) for part in ("mean", "std")}
        elif name is None or not _is_transform(name):
            node.leave("no transform of torchvision; name one of your own in dataset.train_transform, by its _target_")
            continue
        elif tensors:
            node.leave("images are normalised last here, and it comes after ToTensor")
            continue
        else:
            found.append({"_target_": f"{V2}.{name}", **_simplified(name, arguments)})
        arguments.rest("an argument that has no counterpart here")
        arguments.use() if not arguments else None
    return found, normalize


def _is_transform(name: str) -> bool:
    from torchvision.transforms import v2

    return name.isidentifier() and hasattr(v2, name)


def _simplified(name: str, arguments: Node) -> dict[str, Any]:
    """Arguments without what they are anyway, so that equal transforms are written alike."""
    values = arguments.handed_on()
    size = values.get("size")
    # Of Resize one number is the shorter side.
    if "Crop" in name and isinstance(size, list) and size and size == size[:1] * len(size):
        values["size"] = size[0]
    if name.startswith("Random") and name.endswith("Flip") and values.get("p") == 0.5:
        del values["p"]
    return values

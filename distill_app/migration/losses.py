"""Criteria: weighted terms of the same mathematics."""

import inspect
from typing import Any

from distill_app.migration.ledger import Node
from distill_app.migration.terms import TERMS, Unlike, distillation
from distill_app.migration.wiring import Wires


def criterion(node: Node, wires: Wires) -> None:
    """Adds the terms of a stage's criterion: a weighted sum, of version 1 or 0."""
    key = node.text("key", "type")
    if key not in ("WeightedSumLoss", "GeneralizedCustomLoss"):
        node.leave(f"{key!r} is no sum of terms that is known here; each of its terms is one of a stage")
        return
    for name in ("func2extract_model_loss", "func2extract_org_loss"):
        if node.get(name):
            node.get(name).leave("what a network returns is read by taps")
        node.get(name).use()
    arguments = node.get("kwargs") if node.has("kwargs") else node
    terms = arguments.get("sub_terms")
    _whole_model(node.get("org_term"), wires)
    extra = arguments.get("model_term")
    if extra.get("weight").given() not in (None, 0):
        extra.leave("networks for classification give no losses of their own")
    for name, term in terms.items():
        _term(name, term, wires)
    for part in (extra, terms):
        part.use() if not part else None


def _term(name: str, node: Node, wires: Wires) -> None:
    weight = node.number("weight", "factor")
    entry = node.get("criterion")
    wrapper = node.get("criterion_wrapper") if node.has("criterion_wrapper") else node.get("params")
    _one(name, entry, wrapper, float(weight), wires)


def _one(name: str, entry: Node, wrapper: Node, weight: float, wires: Wires) -> None:
    key, arguments = entry.text("key", "type"), entry.get("kwargs", "params")
    build = TERMS.get(key)
    before = dict(wires.losses)
    try:
        if build is not None:
            build(arguments, weight, wires, name)
        elif not _of_torch(key, name, arguments, wrapper, weight, wires):
            entry.leave(f"{key!r} is no loss of torch or torchdistill that is known here; name yours by its _target_")
            return
    except (LookupError, Unlike) as error:
        wires.losses = before
        entry.leave(f"{key} cannot be read: {error}")
        return
    arguments.rest(f"an argument of {key} that has no counterpart here")
    arguments.use() if not arguments else None
    wrapper.use() if not wrapper else None


def _whole_model(node: Node, wires: Wires) -> None:
    """The term of version 0 that reads what the networks return."""
    weight = node.number("factor", default=None)
    entry = node.get("criterion")
    if not weight:
        entry.use()  # it is multiplied by nothing
        node.use() if not node else None
        return
    key, arguments = entry.text("key", "type"), entry.get("kwargs", "params")
    try:
        if key == "KDLoss":
            distillation(arguments, float(weight), wires, "kd")
        elif key == "CrossEntropyLoss":
            inputs = {"input": wires.student.address("."), "target": "batch.target"}
            wires.term("ce", f"torch.nn.{key}", inputs, float(weight), **_plain(arguments))
        else:
            entry.leave(f"{key!r} of the networks' outputs is no loss that is known here")
            return
    except (LookupError, Unlike) as error:
        entry.leave(f"{key} cannot be read: {error}")
        return
    arguments.rest(f"an argument of {key} that has no counterpart here")


def _plain(arguments: Node) -> dict[str, Any]:
    """All arguments but those that are the default anyway."""
    return {name: value for name, value in arguments.handed_on().items() if (name, value) != ("reduction", "mean")}


def _of_torch(key: str, name: str, arguments: Node, wrapper: Node, weight: float, wires: Wires) -> bool:
    """A loss of torch.nn on one activation and the labels, or another activation."""
    from torch import nn

    loss = getattr(nn, key, None) if key.endswith("Loss") else None
    if loss is None or list(inspect.signature(loss.forward).parameters)[1:] != ["input", "target"]:
        return False
    given, kind = wrapper.get("kwargs") if wrapper.has("kwargs") else wrapper, wrapper.text("key", default="")
    if kind not in ("", "SimpleLossWrapper"):
        wrapper.leave(f"{kind!r}: what a network returns is read by taps, a term each")
        return True
    ends = {end: _end(given.get(end), wires) for end in ("input", "target")}
    wires.term(name, f"torch.nn.{key}", ends, weight, **_plain(arguments))
    return True


def _end(node: Node, wires: Wires) -> str:
    """The address of one side of SimpleLossWrapper: an activation, or the labels."""
    node.flag("uses_label", default=None)
    teacher, path = node.flag("is_from_teacher", default=None), node.text("module_path", default=None)
    if path is None and node.text("io", default=None) is None:
        return "batch.target"
    return wires.side(teacher=bool(teacher)).address(node.text("module_path"), entry=node.edge("io"))

"""Adapters that make a key of the batch for the networks that a stage trains (`fills`), and images without targets.

Imports no torch.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from distill_app.config.addresses import Address, addresses

PLACE = ("index", "view", "rows")  # which samples a batch is made of


def fillers(plan: Any) -> dict[str, str]:
    """The adapters of a stage that fill a key of the batch: name -> key."""
    declared = {name: plan.conf.adapters[name] for name in plan.declared}
    return {name: adapter.fills for name, adapter in declared.items() if adapter.fills is not None}


def filling_problems(plan: Any, models: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with what a stage fills in: it has to be known before the networks run that are trained.

    Args:
        plan: The stage, wired.
        models: Every network of the experiment.
    """
    filled = fillers(plan)
    for name, key in filled.items():
        where = f"{plan.key}.adapters.{name}"
        if key in PLACE:
            yield f"{where}.fills: {key!r} says which samples a batch is made of; fill another key, such as target"
        if list(filled.values()).count(key) > 1:
            yield f"{where}.fills: {key!r} is filled by another adapter too"
        for text in addresses(plan.conf.adapters[name].source):
            space = text.partition(".")[0]
            if plan.network(space) in plan.trained:
                yield f"{where}.source: {text}: {space!r} is trained here, and runs behind what fills batch.{key}"
            elif space == "adapters":
                yield f"{where}.source: {text}: what fills the batch reads it and networks that are not trained"
    if plan.conf.unlabelled and "target" not in filled.values():
        yield from _unfilled(plan, models)


def _unfilled(plan: Any, models: Mapping[str, Any]) -> Iterator[str]:
    """Terms that compare with the targets of images that have none."""
    for name in plan.terms:
        for address in _read(plan, plan.terms[name].inputs):
            whole = address.space in plan.trained and models[address.space].taps.get(address.name) == ""
            if (address.space, address.name) == ("batch", "target") or whole:
                yield (
                    f"{plan.key}.unlabelled: the term {name!r} reads {address}, and images without targets would count "
                    f"as images that show nothing; let an adapter fill target, as in method=pseudo_boxes, or leave the "
                    f"term out"
                )
                break


def _read(plan: Any, inputs: Any) -> Iterator[Address]:
    """What a term reads, by itself and through adapters."""
    for text in addresses(inputs):
        address = Address.parse(text, plan.roles)
        yield address
        adapter = plan.conf.adapters.get(address.name) if address.space == "adapters" else None
        if adapter is not None:
            yield from _read(plan, adapter.source)

"""Which networks a loss term compares: others, and not one with itself. Imports no torch."""

from collections.abc import Iterator, Mapping
from typing import Any

from distill_app.config.addresses import Address, addresses
from distill_app.config.plan import StagePlan

SPACES = ("batch", "adapters")


def compared_with_itself(plan: StagePlan, known: Mapping[str, Any], params: Mapping[str, Any]) -> Iterator[str]:
    """Terms in which a network is its own teacher, peer or assistant: all is equal, and nothing is learnt.

    Args:
        plan: The stage, all of whose addresses can be read.
        known: The adapters, by name.
        params: Those of the stage's method, which may have named the network.
    """
    told: set[str] = set()
    for name, term in plan.terms.items():
        words: dict[str, list[str]] = {}
        for word in dict.fromkeys(_words(term.inputs, known)):
            words.setdefault(plan.network(word), []).append(word)
        for network, several in words.items():
            if len(several) > 1 and network not in told:
                told.add(network)
                yield _one_of_two_roles(plan, name, network, several, params)
        for address in _twice(plan, term.inputs):
            more = _named(plan, address.space, params)
            yield (
                f"{plan.key}.losses.{name}.inputs: {address} is there twice, and a network learns nothing from itself; "
                f"name different networks{more}"
            )


def _one_of_two_roles(plan: StagePlan, term: str, network: str, words: list[str], params: Mapping[str, Any]) -> str:
    role = next(word for word in words if word in plan.roles)
    others = " and ".join(word for word in words if word != role)
    return (
        f"{plan.key}.roles.{role}: is {network!r}, which the term {term!r} reads as {others} too: a network would be "
        f"compared with itself; name another one{_named(plan, network, params)}"
    )


def _words(inputs: Any, known: Mapping[str, Any]) -> Iterator[str]:
    """The roles and networks that are read, as they are written, also by the adapters on the way."""
    for text in addresses(inputs):
        space, name = text.split(".")[:2]
        if space == "adapters":
            yield from _words(known[name].source, known)
        elif space not in SPACES:
            yield space


def _twice(plan: StagePlan, inputs: Mapping[str, Any]) -> list[Address]:
    """What one list names twice, and what is both the student and among its teachers."""
    read = {
        argument: [Address.parse(text, plan.roles) for text in addresses(item)] for argument, item in inputs.items()
    }
    found = [each for several in read.values() for number, each in enumerate(several) if each in several[:number]]
    found += [each for each in read.get("teachers", []) if each in read.get("student", [])]
    return [each for each in dict.fromkeys(found) if each.space not in SPACES]


def _named(plan: StagePlan, network: str, params: Mapping[str, Any]) -> str:
    """Where a list of the method's parameters names a network."""
    part = plan.key.partition(".")[0]
    lists = [name for name, value in params.items() if isinstance(value, list) and network in value]
    return "".join(f"; {part}.params.{name} names {network!r}" for name in lists)

"""Taps of several tensors in the cache: each tensor is stored for itself, and their nesting is put together again."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from distill_app.cache.codec import uncached
from distill_app.networks.taps import shapes_in


def leaves(name: str, value: Any) -> dict[str, Any]:
    """What a tap holds, by address: `fpn` of {"0": a, "1": [b]} holds fpn.0 and fpn.1.0; a tensor is the tap itself."""
    found: dict[str, Any] = {}
    for key, item in _items(value) or ():
        found.update(leaves(f"{name}.{key}", item))
    return found if _items(value) is not None else {name: value}


def nesting(name: str, value: Any) -> Any:
    """The same nesting with the addresses in the place of what is there; tuples are lists."""
    items = _items(value)
    if items is None:
        return name
    named = {key: nesting(f"{name}.{key}", item) for key, item in items}
    return named if isinstance(value, Mapping) else list(named.values())


def nested(shape: Any, stored: Mapping[str, Tensor]) -> Any:
    """What `nesting` gave with tensors in the place of their addresses."""
    if isinstance(shape, str):
        return stored[shape]
    if isinstance(shape, Mapping):
        return {key: nested(item, stored) for key, item in shape.items()}
    return [nested(item, stored) for item in shape]


def _items(value: Any) -> list[tuple[Any, Any]] | None:
    """Key and value of all that a container holds; None of what is none."""
    if isinstance(value, Mapping):
        return list(value.items())
    return list(enumerate(value)) if isinstance(value, list | tuple) else None


def refuse_varying(
    one: Mapping[str, Mapping[str, Any]],
    *,
    nestings: Mapping[str, Mapping[str, Any]],
    shapes: Mapping[str, Mapping[str, tuple[int, ...]]],
) -> None:
    """Refuses taps whose rows are not those of samples.

    Args:
        one: Network -> tap -> what it says of one sample.
        nestings: Network -> tap -> how its tensors lie in each other.
        shapes: Network -> address of a tensor -> its shape for each sample, as several of them had it.

    Raises:
        CacheError: There is such a tap.
    """
    for name, taps in nestings.items():
        said = {leaf: each for tap in taps for leaf, each in leaves(tap, one[name][tap]).items()}
        for leaf in dict.fromkeys([*shapes[name], *said]):
            alone, among = shapes_in(said.get(leaf)), shapes[name].get(leaf)
            if alone != among:
                found = f"{alone or 'nothing'} for one sample, {among or 'nothing'} for each of several"
                raise uncached(f"{name}.{leaf}", f"its rows are not those of samples ({found})")

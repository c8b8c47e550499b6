"""Modules of a network as an adapter: what another network says is run through them."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from distill_app.networks.taps import clone, shapes_in, tensors_in


class NetworkPart(nn.Module):
    """Runs what it is given through modules of a network, one after the other, which stay the network's own.

    Their weights are shared and not this module's, which has no parameters and no state. They run in eval mode,
    whatever mode this module is in. Gradients flow through them to what goes in.

    Args:
        modules: In order, each with whether it runs once for each item of a list or mapping.
        several: What goes in is a list or a mapping of arguments, and not one argument.
        title: What they are called: teacher.roi_heads.box_head.
    """

    def __init__(self, modules: Sequence[tuple[nn.Module, bool]], *, several: bool = False, title: str = ""):
        super().__init__()
        self.title = title
        self._chain = list(modules)  # in a list, so that they are not registered
        self._several = several
        # Some begin with an activation in place, which would change what others read too; known after the first run.
        self._copies: bool | None = None
        self.eval()

    def train(self, mode: bool = True) -> "NetworkPart":
        """Its own mode; the modules are in eval mode afterwards."""
        super().train(mode)
        for module, _ in self._chain:
            module.eval()
        return self

    def forward(self, source: Any) -> Any:
        """What the last module gives.

        Args:
            source: The first module's argument, or all of its arguments.

        Raises:
            ValueError: A module shall run once for each item, and what it gets has no items, or not as many.
        """
        source = clone(source) if self._copies is not False else source
        before = [leaf._version for leaf in tensors_in(source)]
        several, value = self._several, source
        for module, every_item in self._chain:
            value = _each(module, value, several=several) if every_item else _call(module, value, several=several)
            several = False
        if self._copies is None:
            self._copies = before != [leaf._version for leaf in tensors_in(source)]
        return value


def _call(module: nn.Module, value: Any, *, several: bool) -> Any:
    if not several:
        return module(value)
    return module(**value) if isinstance(value, Mapping) else module(*value)


def _each(module: nn.Module, value: Any, *, several: bool) -> Any:
    """The module's output for every item: a list, or a mapping if there is one of the same keys as argument."""
    named = isinstance(value, Mapping)
    arguments = list(value.values() if named else value) if several else [value]
    keys = _keys(arguments[0])
    if keys is None or any(_keys(argument) != keys for argument in arguments):
        raise ValueError(f"with :all it runs once for each item, and items of one list are needed: {shapes_in(value)}")
    given = {}
    for key in keys:
        items = [argument[key] for argument in arguments]
        one = (dict(zip(value, items, strict=True)) if named else items) if several else items[0]
        given[key] = _call(module, one, several=several)
    return given if isinstance(arguments[0], Mapping) else list(given.values())


def _keys(value: Any) -> list[Any] | None:
    if isinstance(value, Mapping):
        return list(value)
    return list(range(len(value))) if isinstance(value, list | tuple) else None

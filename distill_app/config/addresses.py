"""Addresses of tensors in a step, and looking them up. Imports no torch."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from distill_app.words import unknown


@dataclass(frozen=True)
class Address:
    """Where a tensor comes from, with roles already replaced by the networks that play them."""

    space: str
    name: str
    rest: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str, roles: Mapping[str, str]) -> "Address":
        """Splits `space.name[.rest]`.

        Raises:
            ValueError: The text has no dot.
        """
        space, *names = str(text).split(".")
        if not names or not all([space, *names]):
            raise ValueError(
                f"{text!r} is no address; write student.<tap>, teacher.<tap>, batch.<key> or adapters.<name>"
            )
        return cls(roles.get(space, space), names[0], tuple(names[1:]))

    def __str__(self) -> str:
        return ".".join((self.space, self.name, *self.rest))

    def fetch(self, namespace: Mapping[str, Any]) -> Any:
        """Looks the value up in `{space: {name: value}}`.

        Raises:
            KeyError: Nothing provides it; the message lists what there is.
        """
        value = namespace.get(self.space, {})
        for step in (self.name, *self.rest):
            if isinstance(value, Mapping) and step in value:
                value = value[step]
            elif isinstance(value, list | tuple) and step in map(str, range(-len(value), len(value))):
                value = value[int(step)]
            else:
                listed = range(len(value) if isinstance(value, list | tuple) else 0)
                there: Iterable[Any] = value if isinstance(value, Mapping) else listed
                raise KeyError(f"nothing provides {self}: {unknown('key', step, there)}")
        return value


def addresses(inputs: Any) -> list[str]:
    """The address texts in a nested `inputs` or `source`."""
    if isinstance(inputs, Mapping):
        return [text for item in inputs.values() for text in addresses(item)]
    if isinstance(inputs, list | tuple):
        return [text for item in inputs for text in addresses(item)]
    return [] if inputs is None else [str(inputs)]


def bind(inputs: Any, roles: Mapping[str, str]) -> Any:
    """The same nesting with an Address in the place of each text."""
    if isinstance(inputs, Mapping):
        return {key: bind(item, roles) for key, item in inputs.items()}
    if isinstance(inputs, list | tuple):
        return [bind(item, roles) for item in inputs]
    return None if inputs is None else Address.parse(str(inputs), roles)


def fetch(inputs: Any, namespace: Mapping[str, Any]) -> Any:
    """The same nesting with the value in the place of each Address."""
    if isinstance(inputs, Address):
        return inputs.fetch(namespace)
    if isinstance(inputs, Mapping):
        return {key: fetch(item, namespace) for key, item in inputs.items()}
    if isinstance(inputs, list):
        return [fetch(item, namespace) for item in inputs]
    return None

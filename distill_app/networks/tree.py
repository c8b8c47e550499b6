"""A network as a tree: its modules with types, outputs and parameters, and where its taps sit."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from distill_app.errors import TapError
from distill_app.networks.taps import Tap, as_map, resolve, shapes_in
from distill_app.networks.tracing import Trace


@dataclass(frozen=True)
class Row:
    """One module; its output is that of its last call, None where it did not run."""

    path: str
    kind: str
    output: Any
    parameters: int
    taps: tuple[str, ...]

    @property
    def depth(self) -> int:
        """0 for the network itself, 1 for its children."""
        return self.path.count(".") + 1 if self.path else 0


def rows(module: nn.Module, trace: Trace, taps: Mapping[str, str]) -> list[Row]:
    """Every module of a network, parents first, shared ones once.

    Args:
        module: The network.
        trace: A forward of it.
        taps: Name -> path with options.

    Raises:
        TapError: A tap leads nowhere.
    """
    at: dict[int, list[str]] = {}
    for name, spec in taps.items():
        tap = Tap.parse(name, spec)
        at.setdefault(id(resolve(module, tap.path)), []).append(f"{name} (its input)" if tap.edge == "in" else name)
    found = []
    for path, part in module.named_modules():
        call = trace.of(part)
        count = sum(parameter.numel() for parameter in part.parameters())
        output = None if call is None else shapes_in(call.output)
        found.append(Row(path, type(part).__name__, output, count, tuple(at.get(id(part), ()))))
    return found


def tap_shapes(module: nn.Module, trace: Trace, taps: Mapping[str, str]) -> dict[str, Any]:
    """The shape of each tap in a forward, in words where it has none.

    Raises:
        TapError: A tap leads nowhere.
    """
    found: dict[str, Any] = {}
    for name, spec in taps.items():
        tap = Tap.parse(name, spec)
        call = trace.of(resolve(module, tap.path))
        if call is None:
            found[name] = "its module never ran"
            continue
        inputs: Any = call.inputs[0] if len(call.inputs) == 1 else call.inputs
        try:
            found[name] = shapes_in(as_map(inputs if tap.edge == "in" else call.output, tap))
        except TapError as error:
            found[name] = str(error)
    return found

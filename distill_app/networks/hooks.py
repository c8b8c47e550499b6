"""The hook-extraction engine: reads named activations ("taps") of any module, and stops where the last one is read.

    tapped = TappedModel(torchvision.models.resnet18(), {"mid": "layer2", "pre": "layer4.-1.relu:in"})
    activations = tapped(images)           # {"mid": (B, 128, 28, 28), "pre": (B, 512, 7, 7)}
    tapped.close()                         # the network is as it was

A tap is a module path with options: `path[:in|:out][:all][:clone][:nhwc|:tokens|:flat]`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from distill_app.errors import TapError
from distill_app.networks.modes import untouched
from distill_app.networks.taps import Tap, as_map, clone, resolve, tensors_in


class _Stop(Exception):
    """Ends a forward once nothing further is read; never leaves the TappedModel that raised it."""

    def __init__(self, owner: "TappedModel"):
        super().__init__()
        self.owner = owner


@dataclass
class _Forward:
    """What happens in a forward; not on the module itself, whose attributes are slow to set."""

    running: bool = False
    records: dict[str, list[tuple[Any, list[int]]]] = field(default_factory=dict)
    fired: list[str] = field(default_factory=list)
    captured: list[tuple[Tap, Any]] = field(default_factory=list)  # in the place of the records while compiling


@dataclass(frozen=True)
class _Order:
    """The taps in the order in which they fire, and whether the forward goes on behind the last one."""

    names: list[str]
    goes_on: bool


class TappedModel(nn.Module):
    """Runs a network and returns its taps instead of its output, no further than the last of them needs.

    The first forward in each mode (train, eval) runs in full and learns the order in which the hooks fire; later ones
    stop at the last firing that is read. If the order ever differs, every following forward runs in full. Hooks are
    installed on construction: construct before `torch.compile` and before DistributedDataParallel. When compiled, after
    a forward in the same mode has learned the order, hooks and stop are traced into one graph, which ends where the
    forward ends; activations that are changed in place are then not looked for.

    Args:
        model: Any module, unmodified. An in-place activation whose input is tapped runs out of place while tapped
            (its output is bit-identical).
        taps: Name -> `path[:in|:out][:all][:clone][:nhwc|:tokens|:flat]`.
        stop: Whether to end the forward early.
        owner: What the network is called in messages.
        runs: Called in the place of the whole network: a module made of some of its modules, in whose forward the
            taps fire. The tap of the whole network is then its output.

    Raises:
        TapError: A path or option that does not exist, all of them in one message.
    """

    def __init__(
        self,
        model: nn.Module,
        taps: Mapping[str, str],
        *,
        stop: bool = True,
        owner: str = "network",
        runs: nn.Module | None = None,
    ):
        super().__init__()
        self.model = model
        self._runs = [model if runs is None else runs]  # in a list, so that its parameters have one name
        self.owner = owner
        self.stop = stop
        self.taps = [Tap.parse(name, spec) for name, spec in taps.items()]
        self._now = _Forward()
        self._orders: dict[bool, _Order | None] = {}  # by mode; None once the order has varied
        self._handles: list[Any] = []
        self._made_out_of_place: list[nn.Module] = []
        modules = self._resolve_all()
        for tap, module in zip(self.taps, modules, strict=True):
            self._install(tap, module)

    def _resolve_all(self) -> list[nn.Module]:
        modules, errors = [], []
        for tap in self.taps:
            try:
                modules.append(resolve(self.model, tap.path) if tap.path else self._runs[0])
            except TapError as error:
                errors.append(f"tap {tap.name!r} of {self.owner}: {error}")
        if errors:
            raise TapError("; ".join(errors))
        return modules

    def _install(self, tap: Tap, module: nn.Module) -> None:
        if tap.edge == "in":
            if getattr(module, "inplace", False):
                module.inplace = False  # type: ignore[assignment]
                self._made_out_of_place.append(module)

            def before(module: nn.Module, args: tuple, kwargs: dict) -> None:
                inputs = args if args else tuple(kwargs.values())
                self._record(tap, inputs[0] if len(inputs) == 1 else inputs)

            self._handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
        else:

            def after(module: nn.Module, args: tuple, output: Any) -> None:
                self._record(tap, output)

            self._handles.append(module.register_forward_hook(after))

    def _record(self, tap: Tap, value: Any) -> None:
        now = self._now
        if not now.running:
            return  # the bare network runs, for instance in an evaluation
        if torch.compiler.is_compiling():
            self._capture(tap, value)
            return
        value = clone(value) if tap.clone else value
        entry = (value, [leaf._version for leaf in tensors_in(value)])
        if tap.every_call:
            now.records.setdefault(tap.name, []).append(entry)
        else:
            now.records[tap.name] = [entry]
        now.fired.append(tap.name)
        order = self._orders.get(self.training) if self.stop else None
        if order is None:
            return
        at = len(now.fired)
        if at > len(order.names) or order.names[at - 1] != tap.name:
            self._orders[self.training] = None  # from here on in full
        elif at == len(order.names) and order.goes_on:
            raise _Stop(self)

    def _capture(self, tap: Tap, value: Any) -> None:
        """What `_record` does, with nothing in it that a graph could not hold."""
        captured = self._now.captured
        captured.append((tap, clone(value) if tap.clone else value))
        order = self._orders.get(self.training)
        if self.stop and order is not None and order.goes_on and len(captured) == len(order.names):
            raise _Stop(self)

    def _traced(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """`forward` while it is compiled."""
        now = self._now
        now.captured, now.running = [], True
        try:  # noqa: SIM105 - a context manager would break the graph
            self._runs[0](*args, **kwargs)
        except _Stop:
            pass
        now.running = False
        captured, now.captured = now.captured, []
        values = {}
        for tap in self.taps:
            calls = [as_map(value, tap) for other, value in captured if other is tap]
            if not calls:
                raise TapError(
                    f"tap {tap.name!r} of {self.owner}: runtime.compile=true cannot trace up to {tap}, since what runs "
                    f"depends on values there, as in detectors; set runtime.compile=false"
                )
            values[tap.name] = calls if tap.every_call else calls[-1]
        return values

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Runs the network on these arguments.

        Returns:
            Tap name -> activation; a list over calls for a tap with `:all`.

        Raises:
            TapError: A tapped module never ran, or an activation was changed in place after it was captured.
        """
        if torch.compiler.is_compiling():
            return self._traced(*args, **kwargs)
        now, output = self._now, None
        now.records, now.fired, now.running = {}, [], True
        try:
            output = self._runs[0](*args, **kwargs)
        except _Stop as stop:
            if stop.owner is not self:
                raise
        finally:
            now.running = False
        try:
            values = {tap.name: self._value(tap) for tap in self.taps}
            if self.training not in self._orders:
                self._orders[self.training] = self._learned(output)
        finally:
            now.records = {}
        return values

    def _learned(self, output: Any) -> _Order | None:
        """The order of a forward that ran in full; nothing is saved by stopping at the network's own output."""
        fired = self._now.fired
        if not fired:
            return None
        last, _ = self._now.records[fired[-1]][-1]
        return _Order(list(fired), last is not output)

    def _value(self, tap: Tap) -> Any:
        entries = self._now.records.get(tap.name)
        if entries is None:
            raise TapError(f"tap {tap.name!r} of {self.owner}: module {tap} never ran in this forward")
        for value, versions in entries:
            if [leaf._version for leaf in tensors_in(value)] != versions:
                raise TapError(
                    f"tap {tap.name!r} of {self.owner}: the activation at {tap} was changed in place after it was "
                    f"captured; tap the input of the activation that follows, or write '{tap.path}:{tap.edge}:clone'"
                )
        values = [as_map(value, tap) for value, _ in entries]
        return values if tap.every_call else values[-1]

    def calls(self, name: str) -> int:
        """How often the tapped module ran in the last forward."""
        return self._now.fired.count(name)

    @property
    def stops_at(self) -> str | None:
        """The tap at which forwards of the current mode end, None if they run to the end."""
        order = self._orders.get(self.training)
        return order.names[-1] if self.stop and order is not None and order.goes_on else None

    def close(self) -> None:
        """Removes the hooks and restores in-place activations."""
        for handle in self._handles:
            handle.remove()
        for module in self._made_out_of_place:
            module.inplace = True  # type: ignore[assignment]
        self._handles, self._made_out_of_place = [], []

    def __enter__(self) -> "TappedModel":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @torch.no_grad()
    def probe(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """One forward that learns the firing order and leaves buffers and random state as they were."""
        with untouched(self):
            return self(*args, **kwargs)

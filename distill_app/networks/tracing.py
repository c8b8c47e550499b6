"""One forward of a network, written down: which module ran within which, and what came out of each."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from distill_app.errors import SettingError
from distill_app.networks.modes import evaluating, untouched
from distill_app.networks.taps import shapes_in, tensors_in

BATCH = 2  # images in the forward; windows of attention then have another first dimension
LARGE = 50_000_000  # parameters: the products of one with so many take longer than torch needs to go without them
SIDE = 224  # the image size that most networks are made for: there no stage of theirs has shrunk to one pixel


@dataclass(eq=False)
class Call:
    """A module that ran: its path, its input and output, and the calls within it, in order."""

    path: str
    module: nn.Module
    inputs: list[Tensor] = field(default_factory=list)
    output: Any = None
    children: list["Call"] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)  # of the output's tensors when it was handed on

    def __iter__(self) -> Iterator["Call"]:
        """The call and all within it, in the order in which they began."""
        yield self
        for child in self.children:
            yield from child

    @property
    def changed(self) -> bool:
        """Whether its output was changed in place afterwards."""
        return [tensor._version for tensor in tensors_in(self.output)] != self.versions


@dataclass(frozen=True)
class Trace:
    """A forward in full."""

    root: Call
    shape: tuple[int, ...]  # of the images, (B, C, H, W)
    last: Mapping[int, Call]  # by the module's id, the call that a tap reads: its last one

    @property
    def side(self) -> int:
        """Of the images in pixels."""
        return self.shape[-1]

    def of(self, module: nn.Module) -> Call | None:
        """The last call of a module, None if it did not run."""
        return self.last.get(id(module))


def traced(module: nn.Module, shapes: Sequence[tuple[int, int]]) -> Trace:
    """Runs a network in eval mode on images of the first size that it takes.

    A large network runs without numbers, which takes neither memory nor the time of its products; what is slow there is
    each single module, so that others run on random images. Either way is tried where the other one fails. A module may
    keep what it saw: hand in a network that nobody uses afterwards.

    Args:
        module: The network.
        shapes: Channels and side of the images to try, in order.

    Raises:
        SettingError: It takes none of them; with what the last one raised.
    """
    problem: Exception | None = None
    large = sum(parameter.numel() for parameter in module.parameters()) > LARGE
    for channels, side in dict.fromkeys(shapes):
        for fake in (large, not large):
            try:
                return _run(module, (BATCH, channels, side, side), fake=fake)
            except Exception as error:  # code of any network
                problem = error
    tried = ", ".join(f"{channels} x {side} x {side}" for channels, side in dict.fromkeys(shapes))
    text = (str(problem).splitlines() or [""])[0][:200]
    raise SettingError(f"it does not run on images of {tried} ({type(problem).__name__}: {text})") from problem


def _run(module: nn.Module, shape: tuple[int, ...], *, fake: bool) -> Trace:
    recorder = _Recorder(module)
    with recorder, evaluating(module), torch.no_grad():
        if fake:
            with FakeTensorMode(allow_non_fake_inputs=True):
                module(torch.empty(shape))
        else:
            with untouched(module):
                module(torch.rand(shape))
    if recorder.root is None:
        raise SettingError("its hooks are not called")
    return Trace(recorder.root, shape, recorder.last)


class _Recorder:
    """Hooks at every module."""

    def __init__(self, module: nn.Module):
        self.root: Call | None = None
        self.last: dict[int, Call] = {}
        self._module, self._open, self._handles = module, list[Call](), list[Any]()

    def __enter__(self) -> "_Recorder":
        for path, part in self._module.named_modules():
            self._hook(path, part)
        return self

    def __exit__(self, *exc: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _hook(self, path: str, part: nn.Module) -> None:
        def before(_: nn.Module, args: tuple, kwargs: dict) -> None:
            call = Call(path, part, tensors_in([*args, *kwargs.values()]))
            if self._open:
                self._open[-1].children.append(call)
            elif self.root is None:
                self.root = call
            self._open.append(call)

        def after(_: nn.Module, args: tuple, output: Any) -> None:
            call = self._open.pop()
            call.output, call.versions = output, [tensor._version for tensor in tensors_in(output)]
            self.last[id(part)] = call

        self._handles.append(part.register_forward_pre_hook(before, with_kwargs=True))
        self._handles.append(part.register_forward_hook(after))


@dataclass(frozen=True)
class Map:
    """An activation that lies over the image: its side, its channels, and the option of a tap that makes it a map."""

    side: int
    channels: int
    option: str = ""

    def level(self, side: int) -> int:
        """How often the side of the images was halved, rounded: borders may have been cut off."""
        return round(math.log2(side / self.side))


def map_of(value: Any, *, prefix: int | None = None, channels: int | None = None) -> Map | None:
    """How an activation lies over square images, None where it does not.

    Args:
        value: A tensor (B, C, S, S), (B, S, S, C) or (B, tokens, C); else it is none.
        prefix: How many tokens stand in front of those of the patches; None: one, none or two, whichever leaves a
            square.
        channels: What C is, where that is known.
    """
    if not isinstance(value, Tensor) or len(value) != BATCH:
        return None
    if value.dim() == 4:
        _, a, b, c = value.shape
        if b == c and channels in (None, a):
            return Map(b, a)
        return Map(a, c, ":nhwc") if a == b and channels in (None, c) else None
    if value.dim() != 3 or channels not in (None, value.shape[2]):
        return None
    for count in (1, 0, 2) if prefix is None else (prefix,):
        side = math.isqrt(max(value.shape[1] - count, 0))
        if side > 1 and side * side == value.shape[1] - count:
            return Map(side, value.shape[2], f":tokens{count}")
    return None


def seen(trace: Trace, *, most: int = 4) -> str:
    """What a network returned, and its last modules with parameters, in words."""
    parts = [call for call in trace.root if next(call.module.parameters(recurse=False), None) is not None and call.path]
    last = [f"{call.path} ({type(call.module).__name__}) {shapes_in(call.output)}" for call in parts[-most:]]
    return f"it returned {shapes_in(trace.root.output)}; its last modules: {', '.join(last) or 'none'}"

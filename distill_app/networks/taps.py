"""Taps: what to record of a network, where that is, and the nested values that are recorded."""

import difflib
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from distill_app.errors import TapError

_TOKENS = re.compile(r"tokens(\d*)")


@dataclass(frozen=True)
class Tap:
    """What to record: the input or the output of a module, of its last call or of all, and in which layout."""

    name: str
    path: str
    edge: str = "out"
    every_call: bool = False
    clone: bool = False
    layout: str | None = None

    @classmethod
    def parse(cls, name: str, spec: str) -> "Tap":
        """Reads `path[:in|:out][:all][:clone][:nhwc|:tokens|:flat]`.

        Args:
            name: What the activation is called.
            spec: The path of a module ("" is the whole network; negative numbers count from the end) and options.
                `:nhwc` and `:tokens` make a map of what is stored otherwise, `:tokens5` says that five tokens stand in
                front of those of the patches; `:flat` makes a vector of each image.

        Raises:
            TapError: An option that does not exist.
        """
        path, *options = spec.split(":")
        known = {"in", "out", "all", "clone", "nhwc", "tokens", "flat"}
        for option in options:
            if option not in known and not _TOKENS.fullmatch(option):
                raise TapError(f"tap {name!r}: unknown option ':{option}' in {spec!r}; known: {sorted(known)}")
        layout = next((option for option in options if option in ("nhwc", "flat") or _TOKENS.fullmatch(option)), None)
        edge = "in" if "in" in options else "out"
        return cls(name, path, edge, "all" in options, "clone" in options, layout)

    def __str__(self) -> str:
        return f"{self.path or '(whole network)'}:{self.edge}"


def unwrap(model: nn.Module) -> nn.Module:
    """The network inside wrappers of `torch.compile`, DataParallel and DistributedDataParallel."""
    wrappers = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    while True:
        inner = model.module if isinstance(model, wrappers) else getattr(model, "_orig_mod", None)
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def resolve(model: nn.Module, path: str) -> nn.Module:
    """Finds a module by its dotted path; numbers that are no child's name count children, from the end if negative.

    Raises:
        TapError: Nothing is there; names the nearest paths.
    """
    module = unwrap(model)
    parts = [part for part in path.split(".") if part] if path else []
    while parts and parts[0] in ("module", "_orig_mod") and parts[0] not in dict(module.named_children()):
        parts = parts[1:]
    for part in parts:
        children = dict(module.named_children())
        if part in children:
            module = children[part]
        elif part.lstrip("-").isdigit() and -len(children) <= int(part) < len(children):
            module = list(children.values())[int(part)]
        else:
            raise TapError(f"no module at {path!r} ({part!r} is not there); {_nearest_paths(model, path)}")
    return module


def _nearest_paths(model: nn.Module, path: str) -> str:
    names = [name for name, _ in unwrap(model).named_modules() if name]
    near = difflib.get_close_matches(path, names, n=4, cutoff=0.4)
    return f"nearest: {', '.join(near or names[:8])}"


def tensors_in(value: Any) -> list[Tensor]:
    """The tensors of nested dicts, lists and tuples, in order."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        return [leaf for item in value.values() for leaf in tensors_in(item)]
    if isinstance(value, list | tuple):
        return [leaf for item in value for leaf in tensors_in(item)]
    return []


def shapes_in(value: Any) -> Any:
    """The same nesting with the shape of each tensor, as a tuple, in its place."""
    if isinstance(value, Tensor):
        return tuple(value.shape)
    if isinstance(value, Mapping):
        return {key: shapes_in(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [shapes_in(item) for item in value]
    return None


def map_tensors(value: Any, change: Callable[[Tensor], Any]) -> Any:
    """The same nesting with what `change` makes of each tensor in its place."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {key: map_tensors(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [map_tensors(item, change) for item in value]
    return value


def first_rows(value: Any, count: int, *, of: int) -> Any:
    """The same nesting with the rows of the first `count` of `of` samples, several rows each where there are."""
    return map_tensors(value, lambda tensor: tensor[: len(tensor) // of * count] if tensor.dim() else tensor)


def clone(value: Any) -> Any:
    """The same nesting with a copy of each tensor."""
    return map_tensors(value, lambda tensor: tensor.clone())


def as_map(value: Any, tap: Tap) -> Any:
    """The activation as a (B, C, H, W) map, or as vectors, where the tap's layout says how it is stored."""
    if tap.layout is None:
        return value
    if tap.layout == "nhwc":
        if not isinstance(value, Tensor) or value.dim() != 4:
            raise TapError(f"tap {tap.name!r}: ':nhwc' wants a (B, H, W, C) tensor, got {shapes_in(value)}")
        return value.permute(0, 3, 1, 2)
    if tap.layout == "flat":
        if not isinstance(value, Tensor) or value.dim() < 2:
            raise TapError(f"tap {tap.name!r}: ':flat' wants a (B, ...) tensor, got {shapes_in(value)}")
        return value.flatten(1)
    if not isinstance(value, Tensor) or value.dim() != 3:
        raise TapError(f"tap {tap.name!r}: ':tokens' wants a (B, tokens, D) tensor, got {shapes_in(value)}")
    count, ahead = value.shape[1], tap.layout.removeprefix("tokens")
    # A class token, none, or class and distillation tokens in front of the patches.
    for extra in (int(ahead),) if ahead else (1, 0, 2):
        side = math.isqrt(max(count - extra, 0))
        if side and side * side == count - extra:
            return value[:, extra:].transpose(1, 2).unflatten(2, (side, side))
    behind = f" behind {ahead} others" if ahead else ""
    raise TapError(
        f"tap {tap.name!r}: {count} tokens are not a square of patches{behind}; use the tap without ':{tap.layout}'"
    )

"""Frozen networks in the form in which they run fastest: batch norms folded, weights in the type of the forward."""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from distill_app.hooks import TappedModel
from distill_app.step import evaluating
from distill_app.taps import Tap, TapError, resolve, tensors_in

LINEAR = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
TOLERANCE = 1e-4  # of the largest value of an activation; folding in float32 is exact to about 1e-6

Run = Callable[[nn.Module], Any]


class FrozenForm:
    """Finds what can be folded in a network that a stage does not train, and makes a copy in which it is.

    A batch norm in eval mode is a scale and a shift, which the convolution or linear layer before it can take on:
    w' = w * g / sqrt(v + eps), b' = (b - m) * g / sqrt(v + eps) + beta. That is done where the one's output is the
    other's input, both run once, neither has hooks, and no tap reads in between or at either. The network itself, its
    state dict and its fingerprint stay as they are; the copy shares every other weight with it.

    Args:
        module: The network.
        taps: The taps that are read: name -> path, as `TappedModel` takes them.
        run: Runs a module on an example batch.
        fold: Whether to look for batch norms at all.
        dtype: The type in which convolutions and linear layers shall hold their weights; under autocast of the same
            type, which would else cast them in every forward.
    """

    def __init__(
        self, module: nn.Module, taps: Mapping[str, str], *, run: Run, fold: bool, dtype: torch.dtype = torch.float32
    ):
        self._module, self._run, self._dtype = module, run, dtype
        self._taps = dict(taps)
        self.norms = sum(type(part) in NORMS for part in module.modules())
        self.pairs = self._foldable() if fold and self.norms else []

    def build(self) -> nn.Module:
        """The network in this form, or itself where there is nothing to gain.

        Returns:
            A copy in eval mode; its values were compared with the network's own on the example batch.
        """
        if not self.pairs and self._dtype == torch.float32:
            return self._module
        try:
            form = self._copy()
        except (TypeError, ValueError, RuntimeError):  # some modules hold what cannot be copied
            self.pairs = []
            return self._module
        for first, norm in self.pairs:
            _fold(form, first, norm)
        if self.pairs and not self._equal(form):
            self.pairs = []
            return self.build()
        if self._dtype != torch.float32:
            for part in form.modules():
                if type(part) in LINEAR:
                    part.to(self._dtype)
        return form

    def note(self) -> str | None:
        """What was done, for the plan."""
        return f"{len(self.pairs)} of {self.norms} batch norms folded" if self.pairs else None

    def _foldable(self) -> list[tuple[str, str]]:
        """(path of a convolution or linear layer, path of the batch norm that alone reads it)."""
        read = self._tapped()
        paths: dict[nn.Module, list[str]] = {}
        for path, part in self._module.named_modules(remove_duplicate=False):
            paths.setdefault(part, []).append(path)
        watch = _Watch(part for part in paths if type(part) in (*LINEAR, *NORMS) and not _has_hooks(part))
        with watch, evaluating(self._module), torch.no_grad():
            self._run(self._module)
        return [
            (paths[first][0], paths[norm][0])
            for first, norm in watch.pairs()
            if not {first, norm} & read and len(paths[first]) == len(paths[norm]) == 1 and _fits(first, norm)
        ]

    def _tapped(self) -> set[nn.Module]:
        found = set()
        for name, spec in self._taps.items():
            try:
                found.add(resolve(self._module, Tap.parse(name, spec).path))
            except TapError:  # told where the tap is installed
                continue
        return found

    def _copy(self) -> nn.Module:
        """A copy that shares the tensors of everything that will not change."""
        changed = {self._module.get_submodule(path) for pair in self.pairs for path in pair}
        if self._dtype != torch.float32:
            changed |= {part for part in self._module.modules() if type(part) in LINEAR}
        kept = [part for part in self._module.modules() if part not in changed]
        tensors = [
            tensor for part in kept for tensor in (*part.parameters(recurse=False), *part.buffers(recurse=False))
        ]
        return copy.deepcopy(self._module, {id(tensor): tensor for tensor in tensors}).eval()

    def _equal(self, form: nn.Module) -> bool:
        with evaluating(self._module), torch.no_grad():
            expected, got = tensors_in(self._run(self._module)), tensors_in(self._run(form))
        return all(_close(ours, own) for ours, own in zip(got, expected, strict=True))


def _close(ours: Tensor, own: Tensor) -> bool:
    scale = own.abs().max().clamp(min=1e-6) if own.is_floating_point() else 1.0
    return bool((ours - own).abs().max() <= TOLERANCE * scale)


def _has_hooks(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _fits(first: nn.Module, norm: nn.Module) -> bool:
    channels = first.out_features if isinstance(first, nn.Linear) else first.out_channels
    return norm.running_mean is not None and norm.num_features == channels


def _fold(form: nn.Module, first: str, norm: str) -> None:
    fuse: Any = fuse_linear_bn_eval if isinstance(form.get_submodule(first), nn.Linear) else fuse_conv_bn_eval
    form.set_submodule(first, fuse(form.get_submodule(first), form.get_submodule(norm)).requires_grad_(False))
    form.set_submodule(norm, nn.Identity())


class OnDemand(Mapping[str, TappedModel]):
    """Frozen networks by name, each made ready when it is first asked for: what the cache gives need not run."""

    def __init__(self, names: Iterable[str], make: Callable[[str], TappedModel]):
        self._names, self._make = list(names), make
        self._made: dict[str, TappedModel] = {}

    def __getitem__(self, name: str) -> TappedModel:
        if name not in self._made:
            if name not in self._names:
                raise KeyError(name)
            self._made[name] = self._make(name)
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class _Watch:
    """Sees, in one forward, which modules' outputs are the inputs of which batch norms."""

    def __init__(self, modules: Iterable[nn.Module]):
        self._modules = list(modules)
        self._given: dict[int, tuple[Tensor, nn.Module]] = {}  # the tensors are kept, so that no id comes twice
        self._taken: list[tuple[Tensor, nn.Module]] = []
        self._runs: dict[nn.Module, int] = {}
        self._handles: list[Any] = []

    def __enter__(self) -> "_Watch":
        for module in self._modules:
            self._handles.append(module.register_forward_hook(self._note))
        return self

    def __exit__(self, *exc: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _note(self, module: nn.Module, args: tuple, output: Any) -> None:
        self._runs[module] = self._runs.get(module, 0) + 1
        if type(module) in NORMS and args:
            self._taken.append((args[0], module))
        elif isinstance(output, Tensor):
            self._given[id(output)] = (output, module)

    def pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        """(giver, batch norm), where both ran once and the giver's output went to one batch norm alone."""
        found = [(self._given[id(value)][1], norm) for value, norm in self._taken if id(value) in self._given]
        readers: dict[nn.Module, int] = {}
        for first, _ in found:
            readers[first] = readers.get(first, 0) + 1
        return [
            (first, norm) for first, norm in found if self._runs[first] == self._runs[norm] == 1 and readers[first] == 1
        ]

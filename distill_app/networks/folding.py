"""Frozen networks in the form in which they run fastest: batch norms folded, weights in the type of the forward."""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval
from torchvision.ops import FrozenBatchNorm2d

from distill_app.errors import TapError
from distill_app.networks.modes import evaluating
from distill_app.networks.taps import Tap, resolve, tensors_in
from distill_app.words import warn

LINEAR = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, FrozenBatchNorm2d)
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
        own: Runs the network itself on it, no further than the last tap; norms behind that are left alone. None: all
            of it is looked at.
        fold: Whether to look for batch norms at all.
        dtype: The type in which convolutions and linear layers shall hold their weights; under autocast of the same
            type, which would else cast them in every forward.
    """

    def __init__(
        self,
        module: nn.Module,
        taps: Mapping[str, str],
        *,
        run: Run,
        fold: bool,
        dtype: torch.dtype = torch.float32,
        own: Callable[[], Any] | None = None,
    ):
        self._module, self._run, self._dtype = module, run, dtype
        self._own = own or (lambda: run(module))
        self._taps = dict(taps)
        self._device = next((parameter.device.type for parameter in module.parameters()), "cpu")
        self.norms = 0  # that run
        self.pairs = self._foldable() if fold and any(type(part) in NORMS for part in module.modules()) else []

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
            warn(f"batch norms of a frozen {type(self._module).__name__} are not folded: it changes outputs")
            self.pairs = []
            return self.build()
        if self._dtype != torch.float32:
            for part in form.modules():
                if type(part) in LINEAR:
                    part.to(self._dtype)
            if not self._runs_reduced(form):  # some networks leave autocast for layers that want float32
                self._dtype = torch.float32
                return self.build()
        return form

    def note(self) -> str | None:
        """What was done, for the plan."""
        return f"{len(self.pairs)} of {self.norms} batch norms folded" if self.pairs else None

    def _foldable(self) -> list[tuple[str, str]]:
        """(path of a convolution or linear layer, path of the batch norm that alone reads it)."""
        tapped = [set(part.modules()) for part in self._tapped() if part is not self._module]
        paths: dict[nn.Module, list[str]] = {}
        for path, part in self._module.named_modules(remove_duplicate=False):
            paths.setdefault(part, []).append(path)
        hooked = {part for part in paths if _has_hooks(part)}
        watch = _Watch(part for part in paths if type(part) in (*LINEAR, *NORMS))
        with watch, evaluating(self._module), torch.no_grad():
            self._own()
        self.norms = watch.norms
        return [
            (paths[first][0], paths[norm][0])
            for first, norm in watch.pairs()
            if not {first, norm} & hooked
            and not any((first in inside) != (norm in inside) for inside in tapped)
            and len(paths[first]) == len(paths[norm]) == 1
            and _fits(first, norm)
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
        copied = {id(tensor) for part in changed for tensor in (*part.parameters(), *part.buffers())}
        tensors = [
            tensor for part in kept for tensor in (*part.parameters(recurse=False), *part.buffers(recurse=False))
        ]
        return copy.deepcopy(
            self._module, {id(tensor): tensor for tensor in tensors if id(tensor) not in copied}
        ).eval()

    def _equal(self, form: nn.Module) -> bool:
        """Whether both give the same, computed in float32 whatever the training computes in."""
        try:
            with evaluating(self._module), torch.no_grad(), _in_full_precision(self._device):
                expected, got = tensors_in(self._run(self._module)), tensors_in(self._run(form))
        except (TapError, RuntimeError):
            return False
        if [value.shape for value in got] != [value.shape for value in expected]:  # detections, which are counted
            return False
        return all(_close(ours, own) for ours, own in zip(got, expected, strict=True))

    def _runs_reduced(self, form: nn.Module) -> bool:
        """Whether it runs under autocast at all."""
        try:
            with torch.no_grad(), torch.autocast(self._device, self._dtype):
                self._run(form)
        except RuntimeError:
            return False
        return True


@contextmanager
def _in_full_precision(device: str) -> Iterator[None]:
    """Products of float32 with all of its bits: outside of autocast, and without TF32 on GPUs."""
    backends: list[Any] = [torch.backends.cuda.matmul, torch.backends.cudnn]
    allowed = [backend.allow_tf32 for backend in backends]
    try:
        for backend in backends:
            backend.allow_tf32 = False
        with torch.autocast(device, enabled=False):
            yield
    finally:
        for backend, before in zip(backends, allowed, strict=True):
            backend.allow_tf32 = before


def _close(ours: Tensor, own: Tensor) -> bool:
    if not own.is_floating_point() or not own.numel():
        return torch.equal(ours, own)
    return bool((ours - own).abs().max() <= TOLERANCE * own.abs().max().clamp(min=1e-6))


def _has_hooks(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _fits(first: nn.Module, norm: nn.Module) -> bool:
    channels = first.out_features if isinstance(first, nn.Linear) else first.out_channels
    mean: Any = norm.running_mean
    return mean is not None and len(mean) == channels


def _fold(form: nn.Module, first: str, norm: str) -> None:
    fuse: Any = fuse_linear_bn_eval if isinstance(form.get_submodule(first), nn.Linear) else fuse_conv_bn_eval
    form.set_submodule(first, fuse(form.get_submodule(first), form.get_submodule(norm)).requires_grad_(False))
    form.set_submodule(norm, nn.Identity())


class _Watch:
    """Sees, in one forward, which modules' outputs are the inputs of which batch norms."""

    def __init__(self, modules: Iterable[nn.Module]):
        self._modules = list(modules)
        # By id and version, which in-place operations raise; the tensors are kept, so that no id comes twice.
        self._given: dict[tuple[int, int], tuple[Tensor, nn.Module]] = {}
        self._taken: list[tuple[Tensor, tuple[int, int], nn.Module]] = []
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
            self._taken.append((args[0], (id(args[0]), args[0]._version), module))
        elif isinstance(output, Tensor):
            self._given[id(output), output._version] = (output, module)

    @property
    def norms(self) -> int:
        """How many batch norms ran."""
        return sum(type(module) in NORMS for module in self._runs)

    def pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        """(giver, batch norm), where both ran once and the giver's output went to one batch norm alone."""
        found = [(self._given[key][1], norm) for _, key, norm in self._taken if key in self._given]
        readers: dict[nn.Module, int] = {}
        for first, _ in found:
            readers[first] = readers.get(first, 0) + 1
        return [
            (first, norm) for first, norm in found if self._runs[first] == self._runs[norm] == 1 and readers[first] == 1
        ]

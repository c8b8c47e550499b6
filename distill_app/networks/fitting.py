"""Bringing a state dict to a network's names and shapes: prefixes, old names, number types, another classifier."""

import re
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping

from torch import Tensor, nn
from torchvision.models import DenseNet, MNASNet

from distill_app.errors import TapError, WeightsError
from distill_app.networks.taps import Tap, resolve
from distill_app.words import some

# What torch.compile, FSDP and activation checkpointing put into names, wherever a module is wrapped.
_WITHIN = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
# torchvision's DenseNet files name modules as before PyTorch 0.4: denselayer1.norm.1 is denselayer1.norm1.
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")
# Counts batches for batch norms without a momentum; files from before PyTorch 0.4 and of other programs lack it.
_COUNTER = "num_batches_tracked"


def fitted(
    state: Mapping[str, Tensor], net: nn.Module, *, source: str, head: str = "", drop_head: bool = False
) -> tuple[OrderedDict[str, Tensor], list[str]]:
    """A copy under the network's names, without what lies beside it in the file; shapes are not looked at.

    Args:
        state: Names and tensors.
        net: The network.
        source: What is read, for messages.
        head: The path of the classifier.
        drop_head: Whether the classifier may be missing.

    Returns:
        The state dict with the version notes that modules read, and what was changed, for the log.

    Raises:
        WeightsError: Several parts of the file fit.
    """
    own = net.state_dict()
    needed = {
        name for name in own if not name.endswith(_COUNTER) and not (drop_head and name.rpartition(".")[0] == head)
    }
    names = {name: _today(name, net, own) for name in state}
    others, names = names, {name: _own(today, net, own, taken={*names.values()}) for name, today in names.items()}
    prefix, notes = _prefix(names.values(), needed, source=source), []
    kept = {name: today.removeprefix(prefix) for name, today in names.items() if today.startswith(prefix)}
    notes += [
        f"without {part!r} in names" for part in _WITHIN if any(part in name for name in state if name not in own)
    ]
    if prefix:
        notes.append(f"without the prefix {prefix!r}")
    if names != others:
        notes.append("with another program's names of modules")
    if len(kept) < len(names):
        beside = dict.fromkeys(name.split(".")[0] for name in names if name not in kept)
        notes.append(f"without the {len(names) - len(kept)} tensors of {some(beside)}, which are beside it in the file")
    result = OrderedDict((today, state[name]) for name, today in kept.items())
    result.update({name: value for name, value in own.items() if name.endswith(_COUNTER) and name not in result})
    # load_state_dict reads versions from this attribute. A dict that was rebuilt has lost it, and a wrapper's
    # has its prefix in the keys. MNASNet alone refuses to load without; others then expect the oldest layout.
    versions = getattr(state, "_metadata", None) if list(result) == list(state) else None
    if versions is None and isinstance(net, MNASNet):
        versions = {"": {"version": net._version}}
    if versions is not None:
        result._metadata = versions  # type: ignore[attr-defined]
    return result, notes + _casts(result, own)


def _today(name: str, net: nn.Module, own: Mapping[str, Tensor]) -> str:
    if name not in own:
        for part in _WITHIN:
            name = name.replace(part, "")
        if isinstance(net, DenseNet):
            name = _OLD_DENSENET.sub(r"\1\2", name)
    return name


def _own(name: str, net: nn.Module, own: Mapping[str, Tensor], *, taken: set[str]) -> str:
    """The network's own name of what another program calls otherwise; never one that the file has already.

    Networks say it themselves, as `foreign_names`: (expression, own name).
    """
    if name in own:
        return name
    changed = name
    for expression, replacement in getattr(net, "foreign_names", ()):
        changed = re.sub(expression, replacement, changed)
    return name if changed in taken else changed


def _prefix(names: Iterable[str], needed: set[str], *, source: str) -> str:
    """What stands in front of the network's own names, nothing where no part of the file looks like the network.

    Raises:
        WeightsError: Several parts of the file look like it, each under a prefix of its own.
    """
    found: Counter[str] = Counter()
    for name in names:
        parts = name.split(".")
        for start in range(len(parts)):
            if ".".join(parts[start:]) in needed:
                found["".join(f"{part}." for part in parts[:start])] += 1
    most = max(found.values(), default=0)
    best = [prefix for prefix, count in found.items() if count == most]
    if 2 * most < len(needed) or not best or "" in best:
        return ""
    if len(best) > 1:
        keys = ", ".join(f"checkpoint_key={prefix.rstrip('.')}" for prefix in best[:4])
        raise WeightsError(f"{source}: {len(best)} parts of the file fit the network; say which: {keys}")
    return best[0]


def _casts(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
    """Which number types of the file are not those of the network; load_state_dict converts them."""
    floating = [name for name in own if name in state and own[name].is_floating_point()]
    kinds = {(state[name].dtype, own[name].dtype) for name in floating if state[name].dtype != own[name].dtype}
    return sorted(
        f"{str(there).removeprefix('torch.')} cast to {str(here).removeprefix('torch.')}" for there, here in kinds
    )


def head_of(net: nn.Module, taps: Mapping[str, str] | None = None) -> str:
    """The path of the classifier: the module that the tap `logits` reads, else the last one with parameters.

    Args:
        net: The network.
        taps: The paths of its taps, as configured.
    """
    paths = [path for path, module in net.named_modules() if next(module.parameters(recurse=False), None) is not None]
    if taps and "logits" in taps:
        try:
            module = resolve(net, Tap.parse("logits", taps["logits"]).path)
        except TapError:
            module = net  # told where taps are checked
        named = {id(part): path for path, part in net.named_modules()}
        if named.get(id(module)) in paths:
            return named[id(module)]
    return paths[-1] if paths else ""


def classifier_tensors(state: Mapping[str, Tensor], net: nn.Module, *, head: str) -> tuple[list[str], tuple[int, int]]:
    """Tensors of the classifiers of a file that is for another number of classes.

    Beside the classifier itself these are auxiliary ones: whatever differs in its first dimension alone, and there by
    the same two numbers of classes.

    Returns:
        The names, none if the classifier fits or is not in the file; and the number of classes there and here.
    """
    own = net.state_dict()
    pairs = {
        name: (len(state[name]), len(value))
        for name, value in own.items()
        if name in state
        and value.dim()
        and state[name].dim() == value.dim()
        and state[name].shape[1:] == value.shape[1:]
    }
    of_head = {pair for name, pair in pairs.items() if name.rpartition(".")[0] == head and pair[0] != pair[1]}
    if len(of_head) != 1:
        return [], (0, 0)
    (classes,) = of_head
    return [name for name, pair in pairs.items() if pair == classes], classes


def mismatch(net: nn.Module, state: Mapping[str, Tensor], *, head: str, way_out: str = "") -> str:
    """How the names and shapes of a file differ from the network's, and the likely cause.

    Args:
        net: The network.
        state: The file's tensors under today's names.
        head: The path of the classifier.
        way_out: What loads all but the classifier.
    """
    own = net.state_dict()
    absent = [name for name in own if name not in state]
    extra = [name for name in state if name not in own]
    shapes = [name for name in own if name in state and own[name].shape != state[name].shape]
    parts = [f"missing {some(absent)}"] if absent else []
    parts += [f"unexpected {some(extra)}"] if extra else []
    detail = (f"{name} is {tuple(state[name].shape)} in the file, {tuple(own[name].shape)} here" for name in shapes)
    parts += [f"other shapes: {some(detail)}"] if shapes else []
    classifiers, (there, here) = classifier_tensors(state, net, head=head)
    cause = "the file is of another architecture than net"
    if not (absent or extra) and shapes and set(shapes) <= set(classifiers):
        instead = f"{way_out} loads all but the classifier {head}; or " if way_out else ""
        cause = (
            f"the file has {there} classes, the network {here}; {instead}set num_classes={there} or use another file"
        )
    elif not (extra or shapes) and way_out and {name.rpartition(".")[0] for name in absent} == {head}:
        cause = f"the file has no classifier {head}; {way_out} loads all but this"
    return f"does not fit {type(net).__name__}: {'; '.join(parts)}. Likely cause: {cause}"

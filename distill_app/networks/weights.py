"""Where a network's weights come from: a checkpoint file, torchvision's pretrained weights, or chance.

Every file is untrusted input: it is read with `weights_only=True`, and what is refused stays refused.
"""

import difflib
import importlib
import re
import sys
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

import torch
from torch import Tensor, nn
from torchvision.models import DenseNet, MNASNet, WeightsEnum, get_model_weights

from distill_app.errors import WeightsError

# What DistributedDataParallel and torch.compile put in front of every name.
WRAPPERS = ("module.", "_orig_mod.")
NESTED_UNDER = ("model", "state_dict", "model_state_dict")
# torchvision's DenseNet files name modules as before PyTorch 0.4: denselayer1.norm.1 is denselayer1.norm1.
OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")


def load_weights(
    net: nn.Module, *, model_conf_net: Mapping[str, Any], checkpoint: str | None, weights: str | None
) -> tuple[str, bool]:
    """Fills a network from the first source that is there: the checkpoint, torchvision's weights, or none.

    Args:
        net: The network, on any device; changed in place.
        model_conf_net: The config it was built from, which names torchvision's builder.
        checkpoint: A path or file:// URL of a state dict, plain or under "model", "state_dict" or
            "model_state_dict", with or without the prefixes of wrappers. All names and shapes must agree.
        weights: The name of torchvision weights, e.g. IMAGENET1K_V1. All names and shapes must agree, but for
            the classifier head, which keeps its initialisation when the number of classes differs.

    Returns:
        What was done, for the log, and whether anything was loaded.

    Raises:
        WeightsError: A file that cannot be read or does not fit, or weights that do not exist or cannot be had.
    """
    missing = ""
    if checkpoint:
        path = _local_path(checkpoint)
        if path.exists():
            _load_strictly(net, _read(path), source=f"checkpoint: {path}")
            return f"checkpoint {path}", True
        missing = f" (checkpoint {path} not found)"
    if weights:
        return _load_pretrained(net, model_conf_net=model_conf_net, name=weights) + missing, True
    return f"random initialisation{missing}", False


def _local_path(checkpoint: str) -> Path:
    if "://" not in checkpoint:
        return Path(checkpoint).expanduser()
    url = urlparse(checkpoint)
    if url.scheme == "file" and url.netloc in ("", "localhost"):
        return Path(url2pathname(url.path))
    raise WeightsError(f"checkpoint: got {checkpoint!r}; give a path or a file:// URL, download the file first")


def _read(path: Path) -> Mapping[str, Tensor]:
    """The state dict in a file.

    Raises:
        WeightsError: It is damaged, holds more than data, or holds no state dict.
    """
    try:
        content = torch.load(path, weights_only=True, map_location="cpu")
    except OSError as error:
        raise WeightsError(f"checkpoint: {path} cannot be read ({error})") from error
    except Exception as error:  # a damaged or hostile file can fail in any part of the unpickler
        raise WeightsError(
            f"checkpoint: {path} is damaged, or holds objects other than tensors and plain data, which are "
            f"not loaded because they could run code ({type(error).__name__}); save net.state_dict() instead"
        ) from error
    if isinstance(content, Mapping):
        nested = next((content[key] for key in NESTED_UNDER if isinstance(content.get(key), Mapping)), content)
        if nested and all(isinstance(key, str) and isinstance(value, Tensor) for key, value in nested.items()):
            return nested
    found = f"a dict of {_some(map(str, content))}" if isinstance(content, Mapping) else f"a {type(content).__name__}"
    raise WeightsError(
        f"checkpoint: {path} holds {found}; allowed: a state dict, or one under {', '.join(NESTED_UNDER)}"
    )


def _load_strictly(net: nn.Module, state: Mapping[str, Tensor], *, source: str) -> None:
    state = _fitted(state, net)
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        raise WeightsError(f"{source}: {_mismatch(net, state)}") from error


def _fitted(state: Mapping[str, Tensor], net: nn.Module) -> OrderedDict[str, Tensor]:
    """A copy under today's names, without prefixes of wrappers, with the version notes that modules read."""
    names = list(state)
    own = net.state_dict().keys()
    while wrapper := next((w for w in WRAPPERS if all(name.startswith(w) for name in names)), None):
        if any(name.startswith(wrapper) for name in own):
            break
        names = [name.removeprefix(wrapper) for name in names]
    if isinstance(net, DenseNet):
        names = [OLD_DENSENET.sub(r"\1\2", name) for name in names]
    fitted = OrderedDict(zip(names, state.values(), strict=True))
    # load_state_dict reads versions from this attribute. A dict that was rebuilt has lost it, and a wrapper's
    # has its prefix in the keys. MNASNet alone refuses to load without; others then expect the oldest layout.
    versions = getattr(state, "_metadata", None) if names == list(state) else None
    if versions is None and isinstance(net, MNASNet):
        versions = {"": {"version": net._version}}
    if versions is not None:
        fitted._metadata = versions  # type: ignore[attr-defined]
    return fitted


def _mismatch(net: nn.Module, state: Mapping[str, Tensor]) -> str:
    """How the names and shapes of a file differ from the network's, and the likely cause."""
    own = net.state_dict()
    head = head_of(net)
    absent = [name for name in own if name not in state]
    extra = [name for name in state if name not in own]
    shapes = [name for name in own if name in state and own[name].shape != state[name].shape]
    parts = [f"missing {_some(absent)}"] if absent else []
    parts += [f"unexpected {_some(extra)}"] if extra else []
    detail = (f"{name} is {tuple(state[name].shape)} in the file, {tuple(own[name].shape)} here" for name in shapes)
    parts += [f"other shapes: {_some(detail)}"] if shapes else []
    if not (absent or extra) and shapes and all(name.rpartition(".")[0] == head for name in shapes):
        there, here = len(state[shapes[0]]), len(own[shapes[0]])
        cause = f"the file has {there} classes, the network {here}; set num_classes={there} or use another file"
    else:
        cause = "the file is of another architecture than net"
    return f"does not fit {type(net).__name__}: {'; '.join(parts)}. Likely cause: {cause}"


def _some(items: Iterable[str], *, limit: int = 4) -> str:
    listed = list(items)
    more = f" and {len(listed) - limit} more" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + more


def head_of(net: nn.Module) -> str:
    """The path of the classifier head: the last module, as defined, that has parameters of its own."""
    paths = [path for path, module in net.named_modules() if next(module.parameters(recurse=False), None) is not None]
    return paths[-1] if paths else ""


def _load_pretrained(net: nn.Module, *, model_conf_net: Mapping[str, Any], name: str) -> str:
    builder = _builder_of(model_conf_net)
    state = _fitted(_download(_choose(builder, name)), net)
    source = f"weights {name} of {builder}"
    head, own = head_of(net), net.state_dict()
    in_head = [key for key in state if key in own and key.rpartition(".")[0] == head]
    dropped = in_head if any(state[key].shape != own[key].shape for key in in_head) else []
    there = len(state[dropped[0]]) if dropped else 0
    for key in dropped:
        del state[key]
    try:
        outcome = net.load_state_dict(state, strict=False)
        fits = not outcome.unexpected_keys and set(outcome.missing_keys) == set(dropped)
    except RuntimeError:
        fits = False
    if not fits:
        raise WeightsError(f"{source}: {_mismatch(net, state)}")
    if not dropped:
        return source
    here = len(own[dropped[0]])
    return f"{source}, without the classifier head {head} ({there} classes in the file, {here} here)"


def _builder_of(conf: Mapping[str, Any]) -> str:
    """The dotted path of torchvision's builder, also where a function such as small_stem wraps it."""
    target = str(conf.get("_target_"))
    inner = conf.get("net")
    if target.startswith("torchvision.models."):
        return target
    if isinstance(inner, Mapping):
        return _builder_of(inner)
    raise WeightsError(
        f"weights: torchvision has weights for its own networks only, net is built by {target}; "
        "set checkpoint to a file"
    )


def _choose(builder: str, name: str) -> WeightsEnum:
    module, _, function = builder.rpartition(".")
    try:
        available = get_model_weights(getattr(importlib.import_module(module), function))
    except (ValueError, AttributeError, ImportError) as error:
        raise WeightsError(f"weights: torchvision has no weights for {builder}; set checkpoint to a file") from error
    names = list(available.__members__)
    chosen = name.rpartition(".")[2]  # ResNet18_Weights.IMAGENET1K_V1 is as good as IMAGENET1K_V1
    if chosen not in names:
        near = difflib.get_close_matches(chosen, names, n=1, cutoff=0.0)
        hint = f"; nearest: weights={near[0]}" if near else ""
        raise WeightsError(f"weights: got {name!r}, {builder} has {', '.join(names) or 'none'}{hint}")
    return available[chosen]


def _download(weights: WeightsEnum) -> dict[str, Tensor]:
    """The state dict, from torch hub's folder or the network.

    Raises:
        WeightsError: It cannot be downloaded, or the file is damaged.
    """
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(weights.url).path).name
    instead = f"put the file at {file}, or set checkpoint to one that you have"
    try:
        return weights.get_state_dict(
            progress=sys.stderr.isatty(), check_hash=True, map_location="cpu", weights_only=True
        )
    except OSError as error:
        raise WeightsError(f"weights: cannot download {weights.url} ({error}); {instead}") from error
    except Exception as error:  # a damaged or hostile file can fail in any part of the unpickler
        raise WeightsError(
            f"weights: {file} from {weights.url} is damaged or not what torchvision published "
            f"({type(error).__name__}); delete it and try again, {instead}"
        ) from error

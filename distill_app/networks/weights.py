"""Where a network's weights come from: a checkpoint file, torchvision's pretrained weights, its constructor, or chance.

Every file is untrusted input: it is read with `weights_only=True`, and what is refused stays refused.
"""

import difflib
import importlib
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from torch import Tensor, nn
from torchvision.models import WeightsEnum, get_model_builder, get_model_weights

from distill_app.config.schema import ModelConf
from distill_app.config.start import checkpoint_file
from distill_app.errors import IrregularFile, WeightsError
from distill_app.networks.fitting import classifier_tensors, fitted, head_of, mismatch
from distill_app.networks.origin import Origin
from distill_app.networks.weightfile import read_weights
from distill_app.runs.untrusted import open_regular


def load_weights(net: nn.Module, conf: ModelConf, *, key: str, built: Origin | None = None) -> Origin:
    """Fills a network from the first source that its config names: the checkpoint, or torchvision's weights.

    Args:
        net: The network, on any device; changed in place.
        conf: `checkpoint`, a path or file:// URL of weights: all names and shapes must agree, but for prefixes, what
            lies beside the network in the file, and with `drop_head` the classifier. `weights`, the name of torchvision
            weights, e.g. IMAGENET1K_V1: all names and shapes must agree, but for a classifier of another size.
        key: The config key of the network, for messages.
        built: What its constructor gave it, which stays where the config names no source.

    Returns:
        What was done.

    Raises:
        WeightsError: A file that is not there, cannot be read or does not fit, or weights that do not exist or cannot
            be had.
    """
    built = built or Origin(head=head_of(net, conf.taps))
    path = checkpoint_file(conf, key=key)
    if path is not None:
        return _load_checkpoint(net, path, conf=conf, key=key, head=built.head)
    origin = _load_pretrained(net, conf=conf, key=key, head=built.head) if conf.weights else built
    if not conf.checkpoint:
        return origin
    return replace(origin, warning=f"{key}.checkpoint: there is no file {conf.checkpoint}; instead: {origin}")


def _load_checkpoint(net: nn.Module, path: Path, *, conf: ModelConf, key: str, head: str) -> Origin:
    source, drop = f"{key}.checkpoint: {path}", conf.drop_head
    own = net.state_dict()
    raw, choice = read_weights(path, key=key, names=own, choice=conf.checkpoint_key)
    state, changes = fitted(raw, net, source=source, head=head, drop_head=drop)
    notes, dropped = [*choice, *changes], []
    if drop:
        other, (there, here) = classifier_tensors(state, net, head=head)
        absent = [name for name in own if name.rpartition(".")[0] == head and name not in state]
        if dropped := [*other, *absent]:
            classes = f"{there} classes in the file, {here} here" if other else "none in the file"
            notes.append(f"without the classifier {_modules_of(dropped)} ({classes})")
        for name in other:
            del state[name]
    if not _load(net, state, without=dropped):
        raise WeightsError(f"{source} {mismatch(net, state, head=head, way_out=f'{key}.drop_head=true')}")
    return Origin(f"checkpoint {path}", loaded=True, notes=tuple(notes), random=tuple(dropped), head=head)


def _load(net: nn.Module, state: Mapping[str, Tensor], *, without: list[str]) -> bool:
    """Whether all fits but what is left out; where it does not, the network may hold some of it."""
    try:
        outcome = net.load_state_dict(state, strict=False)
    except RuntimeError:
        return False
    return not outcome.unexpected_keys and set(outcome.missing_keys) == set(without)


def _load_pretrained(net: nn.Module, *, conf: ModelConf, key: str, head: str) -> Origin:
    name = str(conf.weights)
    builder = _builder_of(conf.net, key=key)
    source = f"weights {name} of {builder}"
    state, _ = fitted(_download(_choose(builder, name, key=key), key=key), net, source=f"{key}.weights")
    dropped, (there, here) = classifier_tensors(state, net, head=head)
    for tensor in dropped:
        del state[tensor]
    if not _load(net, state, without=dropped):
        raise WeightsError(f"{key}.weights: {source} {mismatch(net, state, head=head)}")
    if not dropped:
        return Origin(source, loaded=True, head=head)
    note = f"without the classifier {_modules_of(dropped)} ({there} classes in the file, {here} here)"
    return Origin(source, loaded=True, notes=(note,), random=tuple(dropped), head=head)


def _modules_of(names: list[str]) -> str:
    return " and ".join(dict.fromkeys(name.rpartition(".")[0] for name in names))


def _builder_of(conf: Mapping[str, Any], *, key: str) -> str:
    """The dotted path of torchvision's builder, also where a function such as small_stem wraps it."""
    target = str(conf.get("_target_"))
    inner = conf.get("net")
    if target == "torchvision.models.get_model":
        return f"torchvision.models.{get_model_builder(str(conf['name'])).__name__}"
    if target.startswith("torchvision.models."):
        return target
    if target == "distill_app.models.detector":
        return f"torchvision.models.detection.{conf.get('architecture')}"
    if isinstance(inner, Mapping):
        return _builder_of(inner, key=key)
    raise WeightsError(
        f"{key}.weights: torchvision has weights for its own networks only, net is built by {target}; "
        f"set {key}.checkpoint to a file"
    )


def _choose(builder: str, name: str, *, key: str) -> WeightsEnum:
    module, _, function = builder.rpartition(".")
    try:
        available = get_model_weights(getattr(importlib.import_module(module), function))
    except (ValueError, AttributeError, ImportError) as error:
        raise WeightsError(
            f"{key}.weights: torchvision has no weights for {builder}; set {key}.checkpoint to a file"
        ) from error
    names = list(available.__members__)
    chosen = name.rpartition(".")[2]  # ResNet18_Weights.IMAGENET1K_V1 is as good as IMAGENET1K_V1
    if chosen not in names:
        near = difflib.get_close_matches(chosen, names, n=1, cutoff=0.0)
        hint = f"; nearest: {key}.weights={near[0]}" if near else ""
        raise WeightsError(f"{key}.weights: got {name!r}, {builder} has {', '.join(names) or 'none'}{hint}")
    return available[chosen]


def _download(weights: WeightsEnum, *, key: str) -> dict[str, Tensor]:
    """The state dict, from torch hub's folder or the network.

    Raises:
        WeightsError: It cannot be downloaded, or the file is damaged.
    """
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(weights.url).path).name
    instead = f"put the file at {file}, or set {key}.checkpoint to one that you have"
    try:
        if file.exists():  # as it is in torch hub's folder it is opened without a look
            open_regular(file, links=True).close()
        return weights.get_state_dict(
            progress=sys.stderr.isatty(), check_hash=True, map_location="cpu", weights_only=True
        )
    except IrregularFile as error:
        raise WeightsError(f"{key}.weights: {error}") from error
    except OSError as error:
        raise WeightsError(f"{key}.weights: cannot download {weights.url} ({error}); {instead}") from error
    except Exception as error:  # a damaged or hostile file can fail in any part of the unpickler
        raise WeightsError(
            f"{key}.weights: {file} from {weights.url} is damaged or not what torchvision published "
            f"({type(error).__name__}); delete it and try again, {instead}"
        ) from None  # torch advises to load it unsafely

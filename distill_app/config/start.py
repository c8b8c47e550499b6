"""What a config says of the weights that a network starts with; no torch."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from distill_app.config.plan import model_key, models_of
from distill_app.config.schema import AppConf, ModelConf
from distill_app.errors import WeightsError
from distill_app.words import unknown

# Arguments by which constructors of timm, torchvision and many others are asked to load weights.
ASKING = ("pretrained", "weights", "weights_backbone", "checkpoint_path")
_OF_A_CHECKPOINT = ("checkpoint", "checkpoint_key", "checkpoint_optional", "drop_head", "weights")


def checkpoint_file(conf: ModelConf, *, key: str) -> Path | None:
    """The file that `checkpoint` names by a path or a file:// URL; None where there need not be one.

    Args:
        conf: The network.
        key: Its config key.

    Raises:
        WeightsError: There is no such file, and it is not optional; a folder, or a URL of another kind.
    """
    if not conf.checkpoint:
        return None
    path = _local_path(conf.checkpoint, key=key)
    if path.is_dir():
        raise WeightsError(f"{key}.checkpoint: {path} is a folder; name the file of weights in it")
    if path.exists():
        return path
    if conf.checkpoint_optional:
        return None
    near = _beside(path)
    hint = f"; beside it there are: {', '.join(near)}" if near else ""
    raise WeightsError(
        f"{key}.checkpoint: there is no file {path}{hint}; correct the path, or type {key}.checkpoint=null to go "
        f"without it, or {key}.checkpoint_optional=true where it is used only if it is there"
    )


def _local_path(checkpoint: str, *, key: str) -> Path:
    if "://" not in checkpoint:
        return Path(checkpoint).expanduser()
    url = urlparse(checkpoint)
    if url.scheme == "file" and url.netloc in ("", "localhost"):
        return Path(unquote(url.path))
    raise WeightsError(f"{key}.checkpoint: got {checkpoint!r}; give a path or a file:// URL, download the file first")


def _beside(path: Path) -> list[str]:
    """A few files of weights in the folder of a file that is not there."""
    suffixes = (".pt", ".pth", ".safetensors", ".ckpt", ".bin", ".tar")
    try:
        return sorted(str(file) for file in path.parent.iterdir() if file.suffix in suffixes)[:4]
    except OSError:
        return []


def chain_of(app: AppConf, name: str) -> list[str]:
    """A network, the one that it starts like, the one that this starts like, and so on.

    The last one's name is what their random numbers are drawn from.

    Raises:
        WeightsError: `starts_like` names no network, or goes round in a circle.
    """
    models, chain = models_of(app), [name]
    while (other := models[chain[-1]].starts_like) is not None:
        if other not in models:
            raise WeightsError(f"{model_key(app, chain[-1])}.starts_like: {unknown('network', other, models)}")
        if other in chain:
            circle = " -> ".join([*chain, other])
            raise WeightsError(f"{model_key(app, chain[-1])}.starts_like: goes round in a circle, {circle}")
        chain.append(other)
    return chain


def start_of(app: AppConf, name: str) -> ModelConf:
    """A network's config, with the checkpoint or weights of the network that it starts like if it has none itself."""
    models = models_of(app)
    sources = (models[other] for other in chain_of(app, name) if models[other].checkpoint or models[other].weights)
    source = next(sources, models[name])
    return replace(models[name], **{part: getattr(source, part) for part in _OF_A_CHECKPOINT})


def asking_argument(net: Any) -> str:
    """How a network's config asks its constructor for weights, `pretrained=True` for instance; "" if it does not."""
    if isinstance(net, Mapping):
        for name in ASKING:
            if net.get(name):
                return f"{name}={net[name]}"
        if str(net.get("_target_", "")).endswith(".from_pretrained"):
            return "from_pretrained"
        return next((found for value in net.values() if (found := asking_argument(value))), "")
    if isinstance(net, list | tuple):
        return next((found for value in net if (found := asking_argument(value))), "")
    return ""

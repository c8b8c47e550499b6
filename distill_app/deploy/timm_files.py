"""`config.json` beside `model.safetensors`: by both timm loads a network of its own from their folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distill_app.errors import ExportError
from distill_app.networks.inputs import OwnInput
from distill_app.networks.modes import evaluating
from distill_app.runs.files import write_json

CONFIG, WEIGHTS = "config.json", "model.safetensors"
_NOT_ARGUMENTS = ("_target_", "model_name", "pretrained", "num_classes", "checkpoint_path", "in_channels")


def is_timm(described: Mapping[str, Any]) -> bool:
    """Whether a network is built by timm alone."""
    net = described["net"]
    return isinstance(net, Mapping) and net.get("_target_") == "timm.create_model"


def write_config(folder: Path, network: nn.Module, described: Mapping[str, Any], samples: Tensor) -> list[Path]:
    """Writes it beside the weights, and has timm load both.

    Args:
        folder: Of the weights.
        network: The bare network.
        described: Of the export.
        samples: Of its input.

    Raises:
        ExportError: What timm loads answers something else.
    """
    import timm

    write_json(folder / CONFIG, _config(network, described))
    try:
        other = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    except Exception as error:
        text = next(iter(str(error).splitlines()), "")
        raise ExportError(f"timm does not load what was exported for it: {type(error).__name__}: {text}") from error
    own = described.get("input")
    images = OwnInput.of(own)(samples) if own else samples  # timm prepares them so
    with evaluating(network), torch.no_grad():
        if not torch.equal(other(images), network(samples)):
            raise ExportError("what timm loads from the export answers something else than the network")
    return [folder / CONFIG]


def _config(network: Any, described: Mapping[str, Any]) -> dict[str, Any]:
    net, own = described["net"], described.get("input") or {}
    how = described["preprocessing"] | {key: own[key] for key in ("size", "channels", "mean", "std") if own.get(key)}
    size = how["size"] or 224
    own = dict(getattr(network, "pretrained_cfg", None) or {})
    kept = {key: own[key] for key in ("first_conv", "classifier", "fixed_input_size") if own.get(key) is not None}
    pretrained = {
        **kept,
        "num_classes": described["num_classes"],
        "input_size": [how["channels"], size, size],
        "mean": how["mean"],
        "std": how["std"],
        **_crop(how["transforms"], size),
        **({"label_names": described["classes"]} if described["classes"] else {}),
    }
    arguments = {key: value for key, value in net.items() if key not in _NOT_ARGUMENTS}
    found = {
        "architecture": own.get("architecture") or str(net["model_name"]).split(".")[0],
        "num_classes": described["num_classes"],
        "num_features": getattr(network, "num_features", None),
        "pretrained_cfg": pretrained,
        "model_args": arguments,
    }
    return {key: value for key, value in found.items() if value is not None}


def _crop(transforms: list[Mapping[str, Any]], size: int) -> dict[str, Any]:
    """How timm resizes and crops, as far as the transforms say it in the usual way."""
    resize = next((each for each in transforms if str(each["_target_"]).endswith(".Resize")), {})
    side = resize.get("size")
    side = min(side) if isinstance(side, list) and side else side
    known = {"nearest": "nearest", "bicubic": "bicubic", "0": "nearest", "3": "bicubic"}  # names, or Pillow's numbers
    share = size / side if isinstance(side, int) and side >= size else 1.0
    interpolation = known.get(str(resize.get("interpolation")).lower(), "bilinear")
    return {"interpolation": interpolation, "crop_pct": share, "crop_mode": "center"}

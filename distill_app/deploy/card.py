"""The model card of an export: Markdown with metadata, as the Hugging Face hub reads it."""

from collections.abc import Mapping
from typing import Any

import yaml

_TASKS = {
    "softmax": "image-classification",
    "sigmoid": "image-classification",
    "pixels": "image-segmentation",
    "objects": "object-detection",
}
_NATIVE = {
    "state_dict": 'import torch\nweights = torch.load("{file}", weights_only=True)  # of the bare architecture',
    "safetensors": 'from safetensors.torch import load_file\nweights = load_file("{file}")  # of the bare architecture',
    "torch_export": 'import torch\nnetwork = torch.export.load("{file}").module()\nanswer = network(images)',
    "torchscript": 'import torch\nnetwork = torch.jit.load("{file}").eval()\nanswer = network(images)',
    "onnx": 'import onnxruntime\nsession = onnxruntime.InferenceSession("{file}")\n'
    'answer = session.run(None, {{"images": images}})[0]  # a numpy array',
}
_TIMM = 'import timm\nnetwork = timm.create_model("local-dir:.", pretrained=True).eval()'
_SHOWN_CLASSES = 20


def card(described: Mapping[str, Any], *, timm: bool = False) -> str:
    """The card of an export.

    Args:
        described: Its description.
        timm: Whether timm loads it from its folder.
    """
    run, name = described["run"], f"{described['architecture']} on {described['dataset']}"
    parts = [
        f"---\n{yaml.safe_dump(_metadata(described, timm=timm), sort_keys=False, allow_unicode=True)}---",
        f"# {name}",
        _sentence(described),
        "## How to load it",
        "Put this folder beside your program. `images` is float32 (batch, channels, height, width), prepared as below.",
        f"```python\n{_ours(described)}\n```",
        "Without distill-app:",
        f"```python\n{_TIMM if timm else _NATIVE[described['format']].format(file=described['file'])}\n```",
        "## What goes in",
        _input(described),
        "## What comes out",
        _classes(described),
        "## How good it is",
        _figures(described),
        "## Where it comes from",
        _table(
            {
                "method": run.get("method"),
                "teacher": run.get("teacher"),
                "weights of the teacher": run.get("teacher_weights"),
                "data": _data(run),
                "seed": run.get("seed"),
                "weights": run.get("weights"),
                "commit": run.get("commit"),
                "hash of the settings": run.get("settings"),
                "made by": described.get("created_by"),
            }
        ),
        "## Licence",
        _table(
            {
                "these weights": described.get("licence") or "not stated",
                "data": "not stated; what was trained on them may fall under their terms",
                "teacher": "not stated; what was learnt from it may fall under its terms"
                if run.get("teacher")
                else None,
            }
        ),
    ]
    return "\n\n".join(parts)


def split_card(described: Mapping[str, Any]) -> str:
    """The card of a network in two halves.

    Args:
        described: Its description.
    """
    cut, parts, program = described["cut"], described["parts"], described["format"] == "torch_export"
    message = ", ".join(
        f"`{name}` {told['dtype']} ({', '.join(map(str, told['shape']))})"
        for name, told in described["message"].items()
    )
    loaders = {
        part: f'torch.export.load("{told["file"]}").module()' if program else f'distill_app.load_half(".", "{part}")'
        for part, told in parts.items()
    }
    crosses = cut["eight_bit"] if described["eight_bits"] else cut["float32"]
    share = cut["head_flops"] / max(cut["head_flops"] + cut["tail_flops"], 1)
    goes_in = (
        "one tensor of images, prepared as `split.json` says" if program else "a list of images in [0, 1], any sizes"
    )
    return "\n\n".join(
        [
            f"---\n{yaml.safe_dump(_metadata(described, timm=False), sort_keys=False, allow_unicode=True)}---",
            f"# {described['architecture']} on {described['dataset']}, cut in two",
            f"`{parts['head']['file']}` runs on a device, `{parts['tail']['file']}` on a server. Between them cross "
            f"{crosses:,} bytes an image (the image: {cut['image']:,}), and {100 * share:.0f} % of the operations are "
            f"the head's. One behind the other they were verified against the whole network.",
            f"```python\nimport {'torch' if program else 'distill_app'}\n\nhead = {loaders['head']}\n"
            f"tail = {loaders['tail']}\nmessage = head(images)  # {goes_in}\nanswer = tail(**message)\n```",
            f"The message, tensors by name: {message}.",
            "## How good the whole is",
            _figures(described),
        ]
    )


def _metadata(described: Mapping[str, Any], *, timm: bool) -> dict[str, Any]:
    run, task = described["run"], _TASKS.get(described.get("scores") or "")
    tags = ["knowledge-distillation", *filter(None, [run.get("method"), described["format"]])]
    results = [
        {
            "type": figure["name"],
            "value": figure.get("mean", figure["value"]),
            "name": f"{figure['name']} on the test set, "
            + (f"mean of {figure['seeds']} seeds" if "seeds" in figure else f"seed {figure['seed']}"),
        }
        for figure in run["figures"]
    ]
    data = {"name": described["dataset"], "type": described["dataset"]}
    found = {
        "license": described.get("licence") or "unknown",
        "library_name": "timm" if timm else {"onnx": "onnx"}.get(described["format"], "pytorch"),
        "pipeline_tag": task,
        "tags": tags,
        "datasets": [described["dataset"]],
        "metrics": [figure["name"] for figure in run["figures"]] or None,
        "model-index": [
            {
                "name": described["architecture"],
                "results": [{"task": {"type": task or "other"}, "dataset": data, "metrics": results}],
            }
        ]
        if results
        else None,
    }
    return {key: value for key, value in found.items() if value is not None}


def _sentence(described: Mapping[str, Any]) -> str:
    run = described["run"]
    taught = f", taught by {run['teacher']}" if run.get("teacher") and described["network"] != "teacher" else ""
    method = f" with the method `{run['method']}`" if run.get("method") and taught else ""
    return (
        f"A network of {described['parameters']:,} parameters (`{described['network']}` of a run of distill-app)"
        f"{taught}{method}. `{described['file']}` was verified against the network as it was trained: on "
        f"{described['verified']['images']} images, in batches of several sizes, its answers differ by at most "
        f"{described['verified']['largest_difference']:.2g} of the largest one."
    )


def _ours(described: Mapping[str, Any]) -> str:
    more = {"torch_export": "torch.export.load", "torchscript": "torch.jit.load"}.get(described["format"])
    trust = f', allow=["{more}"]' if more else ""
    return (
        f'import distill_app\nnetwork = distill_app.load("{described["file"]}"{trust})  # eval mode\n'
        'images = network.preprocessing.batch(["a.jpg", "b.jpg"])\nanswer = network(images)\n'
        'print(network.predict(["a.jpg", "b.jpg"], top=3))'
    )


def _input(described: Mapping[str, Any]) -> str:
    how, own = described["preprocessing"], described.get("input") or {}
    changed = ", ".join(
        f"{key} {value}" for key, value in own.items() if key not in ("find", "of") and value is not None
    )
    steps = [str(each["_target_"]).rsplit(".", 1)[-1] + _arguments(each) for each in how["transforms"]]
    return _table(
        {
            "size": how["size"],
            "channels": how["channels"],
            **({"turned": "as their EXIF data say"} if how.get("upright") else {}),
            "transforms": ", then ".join(steps) or "none",
            "scale": how["scale"],
            "mean": how["mean"],
            "std": how["std"],
            **({"changed in front of the network, by itself": changed} if changed else {}),
        }
    )


def _arguments(conf: Mapping[str, Any]) -> str:
    return f"({', '.join(f'{key}={value}' for key, value in conf.items() if not key.startswith('_'))})"


def _classes(described: Mapping[str, Any]) -> str:
    scores = {
        "softmax": "one class for each image: the softmax of the answer gives their probabilities",
        "sigmoid": "any number of classes for each image: the sigmoid of the answer gives their probabilities",
        "pixels": "a map of logits for each: the largest of a pixel is its class",
    }.get(described.get("scores") or "", "an answer that is not one of classes")
    names = described.get("classes")
    if not names:
        return f"{described['num_classes']} numbers, {scores}. The names of the classes are not known."
    shown = ", ".join(f"{number} {name}" for number, name in enumerate(names[:_SHOWN_CLASSES]))
    more = f" and {len(names) - _SHOWN_CLASSES} more, in the JSON file beside" if len(names) > _SHOWN_CLASSES else ""
    return f"{described['num_classes']} numbers, {scores}: {shown}{more}."


def _figures(described: Mapping[str, Any]) -> str:
    figures = described["run"]["figures"]
    if not figures:
        return "The run has not been tested."
    lines = ["| on the test set | this network | over seeds |", "|---|---|---|"]
    for figure in figures:
        over = f"{figure['mean_shown']} (n = {figure['seeds']})" if "seeds" in figure else "one seed"
        lines.append(f"| {_cell(figure['name'])} | {figure['shown']} (seed {figure['seed']}) | {over} |")
    return "\n".join(lines)


def _data(run: Mapping[str, Any]) -> str:
    data = run.get("data") or {}
    counts = [f"{data[key]:,} {key} images" for key in ("train", "validation") if isinstance(data.get(key), int)]
    return ", ".join([str(data.get("dataset") or run.get("dataset")), *counts])


def _table(rows: Mapping[str, Any]) -> str:
    told = [f"| {key} | {_cell(value)} |" for key, value in rows.items() if value is not None]
    return "\n".join(["| | |", "|---|---|", *told])


def _cell(value: Any) -> str:
    text = "".join(each if each.isprintable() else " " for each in str(value))
    return text.replace("|", "\\|")

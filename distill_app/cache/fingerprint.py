"""What the outputs of a frozen network depend on, in plain values: two caches are the same if and only if these are."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import PIL
import torch
import torchvision

from distill_app.cache.store import differences, read_meta
from distill_app.config.cached import AUGMENTATION
from distill_app.config.plan import StagePlan, models_of
from distill_app.config.schema import AppConf, CacheConf
from distill_app.data.samples import Samples
from distill_app.data.stage_data import StageData
from distill_app.errors import CorruptImageError
from distill_app.networks.network import Network
from distill_app.runs.statefile import tensor_bytes, weights_hash

FORMAT = 1  # of the files; another one is another fingerprint
SIZES = 256  # files whose sizes are looked at


def fingerprint(network: Network, *, plan: StagePlan, app: AppConf, data: StageData) -> dict[str, Any]:
    """Everything by its name: the network, the images and labels, what is done to images, and with what.

    Neither the run's seed nor the order of the batches is part of it, nor the device: those change no row by more
    than rounding. Files of images are known by their names and some of their sizes, and three images, as the
    training gets them, by their content; which tap is read is part of the folder below.
    """
    dataset, conf, redesign = base_samples(data).dataset, plan.data, plan.redesign(network.name)
    labels = data.task.labels(dataset)
    return {
        "format": FORMAT,
        "network": {
            "weights": weights_hash(network.module),
            "net": models_of(app)[network.name].net,
            # One that runs nothing reads what the whole network said.
            **({"redesign": redesign} if redesign else {}),
            **({"input": network.input.conf} if network.input is not None else {}),
        },
        "data": {
            "name": conf.name,
            "train": _placeless(conf.train, (conf.root, conf.file, conf.path)),
            "samples": len(dataset),
            "labels": None if labels is None else _hash(labels.tobytes()),
            "files": getattr(dataset, "fingerprint", None) or _files_hash(dataset),
            "three_images": _content_hash(data, plan, app.cache),
        },
        "transform": {
            "train_transform": conf.train_transform,
            "wrappers": {name: wrapper for name, (wrapper, _) in plan.wrappers.items()},
            "task": conf.task,
            **({"collate": conf.collate} if conf.collate else {}),
            **({"channels": conf.channels} if conf.channels != 3 else {}),
            "mean": list(conf.normalize.mean),
            "std": list(conf.normalize.std),
        },
        "augmentation": {
            "views": data.order.views,
            "seed": app.cache.seed,
            # Wrappers may mix samples, and then it matters which ones there are.
            "mixed_from": _hash(data.indices.tobytes()) if plan.wrappers else None,
        },
        "precision": app.runtime.precision,
        "versions": {"torch": torch.__version__, "torchvision": torchvision.__version__, "pillow": PIL.__version__},
    }


def _placeless(value: Any, roots: tuple[str | None, ...]) -> Any:
    """The same values without the place where the data lie: a copy on another disk is the same data."""
    if isinstance(value, Mapping):
        return {key: _placeless(item, roots) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_placeless(item, roots) for item in value]
    for root in filter(None, roots):
        if isinstance(value, str) and (value == root or value.startswith(f"{root.rstrip('/')}/")):
            return value.removeprefix(root.rstrip("/")).lstrip("/")
    return value


def base_samples(data: StageData) -> Samples:
    """The training samples inside of their wrappers."""
    samples: Any = data.train.dataset
    while not isinstance(samples, Samples):
        samples = samples.samples
    return samples


def _hash(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def _files_hash(dataset: Any) -> str | None:
    """Of a folder's file list, in order, and the sizes of some of them, without the place where the folder lies."""
    samples, files = getattr(dataset, "samples", None), getattr(dataset, "files", None)
    if isinstance(samples, list):
        files = [str(sample[0]) for sample in samples]
    if not isinstance(files, list):
        return None
    root = str(getattr(dataset, "root", ""))
    names = [file.removeprefix(root) for file in files]
    sizes = [os.path.getsize(file) for file in files[:: max(1, len(files) // SIZES)]]
    return _hash("\n".join([*names, *map(str, sizes)]).encode())


def _content_hash(data: StageData, plan: StagePlan, conf: CacheConf) -> str:
    """Of the first, the middle and the last image in view 0: finds other files of the same names, and other code."""
    samples: Any = data.train.dataset
    if not plan.wrappers:  # those of the whole data set: stages with fewer labels share the cache
        base = base_samples(data)
        how: dict[str, Any] = {"transforms": base.transforms, "joint": base.joint, "finish": base.finish}
        samples = Samples(base.dataset, **how, seed=conf.seed, stage=AUGMENTATION)
    try:
        loaded = samples.__getitems__([(position, 0) for position in (0, len(samples) // 2, len(samples) - 1)])
    except CorruptImageError:
        return "an image among them cannot be read"
    hasher = hashlib.blake2b(digest_size=8)
    for sample in loaded:
        image = sample["input"]
        if not isinstance(image, torch.Tensor):  # a text, or what else a collate function makes a tensor of
            hasher.update(repr(image).encode())
            continue
        hasher.update(f"{image.dtype} {tuple(image.shape)};".encode())
        hasher.update(tensor_bytes(image))
    return hasher.hexdigest()


def nearest(folder: Path, network: str, parts: dict[str, Any]) -> list[str]:
    """Why no cache of this network that lies in a folder could be used: what the most similar one differs in."""
    found = []
    for place in sorted(folder.iterdir()) if folder.is_dir() else []:
        meta = read_meta(place)
        if meta is not None and meta.get("network") == network:
            found.append((differences(parts, meta.get("parts")), place))
    if not found:
        return []
    texts, place = min(found, key=lambda item: len(item[0]))
    return [f"cache {network}: a new one, since {place} is of something else: {'; '.join(texts[:4])}"]

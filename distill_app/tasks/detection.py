"""Object detection: boxes with classes, and with them masks or keypoints."""

import os
from collections.abc import Collection, Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import default_collate

from distill_app.data.samples import finished_image
from distill_app.data.targets import checked_target, dataset_problems, groups_by_aspect, without_empty_boxes
from distill_app.models.detectors import in_region_heads, resized_side, resizing
from distill_app.networks.taps import map_tensors
from distill_app.runs.metrics import Metric
from distill_app.tasks.base import Batch, Sums, Task
from distill_app.tasks.coco import KINDS, STATISTICS, Found, backend_problem, rle_of, statistics
from distill_app.tasks.drawing import drawn
from distill_app.words import unknown

_IN_TABLES = ("mAP", "AP50")
_APART = 1.5  # how much larger things may be in training than in an evaluation, or smaller
_PER_CLASS = ("mAP", "AP50", "AP75", "AR100", "AR")


class Detection(Task):
    """Images of any sizes in; in training a network's own losses out, in an evaluation its detections.

    A target is a dict of an image's N objects: `boxes` (N, 4) as x1, y1, x2, y2 in pixels, a
    `torchvision.tv_tensors.BoundingBoxes`; `labels` int64 (N,) from 1 on, 0 is the background; `area` (N,) in pixels
    and `iscrowd` int64 (N,) for the evaluation; `masks` uint8 (N, H, W), a `tv_tensors.Mask`; `keypoints` (N, K, 2), a
    `tv_tensors.KeyPoints`, and `visibility` int64 (N, K). Transforms of torchvision's v2 move image and target alike.
    Areas follow an image that they resize where `size` is in the target, the height and width that areas were counted
    in, and masks, or else `filled` (N,), the share of its box that each object fills.

    In a batch `input` is a list of images float (3, H, W) in [0, 1], `target` a list of dicts. Networks are those of
    torchvision and what behaves alike: they normalise images themselves. In training they take images in the size that
    the transforms give, so that all networks see the same pixels; in an evaluation they resize them as published.

    Metrics: COCO's statistics of every kind, `bbox_mAP` and so on; details: the same of each class.

    Args:
        num_classes: How many classes there are, without the background.
        kinds: What is detected and judged: of bbox, segm and keypoints; the first one leads.
        coco_backend: What matches detections with the truth: pycocotools, faster_coco_eval or hotcoco. The numbers are
            the same.
        aspect_groups: Training batches are made of images of like aspect ratio, in as many groups on either side of a
            square; 0: of all alike.
        pad_to: In training all images are padded to a square of this side in pixels, a multiple of 32; None: to the
            largest of a batch. A cache of maps needs one size.
        drawn_from: The score from which on detections are drawn into pictures.
        keypoint_sigmas: How exactly each keypoint can be placed; None: those of COCO's 17.

    Raises:
        ValueError: A kind or backend that is not there, less than no groups, or a side that is no multiple of 32.
    """

    answer = None
    joint_transforms = True
    own_sizes = True

    def __init__(
        self,
        *,
        num_classes: int,
        kinds: Sequence[str] = ("bbox",),
        coco_backend: str = "pycocotools",
        aspect_groups: int = 0,
        pad_to: int | None = None,
        keypoint_sigmas: Sequence[float] | None = None,
        drawn_from: float = 0.5,
    ):
        wrong = [kind for kind in kinds if kind not in KINDS]
        if wrong or not kinds:
            raise ValueError(f"kinds: {unknown('kind', wrong[0] if wrong else '', KINDS)}")
        if (problem := backend_problem(coco_backend)) is not None:
            raise ValueError(f"coco_backend: {problem}")
        if pad_to is not None and (pad_to < 32 or pad_to % 32):
            raise ValueError(f"pad_to: a multiple of 32 is needed, not {pad_to}")
        if aspect_groups < 0:
            raise ValueError(f"aspect_groups: 0 or more on either side of a square, not {aspect_groups}")
        self.num_classes, self.kinds, self.coco_backend = num_classes, tuple(kinds), coco_backend
        self.drawn_from = drawn_from
        self.aspect_groups, self.pad_to, self.keypoint_sigmas = aspect_groups, pad_to, keypoint_sigmas
        self.metrics = [
            Metric(f"{kind}_{each.name}", percent=True, table=each.name in _IN_TABLES, line=each.name in _IN_TABLES)
            for kind in self.kinds
            for each in STATISTICS[kind]
        ]
        # Boxes that transforms left empty, by process: several of them load images. Shared with all of them.
        self._left_out = torch.zeros(256, dtype=torch.int64).share_memory_()

    def label_problems(self, dataset: Any) -> list[str]:
        """Records that are wrong, where a data set knows of them, and else targets of some items."""
        return dataset_problems(dataset, num_classes=self.num_classes, kinds=self.kinds)

    def groups(self, dataset: Any) -> np.ndarray | None:
        return groups_by_aspect(dataset, count=self.aspect_groups)

    def varies(self, dataset: Any) -> str | None:
        return self._padding_problem(getattr(dataset, "sizes", ()), where="before")

    def sizes_vary(self, sizes: Collection[tuple[int, int]]) -> str | None:
        return self._padding_problem(sizes, where="behind")

    def _padding_problem(self, sizes: Collection[tuple[int, int]], *, where: str) -> str | None:
        if self.pad_to is not None or len(set(sizes)) < 2:
            return None
        longest = max(max(size) for size in sizes)
        return (
            f"images of several sizes are padded to the largest of their batch; set dataset.task.pad_to to a multiple "
            f"of 32 that no side exceeds behind the transforms ({where} them sides go up to {longest} px)"
        )

    def scales_apart(
        self,
        network: nn.Module,
        *,
        name: str,
        trained: Sequence[tuple[int, int]],
        judged: Sequence[tuple[int, int]],
    ) -> str | None:
        resized = [side for size in judged if (side := resized_side(network, size)) is not None]
        if not resized or not trained:
            return None
        here, there = median(min(size) for size in trained), median(resized)
        if max(here, there) < _APART * min(here, there):
            return None
        return (
            f"{name} is trained on images whose shorter side is {here:.0f} px, as dataset.train_transform leaves them, "
            f"and judged on images that it resizes to {there:.0f} px itself; bring dataset.train_transform to the size "
            f"of the evaluation, or change that: dataset.image_size for small detectors, {name}.net.min_size and "
            f"max_size for others"
        )

    def rows_vary(self, network: nn.Module, path: str) -> str | None:
        if not in_region_heads(network, path):
            return None
        return "its rows are regions, of which a network proposes as many as it finds; cache maps, such as teacher.fpn"

    def finish(self, sample: dict[str, Any]) -> dict[str, Any]:
        """The image as uint8, and only boxes with an area.

        Raises:
            DataError: A target that is none, a transform that has left masks behind, labels that there are not, or an
                image that is larger than `pad_to`.
        """
        sample = finished_image(sample)
        name, classes = f"item {sample['index']}", self.num_classes
        target = checked_target(sample["target"], sample["input"], num_classes=classes, name=name, pad_to=self.pad_to)
        target, count = without_empty_boxes(target)
        if count:
            self._count(count)
        return sample | {"target": target}

    def _count(self, boxes: int) -> None:
        self._left_out[os.getpid() % len(self._left_out)] += boxes

    @property
    def left_out(self) -> int:
        """How many boxes transforms have left without an area, in all images made so far."""
        return int(self._left_out.sum())

    def notes(self) -> list[str]:
        boxes = self.left_out
        return [f"{boxes} boxes had no area behind the transforms, and were left out"] if boxes else []

    def collate(self, samples: list[dict[str, Any]]) -> Batch:
        """Images and targets as lists, whatever else there is collated."""
        keys = [key for key in samples[0] if key not in ("input", "target")]
        lists = {key: [sample[key] for sample in samples] for key in ("input", "target")}
        return {**lists, **{key: default_collate([sample[key] for sample in samples]) for key in keys}}

    def prepare(self, batch: Mapping[str, Any], *, device: torch.device) -> Batch:
        """Moves a batch to the device, as plain tensors; images become floats in [0, 1]."""
        wide = device.type != "mps"  # which has no float64
        plain = map_tensors(dict(batch), lambda tensor: _plain(tensor, wide=wide))
        prepared = super().prepare(plain, device=device)
        prepared["input"] = [_scaled(image) for image in prepared["input"]]
        return prepared

    def call(self, network: nn.Module, batch: Mapping[str, Any], *, name: str) -> Any:
        """Runs a network on the images as they are, with the targets: in train mode it gives losses."""
        targets = [_for_networks(target) for target in batch["target"]]
        with resizing(network, enabled=False, pad_to=self.pad_to):
            return network(list(batch["input"]), targets)

    def ask(self, network: nn.Module, batch: Mapping[str, Any], *, name: str) -> Any:
        """Detections in the images' own coordinates, by the network's own resizing."""
        return network(list(batch["input"]))

    def misfit(self, answer: Any, batch: Mapping[str, Any]) -> str | None:
        needed = {"bbox": "boxes", "segm": "masks", "keypoints": "keypoints"}
        if not isinstance(answer, list | tuple) or not all(isinstance(each, Mapping) for each in answer):
            return f"gives a {type(answer).__name__} and no list of detections, a dict for each image"
        missing = [needed[kind] for kind in self.kinds if any(needed[kind] not in each for each in answer)]
        if missing:
            return f"gives no {missing[0]}; leave this kind out of dataset.task.kinds"
        highest = max((int(each["labels"].max()) for each in answer if len(each["labels"])), default=0)
        return f"detects a class {highest}, and there are {self.num_classes}" if highest > self.num_classes else None

    @property
    def scores(self) -> str:
        return "objects"

    def start(self) -> Sums:
        return {"images": []}

    def add(self, sums: Sums, answer: Any, batch: Mapping[str, Any]) -> None:
        if (problem := self.misfit(answer, batch)) is not None:
            raise ValueError(f"the network {problem}")
        images = zip(batch["index"].tolist(), batch["input"], batch["target"], answer, strict=True)
        sums["images"] += [self._record(index, image, target, found) for index, image, target, found in images]

    def _record(self, index: int, image: Tensor, target: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
        """What the statistics need to know of an image, on the host, and small."""
        truth: dict[str, Any] = {key: _array(target[key]) for key in ("boxes", "labels", "area", "iscrowd")}
        detections: dict[str, Any] = {key: _array(found[key]) for key in ("boxes", "labels", "scores")}
        if "segm" in self.kinds:
            truth["masks"] = rle_of(_array(target["masks"]))
            detections["masks"] = rle_of(_array(found["masks"][:, 0] > 0.5))
        if "keypoints" in self.kinds:
            visible = target["visibility"].unsqueeze(2).to(target["keypoints"].dtype)
            truth["keypoints"] = _array(torch.cat([target["keypoints"], visible], dim=2))
            detections["keypoints"] = _array(found["keypoints"])
        return {"id": index, "size": list(image.shape[-2:]), "truth": truth, "found": detections}

    def figures(self, sums: Sums) -> dict[str, Any]:
        each = self._statistics(sums).items()
        return {f"{kind}_{name}": value for kind, found in each for name, value in found.figures.items()}

    def details(self, sums: Sums) -> dict[str, Any]:
        """`per_class`: mAP, AP50, AP75 and the recall of each class."""
        lines: list[dict[str, Any]] = [{} for _ in range(self.num_classes)]
        for kind, found in self._statistics(sums).items():
            for line, values in zip(lines, found.per_class, strict=True):
                line |= {f"{kind}_{name}": value for name, value in values.items() if name in _PER_CLASS}
        return {"images": len(sums["images"]), "per_class": lines}

    def draw(self, batch: Mapping[str, Any], answer: Any) -> list[Tensor]:
        """Boxes with class and score, masks and keypoints, of detections with a score of `drawn_from` at least."""
        found = [self._true(target) for target in batch["target"]] if answer is None else answer
        return [self._drawn(image, each) for image, each in zip(batch["input"], found, strict=True)]

    def _true(self, target: Mapping[str, Any]) -> dict[str, Any]:
        """A target in the form of an answer, without scores."""
        truth = {key: target[key] for key in ("boxes", "labels", "masks") if key in target}
        if "keypoints" in target:
            seen = target["visibility"].unsqueeze(2).to(target["keypoints"].dtype)
            truth["keypoints"] = torch.cat([target["keypoints"], seen], dim=2)
        return truth

    def _drawn(self, image: Tensor, found: Mapping[str, Any]) -> Tensor:
        scores = found.get("scores")
        kept = slice(None) if scores is None else scores >= self.drawn_from
        labels = found["labels"][kept].tolist()
        shown = [""] * len(labels) if scores is None else [f" {score:.2f}" for score in scores[kept].tolist()]
        masks, keypoints = found.get("masks"), found.get("keypoints")
        if masks is not None:
            masks = masks[kept]
            masks = masks[:, 0] if masks.dim() == 4 else masks  # answers have a channel, targets none
        return drawn(
            image,
            boxes=found["boxes"][kept],
            labels=labels,
            texts=[f"{self.name_of(label)}{text}" for label, text in zip(labels, shown, strict=True)],
            masks=masks,
            keypoints=None if keypoints is None else keypoints[kept],
        )

    def name_of(self, label: int) -> str:
        """What a class is called, or its label; labels count from 1."""
        known = self.classes is not None and 0 < label <= len(self.classes)
        return str(self.classes[label - 1]) if known and self.classes else str(label)

    def _statistics(self, sums: Sums) -> dict[str, Found]:
        """Computed once; they take as long as some evaluations."""
        if "statistics" not in sums:
            sums["statistics"] = {
                kind: statistics(
                    sums["images"],
                    kind=kind,
                    num_classes=self.num_classes,
                    backend=self.coco_backend,
                    sigmas=self.keypoint_sigmas,
                )
                for kind in self.kinds
            }
        found: dict[str, Found] = sums["statistics"]
        return found


def _plain(tensor: Tensor, *, wide: bool) -> Tensor:
    plain = tensor.as_subclass(Tensor)
    return plain if wide or plain.dtype != torch.float64 else plain.float()


def _scaled(image: Tensor) -> Tensor:
    return image.float().div_(255.0) if image.dtype == torch.uint8 else image


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()


def _for_networks(target: Mapping[str, Any]) -> dict[str, Any]:
    """The target as torchvision's detectors take it: boxes within the image, keypoints with their visibility, and no
    crowds to learn.
    """
    kept = {key: value for key, value in target.items() if isinstance(value, Tensor)}
    height, width = target["size"]
    kept["boxes"] = kept["boxes"].clamp(min=0).minimum(kept["boxes"].new_tensor([width, height, width, height]))
    if "iscrowd" in kept and bool(kept["iscrowd"].any()):
        single = kept["iscrowd"] == 0
        kept = {key: value[single] for key, value in kept.items() if len(value) == len(single)}
    if "keypoints" in kept:
        visible = kept.pop("visibility").unsqueeze(2).to(kept["keypoints"].dtype)
        kept["keypoints"] = torch.cat([kept["keypoints"], visible], dim=2)
    return kept

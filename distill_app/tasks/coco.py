"""The statistics of COCO for boxes, masks and keypoints, from records of single images.

https://cocodataset.org/#detection-eval. Whichever library matches detections with the truth, the numbers are made here
of its precisions and recalls, so that they are the same to the last digit.
"""

import contextlib
import importlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from distill_app.errors import SettingError
from distill_app.extras import EXTRAS, install
from distill_app.words import unknown

KINDS = ("bbox", "segm", "keypoints")
# Name of a backend -> its module, and the classes in the place of pycocotools' COCO and COCOeval.
_BACKENDS = {
    "pycocotools": ("pycocotools", "coco.COCO", "cocoeval.COCOeval"),
    "faster_coco_eval": ("faster_coco_eval", "COCO", "COCOeval_faster"),
    "hotcoco": ("hotcoco", "COCO", "COCOeval"),
}
BACKENDS = tuple(_BACKENDS)
Record = dict[str, Any]


@dataclass(frozen=True)
class Statistic:
    """One of the statistics: of precision or of recall, at some overlaps, sizes and numbers of detections.

    Attributes:
        name: What it is called.
        recall: Of recall rather than of precision.
        overlap: IoU, or the similarity of keypoints; None: the mean over .50, .55, ..., .95.
        area: Of objects: `all`, `small` below 32 x 32 px, `medium`, `large` from 96 x 96 px.
        detections: The most that count of an image and class.
    """

    name: str
    recall: bool = False
    overlap: float | None = None
    area: str = "all"
    detections: int = 100


_BOXES = (
    Statistic("mAP"),
    Statistic("AP50", overlap=0.5),
    Statistic("AP75", overlap=0.75),
    *(Statistic(f"AP{area[0]}", area=area) for area in ("small", "medium", "large")),
    *(Statistic(f"AR{count}", recall=True, detections=count) for count in (1, 10, 100)),
    *(Statistic(f"AR{area[0]}", recall=True, area=area) for area in ("small", "medium", "large")),
)
_KEYPOINTS = tuple(
    Statistic(f"{name}{suffix}", recall, overlap, area, detections=20)
    for name, recall in (("AP", False), ("AR", True))
    for suffix, overlap, area in (
        ("", None, "all"),
        ("50", 0.5, "all"),
        ("75", 0.75, "all"),
        ("m", None, "medium"),
        ("l", None, "large"),
    )
)
_KEYPOINTS = (Statistic("mAP", detections=20), *_KEYPOINTS[1:])
STATISTICS: dict[str, tuple[Statistic, ...]] = {"bbox": _BOXES, "segm": _BOXES, "keypoints": _KEYPOINTS}


@dataclass(frozen=True)
class Found:
    """What came out for one kind.

    Attributes:
        figures: Name of the statistic -> value; None where there is no object that it is about.
        per_class: The same of each class, in order.
    """

    figures: dict[str, float | None]
    per_class: list[dict[str, float | None]]


def backend_problem(backend: str) -> str | None:
    """Why there is no such backend here, and what to install; None where there is."""
    if backend not in _BACKENDS:
        return unknown("backend", backend, BACKENDS)
    try:
        _classes(backend)
    except ImportError as error:
        return f"{error}; install it: {install(backend)}" if backend in EXTRAS else str(error)
    return None


def _classes(backend: str) -> tuple[Any, Any]:
    package, *paths = _BACKENDS[backend]
    found = []
    for path in paths:
        module, _, name = path.rpartition(".")
        found.append(getattr(importlib.import_module(f"{package}.{module}" if module else package), name))
    return found[0], found[1]


def statistics(
    records: Sequence[Record], *, kind: str, num_classes: int, backend: str = "pycocotools", sigmas: Any = None
) -> Found:
    """The statistics of one kind over all images.

    Args:
        records: As `image_record` makes them; images without objects or without detections are among them.
        kind: bbox, segm or keypoints.
        num_classes: Labels go from 1 to this.
        backend: Which library matches detections.
        sigmas: Of keypoints, how exactly each of them can be placed; None: those of COCO's 17.

    Raises:
        SettingError: No such backend here.
    """
    if (problem := backend_problem(backend)) is not None:
        raise SettingError(f"dataset.task.coco_backend: {problem}")
    data = _dataset(records, kind=kind, num_classes=num_classes)
    # All of these print; what they say of themselves is nothing to a user.
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = _evaluated(data, _results(records, kind=kind), kind=kind, backend=backend, sigmas=sigmas)
    return _summary(evaluation, kind=kind, num_classes=num_classes)


def _evaluated(
    data: dict[str, Any], results: list[dict[str, Any]], *, kind: str, backend: str, sigmas: Any
) -> dict[str, Any]:
    """Precision (T, R, K, A, M) and recall (T, K, A, M), with what their axes mean."""
    coco, evaluate = _classes(backend)
    truth = _indexed(coco, data)
    # Not one detection is more than they can load as results.
    found = truth.loadRes(results) if results else _indexed(coco, {**data, "annotations": []})
    quiet = {"print_function": lambda *text: None} if backend == "faster_coco_eval" else {}
    run = evaluate(truth, found, kind, **quiet)
    if sigmas is not None:
        run.params.kpt_oks_sigmas = np.asarray(sigmas, np.float64)
    run.evaluate()
    run.accumulate()
    params = run.params
    return {
        "precision": np.asarray(run.eval["precision"]),
        "recall": np.asarray(run.eval["recall"]),
        "overlaps": np.asarray(params.iouThrs),
        "areas": list(params.areaRngLbl),
        "detections": list(params.maxDets),
    }


def _indexed(coco: Callable[[], Any], data: dict[str, Any]) -> Any:
    made = coco()
    made.dataset = data
    made.createIndex()
    return made


def _summary(evaluation: Mapping[str, Any], *, kind: str, num_classes: int) -> Found:
    statistics = STATISTICS[kind]
    per_class = [
        {each.name: _mean(_of(evaluation, each)[..., number]) for each in statistics} for number in range(num_classes)
    ]
    return Found({each.name: _mean(_of(evaluation, each)) for each in statistics}, per_class)


def _of(evaluation: Mapping[str, Any], statistic: Statistic) -> np.ndarray:
    """The values that a statistic is the mean of, classes last."""
    values = evaluation["recall" if statistic.recall else "precision"]
    values = values[
        ..., evaluation["areas"].index(statistic.area), evaluation["detections"].index(statistic.detections)
    ]
    if statistic.overlap is None:
        return values
    return values[np.isclose(evaluation["overlaps"], statistic.overlap)]


def _mean(values: np.ndarray) -> float | None:
    """-1 stands where there is no object."""
    there = values[values > -1]
    return float(np.mean(there)) if len(there) else None


def _dataset(records: Sequence[Record], *, kind: str, num_classes: int) -> dict[str, Any]:
    annotations: list[dict[str, Any]] = []
    for record in records:
        truth = record["truth"]
        for row, box in enumerate(_xywh(truth["boxes"])):
            annotation = {
                "id": len(annotations) + 1,
                "image_id": record["id"],
                "category_id": int(truth["labels"][row]),
                "iscrowd": int(truth["iscrowd"][row]),
                "area": float(truth["area"][row]),
                "bbox": box,
            }
            if kind == "segm":
                annotation["segmentation"] = truth["masks"][row]
            if kind == "keypoints":
                points = truth["keypoints"][row]
                annotation |= {"keypoints": points.flatten().tolist(), "num_keypoints": int((points[:, 2] > 0).sum())}
            annotations.append(annotation)
    images = [{"id": each["id"], "height": each["size"][0], "width": each["size"][1]} for each in records]
    categories = [{"id": number, "name": str(number)} for number in range(1, num_classes + 1)]
    return {"info": {}, "images": images, "annotations": annotations, "categories": categories}


def _results(records: Sequence[Record], *, kind: str) -> list[dict[str, Any]]:
    """Detections as COCO's result files have them: of masks without boxes, whose area would count else."""
    results: list[dict[str, Any]] = []
    for record in records:
        found = record["found"]
        scores, labels = found["scores"].tolist(), found["labels"].tolist()
        if kind == "bbox":
            values: Any = _xywh(found["boxes"])
        elif kind == "segm":
            values = found["masks"]
        else:
            values = [points.flatten().tolist() for points in found["keypoints"]]
        name = {"bbox": "bbox", "segm": "segmentation", "keypoints": "keypoints"}[kind]
        results += [
            {"image_id": record["id"], "category_id": label, "score": score, name: value}
            for label, score, value in zip(labels, scores, values, strict=True)
        ]
    return results


def _xywh(boxes: np.ndarray) -> list[list[float]]:
    corners = boxes.reshape(-1, 4)
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1).tolist()


def rle_of(masks: np.ndarray) -> list[dict[str, Any]]:
    """Masks (N, H, W), not 0 inside, as run lengths; a hundred times smaller."""
    from pycocotools import mask

    encoded = mask.encode(np.asfortranarray(masks.astype(bool).astype(np.uint8).transpose(1, 2, 0)))
    return [{"size": list(each["size"]), "counts": each["counts"].decode("ascii")} for each in encoded]

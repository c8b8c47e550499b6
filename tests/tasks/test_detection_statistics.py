"""COCO's statistics: the reference numbers to the last digit, whoever matches, however many processes."""

import builtins

import numpy as np
import pytest
import torch
from detection_fixtures import GOLDENS, golden_answers, golden_set, sums_of

from distill_app.tasks import Detection
from distill_app.tasks.base import merged
from distill_app.tasks.coco import BACKENDS, STATISTICS, rle_of, statistics

GOLDEN = np.load(GOLDENS / "coco_map.npz")


# faster_coco_eval divides by the number of detections, pycocotools by that and 2.2e-16: a precision of 1 is the next
# smaller number there, where the first detection was the last one of its recall.
ROUNDING = {"faster_coco_eval": 2.3e-16}


def expected(kind: str) -> list[float | None]:
    return [None if value < 0 else float(value) for value in GOLDEN[f"{kind}/stats"]]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_the_statistics_are_the_reference_numbers_to_the_last_digit(tmp_path, kind, backend):
    if backend != "pycocotools":
        pytest.importorskip(backend)
    task = Detection(num_classes=4, kinds=[kind], coco_backend=backend)
    found = sums_of(task, golden_set(tmp_path, kinds=[kind]), golden_answers([kind]))
    figures = task.figures(found)
    assert list(figures) == [metric.name for metric in task.metrics] == [f"{kind}_{s.name}" for s in STATISTICS[kind]]
    assert list(figures.values()) == pytest.approx(expected(kind), rel=0, abs=ROUNDING.get(backend, 0))
    per_class = task.details(found)["per_class"]
    for name, golden in (("mAP", "per_class_AP"), ("AR100", "per_class_AR100")):
        values = [-1.0 if line[f"{kind}_{name}"] is None else line[f"{kind}_{name}"] for line in per_class]
        assert values == pytest.approx(GOLDEN[f"{kind}/{golden}"].tolist(), abs=1e-15)


def test_parts_of_several_processes_give_the_statistics_of_all(tmp_path):
    task, data, answers = Detection(num_classes=4), golden_set(tmp_path, kinds=["bbox"]), golden_answers(["bbox"])
    parts = [sums_of(task, data, answers, rows=rows) for rows in ([0, 1, 2], [3, 4, 5, 6], [7])]
    assert list(task.figures(merged(parts)).values()) == expected("bbox")


@pytest.mark.parametrize("backend", BACKENDS)
def test_without_detections_everything_is_missed_and_without_objects_nothing_is_defined(tmp_path, backend):
    if backend != "pycocotools":
        pytest.importorskip(backend)
    task, data = Detection(num_classes=4, coco_backend=backend), golden_set(tmp_path, kinds=["bbox"])
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64), "scores": torch.zeros(0)}
    figures = task.figures(sums_of(task, data, [nothing] * len(data)))
    assert {value for value, reference in zip(figures.values(), expected("bbox"), strict=True)} == {0.0}
    empty = [row for row in range(len(data)) if not len(data[row][1]["boxes"])]
    assert empty, "the set has an image without objects"
    assert set(task.figures(sums_of(task, data, golden_answers(["bbox"]), rows=empty)).values()) == {None}
    assert set(task.figures(sums_of(task, data, [nothing] * len(data), rows=empty)).values()) == {None}


def keypoint_record(backend: str, *, shift: float) -> dict[str, float | None]:
    points = np.stack([np.linspace(10, 60, 17), np.linspace(20, 80, 17), np.full(17, 2.0)], axis=1)[None]
    truth = {
        "boxes": np.array([[5.0, 10.0, 70.0, 90.0]]),
        "labels": np.array([1]),
        "area": np.array([65.0 * 80.0]),
        "iscrowd": np.array([0]),
        "keypoints": points,
    }
    found = {"boxes": truth["boxes"], "labels": truth["labels"], "scores": np.array([0.9]), "keypoints": points + shift}
    records = [{"id": 3, "size": [100, 100], "truth": truth, "found": found}]
    return statistics(records, kind="keypoints", num_classes=1, backend=backend).figures


@pytest.mark.parametrize("backend", BACKENDS)
def test_keypoints_are_judged_by_their_distance(backend):
    if backend != "pycocotools":
        pytest.importorskip(backend)
    exact = keypoint_record(backend, shift=0.0)
    assert len(exact) == 10 and exact["mAP"] == pytest.approx(1.0) and exact["APl"] is None
    assert 0 < keypoint_record(backend, shift=3.0)["mAP"] < 1
    reference = [-1.0 if value is None else value for value in keypoint_record("pycocotools", shift=3.0).values()]
    found = [-1.0 if value is None else value for value in keypoint_record(backend, shift=3.0).values()]
    assert found == pytest.approx(reference, rel=0, abs=ROUNDING.get(backend, 0))


def test_a_crowd_is_neither_missed_nor_a_mistake():
    box = np.array([[0.0, 0.0, 40.0, 40.0], [50.0, 50.0, 90.0, 90.0]])
    truth = {"boxes": box, "labels": np.array([1, 1]), "area": np.array([1600.0, 1600.0]), "iscrowd": np.array([0, 1])}
    several = np.array([[0.0, 0.0, 40.0, 40.0], [50.0, 50.0, 70.0, 70.0], [60.0, 60.0, 80.0, 80.0]])
    found = {"boxes": several, "labels": np.array([1, 1, 1]), "scores": np.array([0.5, 0.9, 0.8])}
    record = {"id": 0, "size": [100, 100], "truth": truth, "found": found}
    assert statistics([record], kind="bbox", num_classes=1).figures["mAP"] == pytest.approx(1.0)
    truth["iscrowd"] = np.array([0, 0])
    assert statistics([record], kind="bbox", num_classes=1).figures["mAP"] < 0.6


def test_masks_are_kept_as_run_lengths():
    masks = np.zeros((2, 40, 30), np.float32)
    masks[0, 5:9, 3:20] = 0.7
    kept = rle_of(masks)
    assert [each["size"] for each in kept] == [[40, 30]] * 2 and all(isinstance(each["counts"], str) for each in kept)
    assert rle_of(np.zeros((0, 40, 30))) == []


def test_a_backend_that_is_not_there_is_told_with_what_to_install(monkeypatch):
    with pytest.raises(ValueError, match="unknown backend 'pycoco'; did you mean 'pycocotools'"):
        Detection(num_classes=1, coco_backend="pycoco")
    real = builtins.__import__
    monkeypatch.setattr("importlib.import_module", lambda name: real("no_such_module_at_all"))
    with pytest.raises(ValueError, match=r"pip install 'distill-app\[hotcoco\]'"):
        Detection(num_classes=1, coco_backend="hotcoco")

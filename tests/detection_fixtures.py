"""Images with objects in COCO's format, as files, and what a network might say of them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from distill_app.data import CocoDetection
from distill_app.models.detectors import ARCHITECTURES
from distill_app.tasks import Detection

SMALL = ("tiny_fasterrcnn", "tiny_fasterrcnn_8", "tiny_maskrcnn", "tiny_retinanet", "tiny_retinanet_8")
DETECTORS = {*ARCHITECTURES, "fasterrcnn_resnet18_fpn", *SMALL}
GOLDENS = Path(__file__).parent / "goldens"


def coco_files(folder: Path, content: Mapping[str, Any]) -> tuple[str, str]:
    """Grey images and the JSON file of a set; root and file."""
    for image in content["images"]:
        grey = np.full((image["height"], image["width"], 3), 90, np.uint8)
        Image.fromarray(grey).save(folder / image["file_name"], quality=50)
    file = folder / "objects.json"
    file.write_text(json.dumps(content))
    return str(folder), str(file)


def golden_set(folder: Path, *, kinds: Sequence[str]) -> CocoDetection:
    """The set whose statistics pycocotools gave."""
    content = json.loads((GOLDENS / "coco_gt.json").read_text())
    root, file = coco_files(folder, content)
    return CocoDetection(root, file, kinds=kinds, keep_empty=True)


def golden_answers(kinds: Sequence[str]) -> list[dict[str, torch.Tensor]]:
    """The detections of every image of it, as a network gives them, with the labels 1 to 4 for the ids."""
    from pycocotools import mask

    content = json.loads((GOLDENS / "coco_gt.json").read_text())
    label = {each["id"]: number for number, each in enumerate(content["categories"], start=1)}
    name = {"bbox": "coco_dt.json", "segm": "coco_dt_segm.json"}[kinds[0]]
    results = json.loads((GOLDENS / name).read_text())
    answers = []
    for image in content["images"]:
        own = [each for each in results if each["image_id"] == image["id"]]
        answer = {
            "labels": torch.tensor([label[each["category_id"]] for each in own], dtype=torch.int64),
            "scores": torch.tensor([each["score"] for each in own], dtype=torch.float64),
            "boxes": torch.zeros(len(own), 4),
        }
        if kinds[0] == "bbox":
            boxes = torch.tensor([each["bbox"] for each in own], dtype=torch.float64).view(-1, 4)
            answer["boxes"] = torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], dim=1)
        else:
            masks = [torch.from_numpy(mask.decode(each["segmentation"])) for each in own]
            empty = torch.zeros(0, 1, image["height"], image["width"])
            answer["masks"] = torch.stack(masks).unsqueeze(1).float() if masks else empty
        answers.append(answer)
    return answers


def sums_of(task: Detection, dataset: Any, answers: Sequence[Any], *, rows: Sequence[int] | None = None) -> dict:
    """What an evaluation of some rows sums up, two samples a batch."""
    sums, rows = task.start(), list(range(len(dataset)) if rows is None else rows)
    for first in range(0, len(rows), 2):
        part = rows[first : first + 2]
        samples = [task.finish({"input": dataset[row][0], "target": dataset[row][1], "index": row}) for row in part]
        batch = task.prepare(task.collate(samples), device=torch.device("cpu"))
        task.add(sums, [answers[row] for row in part], batch)
    return sums

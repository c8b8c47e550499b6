"""Presets of pairs of detectors on COCO: they compose, pass the check, and have the settings that their headers say."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image
from torchvision.models import get_model_weights

from distill_app.check.quick import read
from distill_app.config.groups import conf_dir
from distill_app.config.planning import plan_stages
from distill_app.config.schema import to_app
from distill_app.config.tree import compose
from distill_app.training.optimize import scaled_lr

FOLDER = Path(conf_dir(), "experiment", "coco")
# Preset -> teacher, student, what the method's terms weigh, its levels, the lr, and what freezes at the start.
FIRST = ["student.backbone.body.conv1", "student.backbone.body.layer1"]
PAIRS = {
    "recipe_1x": ("fasterrcnn_resnet50_fpn_v2", "fasterrcnn_resnet50_fpn", None, None, 0.02, None),
    "pkd_r50v2_r50": (
        "fasterrcnn_resnet50_fpn_v2",
        "fasterrcnn_resnet50_fpn",
        {"pkd": 6.0},
        ["p2", "p3", "p4", "p5"],
        0.02,
        FIRST,
    ),
    "cwd_r50v2_mobilenetv3": (
        "fasterrcnn_resnet50_fpn_v2",
        "fasterrcnn_mobilenet_v3_large_fpn",
        {"cwd": 10.0},
        ["p5"],
        0.02,
        [],
    ),
    "fgd_retinanet_r50v2_r50": (
        "retinanet_resnet50_fpn_v2",
        "retinanet_resnet50_fpn",
        {"focal": 1e-3, "attention": 5e-4, "context": 5e-6},
        ["p3", "p4", "p5", "p6", "p7"],
        0.01,
        FIRST,
    ),
    "mgd_r50_r18": (
        "fasterrcnn_resnet50_fpn",
        "fasterrcnn_resnet18_fpn",
        {"mgd": 5e-7},
        ["p2", "p3", "p4", "p5"],
        0.02,
        FIRST,
    ),
}


@pytest.fixture(scope="module")
def coco(tmp_path_factory) -> Path:
    """A folder as coco2017's, of four grey images with an object each."""
    root = tmp_path_factory.mktemp("coco2017")
    (root / "annotations").mkdir()
    for split in ("train2017", "val2017"):
        (root / split).mkdir()
        images = [{"id": n, "file_name": f"{n}.jpg", "height": 48, "width": 64} for n in range(1, 5)]
        for image in images:
            Image.fromarray(np.full((48, 64, 3), 90, np.uint8)).save(root / split / image["file_name"])
        objects = [
            {"id": n, "image_id": n, "category_id": n, "bbox": [4, 4, 30, 20], "area": 600.0, "iscrowd": 0}
            for n in range(1, 5)
        ]
        categories = [{"id": n, "name": str(n)} for n in range(1, 91)]
        content = {"images": images, "annotations": objects, "categories": categories}
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return root


def header_of(name: str) -> str:
    lines = (FOLDER / f"{name}.yaml").read_text().split("\ndefaults:")[0].splitlines()
    return " ".join(line.removeprefix("# ") for line in lines)


@pytest.mark.parametrize("name", PAIRS)
def test_the_header_says_command_paper_expected_value_and_cost(name):
    lines = (FOLDER / f"{name}.yaml").read_text().splitlines()
    assert lines[0] == "# @package _global_" and lines[1].startswith(f"# distill experiment=coco/{name}")
    for part in ("Paper: https://", "Expected mAP: ", "Cost: ", "of the last epoch, which is what a stage hands on"):
        assert part in header_of(name)
    assert name == "recipe_1x" or "no published figure for this pair" in header_of(name)


@pytest.mark.parametrize("name", PAIRS)
def test_figures_of_torchvision_are_those_of_its_weights(name):
    teacher, student, *_ = PAIRS[name]
    told = re.findall(r"\d\d\.\d", header_of(name))
    for network in (teacher, *(() if student == "fasterrcnn_resnet18_fpn" else (student,))):
        figure = get_model_weights(network)["COCO_V1"].meta["_metrics"]["COCO-val2017"]["box_map"]
        assert name.startswith("pkd") or (network, name) == (teacher, "cwd_r50v2_mobilenetv3") or f"{figure}" in told


@pytest.mark.slow
@pytest.mark.parametrize("name", PAIRS)
def test_a_pair_has_the_settings_of_its_header_and_composes_with_data_that_are_there(name, coco):
    teacher, student, weights, levels, lr, frozen = PAIRS[name]
    more = ["method=own"] if weights is None else []
    cfg = compose([f"experiment=coco/{name}", f"dataset.root={coco}", *more])
    errors, app, _ = read(cfg)
    assert list(errors) == [] and app is not None
    assert (app.teacher.name, app.student.name, app.teacher.weights) == (teacher, student, "COCO_V1")
    assert app.student.net["weights_backbone"] == "IMAGENET1K_V1" and app.dataset.num_classes == 90
    OmegaConf.resolve(cfg)
    plans, _ = plan_stages(to_app(OmegaConf.to_container(cfg)))
    (plan,) = plans
    assert (plan.conf.epochs, plan.conf.batch_size, scaled_lr(plan.conf)) == pytest.approx((12, 16, lr))
    assert list(plan.scheduler.schedule["milestones"]) == [7, 10] and plan.conf.warmup_epochs == 1
    assert (plan.optimizer["momentum"], plan.optimizer["weight_decay"]) == (0.9, 1e-4)
    if weights is not None:
        terms = {f"{term}_{level}": weight for term, weight in weights.items() for level in levels}
        assert {term: conf.weight for term, conf in plan.terms.items()} == {"own": 1.0, **terms}
        assert set(plan.taps["teacher"]) == set(levels) and plan.conf.freeze == frozen

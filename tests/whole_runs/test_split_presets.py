"""Presets of split computing on COCO: they compose, pass the check, have the published settings, and one runs."""

import json
from pathlib import Path

import numpy as np
import pytest
from engine_fixtures import mostly_slow, network, snapshot, stage
from omegaconf import OmegaConf
from PIL import Image
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from distill_app.check.quick import read
from distill_app.config.groups import conf_dir
from distill_app.config.planning import plan_stages
from distill_app.config.schema import to_app
from distill_app.config.tree import compose
from distill_app.training.describe import stage_text

FOLDER = Path(conf_dir(), "experiment", "coco")
# Preset -> teacher, kinds, and what its header has to say: the figures of Table 6, and of torchvision's weights.
PRESETS = {
    "ghnd_fasterrcnn_r50": ("fasterrcnn_resnet50_fpn", ["bbox"], ("box 35.9", "37.0", "24 h 13 min on three GPUs")),
    "ghnd_maskrcnn_r50": (
        "maskrcnn_resnet50_fpn",
        ["bbox", "segm"],
        ("box 36.9 and mask 33.6", "37.9 and 34.6", "24 h 21 min on three GPUs"),
    ),
    "hnd_fasterrcnn_r50": ("fasterrcnn_resnet50_fpn", ["bbox"], ("(35.9; the teacher has 37.0)", "not measured")),
    "hnd_maskrcnn_r50": ("maskrcnn_resnet50_fpn", ["bbox", "segm"], ("box 36.9, mask 33.6", "37.9 and 34.6")),
}


@pytest.fixture(scope="module")
def coco(tmp_path_factory) -> Path:
    """A folder as coco2017's, of four grey images with an object and its outline each."""
    root = tmp_path_factory.mktemp("coco2017")
    (root / "annotations").mkdir()
    for split in ("train2017", "val2017"):
        (root / split).mkdir()
        images = [{"id": n, "file_name": f"{n}.jpg", "height": 48, "width": 64} for n in range(1, 5)]
        for image in images:
            Image.fromarray(np.full((48, 64, 3), 90, np.uint8)).save(root / split / image["file_name"])
        outline = [[4, 4, 34, 4, 34, 24, 4, 24]]
        box = {"bbox": [4, 4, 30, 20], "area": 600.0, "iscrowd": 0, "segmentation": outline}
        objects = [{"id": n, "image_id": n, "category_id": n, **box} for n in range(1, 5)]
        categories = [{"id": n, "name": str(n)} for n in range(1, 91)]
        content = {"images": images, "annotations": objects, "categories": categories}
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return root


@pytest.mark.parametrize("name", PRESETS)
def test_the_header_says_command_paper_published_figures_and_cost(name):
    lines = (FOLDER / f"{name}.yaml").read_text().split("\ndefaults:")[0].splitlines()
    assert lines[0] == "# @package _global_" and lines[1].startswith(f"# distill experiment=coco/{name}: ")
    header = " ".join(line.removeprefix("# ") for line in lines)
    for part in ("Paper: https://", "Expected mAP: ", "Cost: ", "stage.select=best", *PRESETS[name][2]):
        assert part in header


@pytest.mark.parametrize("name", mostly_slow(PRESETS, "ghnd_maskrcnn_r50"))
def test_a_preset_has_the_published_settings(name):
    teacher, kinds, _ = PRESETS[name]
    cfg = compose([f"experiment=coco/{name}"])
    assert (cfg.teacher.name, cfg.teacher.weights, cfg.stage.select) == (teacher, "COCO_V1", "last")
    assert cfg.student.net.replace == "backbone.body.layer1" and cfg.student.net.channels == 3
    assert list(cfg.dataset.task.kinds) == kinds and cfg.dataset.task.aspect_groups == 3
    sizes = [dict(each) for each in cfg.dataset.train_transform][1]
    assert (sizes["min_size"], sizes["max_size"]) == (800, 1333)
    OmegaConf.resolve(cfg)
    plans, errors = plan_stages(to_app(OmegaConf.to_container(cfg)))
    (plan,) = plans
    assert not errors and (plan.conf.epochs, plan.conf.lr, plan.conf.batch_size) == (20, 1e-3, 12)
    assert plan.optimizer["_target_"] == "torch.optim.Adam"
    assert list(plan.scheduler.schedule["milestones"]) == [5, 15]
    maps = ["stage1"] if name.startswith("hnd") else ["stage1", "stage2", "stage3", "stage4"]
    assert plan.taps["student"] == plan.taps["teacher"] == maps and plan.conf.freeze == ["student.stage1:after"]
    assert all((term.weight, term.loss["reduction"]) == (1.0, "sum") for term in plan.terms.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_passes_the_check_that_builds_nothing(name, coco):
    errors, app, _ = read(compose([f"experiment=coco/{name}", f"dataset.root={coco}"]))
    assert list(errors) == [] and app is not None


@pytest.mark.slow
def test_the_network_of_a_preset_trains_stem_and_bottleneck_between_frozen_norms(coco, tmp_path):
    small = (
        "experiment=coco/ghnd_fasterrcnn_r50",
        f"dataset.root={coco}",
        "dataset.image_size=64",
        "dataset.train_transform=[]",
        "stage.batch_size=2",
        "runtime.num_workers=0",
        "teacher.weights=null",
        "teacher.allow_random=true",
        "+teacher.net.min_size=64",
        "+teacher.net.max_size=96",
    )
    with stage(tmp_path, base=small) as built:
        module = network(built, "student")
        body = module.backbone.body
        frozen = [part for part in module.modules() if isinstance(part, FrozenBatchNorm2d)]
        assert len(frozen) == 43 and all(part.eps == 0.0 for part in frozen)
        assert sum(isinstance(part, nn.BatchNorm2d) for part in body.layer1.modules()) == 8
        before = [snapshot(part) for part in (*frozen, body.layer2, body.layer4, module.roi_heads)]
        built.step.train()
        batch = built.prepare(next(iter(built.data.train)))
        for _ in range(2):
            built.step(batch, built.frozen.run(batch))[0].backward()
            built.optimization.step()
        after = [snapshot(part) for part in (*frozen, body.layer2, body.layer4, module.roi_heads)]
        assert all(ours[key].equal(theirs[key]) for ours, theirs in zip(after, before, strict=True) for key in ours)
        trained = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
        assert {name.split(".")[2] for name in trained} == {"conv1", "layer1"}
        # 48 x 64 px become 64 x 85, padded to 64 x 96: a quarter of it, and 4 more.
        assert "cut at backbone.body.layer1: (3, 20, 28) crosses" in stage_text(built)

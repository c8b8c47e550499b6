"""The presets of published rows: they compose, pass the check, hold the published settings, and run."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from engine_fixtures import mostly_slow
from omegaconf import OmegaConf
from PIL import Image

from distill_app.check.quick import check
from distill_app.config.groups import conf_dir
from distill_app.config.planning import plan_stages
from distill_app.config.schema import to_app
from distill_app.config.tree import compose
from distill_app.training.optimize import scaled_lr
from distill_app.training.run import run_experiment

FOLDER = Path(conf_dir(), "experiment")
PRESETS = [
    f"{group}/{path.stem}" for group in ("imagenet", "cifar100") for path in sorted((FOLDER / group).glob("*.yaml"))
]
NO_DOWNLOADS = {"imagenet/tfkd_self_r18": ["method.extra_models.pretrained.weights=null"]}

# The rows of Table 5, https://arxiv.org/abs/2011.12913: epochs, lr, global batch and milestones of each stage, then
# the weights of the terms of the last one and the accuracy. Rows of three GPUs alone have 85 or 171 images on each.
TABLE_5 = {
    "kd_r34_r18": ([(100, 0.1, 256, [30, 60, 90])], {"ce": 0.5, "kd": 0.5}, 71.23),
    "at_r34_r18": ([(100, 0.1, 256, [30, 60, 90])], {"ce": 1, "at3": 1000, "at4": 1000}, 70.90),
    "ft_r34_r18": ([(1, 0.01, 256, [30, 60, 90]), (90, 0.1, 256, [30, 60, 90])], {"ce": 1, "ft": 1000}, 71.56),
    "crd_r34_r18": ([(100, 0.1, 256, [30, 60, 90])], {"ce": 1, "crd": 0.8}, 70.81),
    "tfkd_self_r18": ([(90, 0.1, 256, [30, 60, 80])] * 2, {"ce": 0.9, "kd": 0.1}, 70.52),
    "sskd_r34_r18": (
        [(30, 0.1, 255, [10, 20]), (100, 0.1, 255, [30, 60, 90])],
        {"ce": 1, "kd": 0.9, "similarity": 10, "rotated": 2.7},
        70.09,
    ),
    "l2_r34_r18": ([(90, 0.2, 513, [30, 60])], {"ce": 1, "l2": 15}, 71.08),
    "pad_l2_r34_r18": ([(90, 0.2, 513, [30, 60]), (30, 0.002, 513, [30, 60])], {"ce": 1, "pad": 1}, 71.71),
}
# Its column of training times: hours, minutes and GPUs of the row whose accuracy stands above, and of the other one.
TIMES = {
    "kd_r34_r18": [(60, 4, "one GPU"), (23, 7, "71.37 %")],
    "at_r34_r18": [(59, 7, "one GPU"), (23, 11, "70.55 %")],
    "ft_r34_r18": [(55, 6, "one GPU"), (22, 15, "71.13 %")],
    "crd_r34_r18": [(356, 31, "one GPU"), (179, 12, "70.93 %")],
    "tfkd_self_r18": [(46, 34, "one GPU"), (18, 50, "70.21 %")],
    "sskd_r34_r18": [(113, 12, "three GPUs")],
    "l2_r34_r18": [(21, 25, "three GPUs")],
    "pad_l2_r34_r18": [(28, 34, "three GPUs")],
}
# The weights of section 3 of https://arxiv.org/abs/1910.10699's benchmark, in the last stage or where they stand.
CIFAR = {
    "kd": {"ce": 0.1, "kd": 0.9},
    "fitnet": {"ce": 1, "hint": 100},
    "at": {"ce": 1, "at2": 1000, "at3": 1000, "at4": 1000},
    "spkd": {"ce": 1, "spkd": 3000},
    "pkt": {"ce": 1, "pkt": 30000},
    "rkd": {"ce": 1, "distance": 25, "angle": 50},
    "vid": {"ce": 1, "vid2": 1, "vid3": 1, "vid4": 1},
    "cckd": {"ce": 1, "cckd": 0.02},
    "ft": {"ce": 1, "ft": 200},
    "dab": {"ce": 1},
    "fsp": {"ce": 1},
    "crd": {"ce": 1, "crd": 0.8},
}


# Methods since: (epochs, lr, global batch), weights of the terms, arguments of their own losses, and the accuracy.
WARMUP = {"_target_": "distill_app.losses.LinearWarmup", "value": 1.0}
REVERSAL = {"_target_": "distill_app.losses.CosineDecay", "value": 0.0, "final": -1.0, "epochs": 5}
FALLING = {"_target_": "distill_app.losses.CosineDecay", "epochs": 240, "after": 150}
FALL = {"_target_": "distill_app.losses.CosineDecay", "epochs": 100}
SINCE = {
    "imagenet/dkd_r34_r18": (
        (100, 0.2, 512),
        {"ce": 1, "dkd": {**WARMUP, "epochs": 1}},
        {"dkd": {"temperature": 1.0, "alpha": 1.0, "beta": 0.5}},
        71.70,
    ),
    "imagenet/nkd_r34_r18": ((100, 0.1, 256), {"ce": 1, "nkd": 1}, {"nkd": {"temperature": 1.0, "gamma": 1.5}}, 71.96),
    "imagenet/dist_r34_r18": (
        (100, 0.1, 256),
        {"ce": 1, "dist": 2},
        {"dist": {"temperature": 1.0, "beta": 1.0, "gamma": 1.0}},
        72.07,
    ),
    "imagenet/normkd_r34_r18": ((100, 0.2, 512), {"ce": 0.5, "kd": 0.5}, {"kd": {"scale": 1.0}}, 72.03),
    "imagenet/ctkd_r34_r18": (
        (120, 0.1, 256),
        {"ce": 1, "kd": 1, "temperature": REVERSAL},
        {"kd": {"learns": "student"}, "temperature": {"learns": "temperature"}},
        71.32,
    ),
    "cifar100/dkd_r32x4_r8x4": (
        (240, 0.05, 64),
        {"ce": 1, "dkd": {**WARMUP, "epochs": 20}},
        {"dkd": {"temperature": 4.0, "alpha": 1.0, "beta": 8.0}},
        76.32,
    ),
    "cifar100/dist_r32x4_r8x4": (
        (240, 0.05, 64),
        {"ce": 1, "dist": 2},
        {"dist": {"temperature": 4.0, "beta": 1.0, "gamma": 1.0}},
        76.31,
    ),
    "imagenet/reviewkd_r34_r18": ((100, 0.1, 256), {"ce": 1, "review": {**WARMUP, "epochs": 1}}, {"review": {}}, 71.61),
    "imagenet/ofd_r34_r18": (
        (100, 0.05, 128),
        {"ce": 1, "ofd1": 1.25e-5, "ofd2": 2.5e-5, "ofd3": 5e-5, "ofd4": 1e-4},
        {"ofd1": {}},
        70.81,
    ),
    "imagenet/mgd_r34_r18": ((100, 0.1, 256), {"ce": 1, "mgd": 7e-5}, {"mgd": {}}, 71.69),
    "imagenet/srd_r34_r18": (
        (100, 0.1, 256),
        {"ce": 1, "kd": 1, "srd": 1},
        {"kd": {"temperature": 1.0}, "srd": {"exponent": 4.0}},
        71.92,
    ),
    "cifar100/nst_r32x4_r8x4": ((240, 0.05, 64), {"ce": 1, "nst2": 50, "nst3": 50, "nst4": 50}, {"nst2": {}}, 73.30),
    "cifar100/reviewkd_r32x4_r8x4": (
        (240, 0.1, 128),
        {"ce": 1, "review": {**WARMUP, "value": 5.0, "epochs": 20}},
        {"review": {}},
        75.63,
    ),
    "cifar100/ofd_r32x4_r8x4": (
        (240, 0.05, 64),
        {"ce": 1, "ofd2": 2.5e-4, "ofd3": 5e-4, "ofd4": 1e-3},
        {"ofd2": {}},
        74.95,
    ),
    "cifar100/semckd_r32x4_r8x4": (
        (240, 0.05, 64),
        {"ce": 1, "kd": 1, "semckd": 400},
        {"kd": {"temperature": 4.0}, "semckd": {}},
        76.23,
    ),
    "cifar100/cat_kd_r32x4_r8x4": (
        (240, 0.05, 64),
        {"ce": 1, "cat_kd": 15},
        {"cat_kd": {"resolution": 2, "normalize": False}},
        76.91,
    ),
    "imagenet/sdd_r34_r18": (
        (100, 0.2, 512),
        {"ce": 1, "sdd": {**WARMUP, "epochs": 1}},
        {
            "sdd": {
                "base": {"_target_": "distill_app.losses.DecoupledKL", "temperature": 1.0, "alpha": 1.0, "beta": 0.5}
            }
        },
        72.02,
    ),
    "imagenet/cat_kd_r34_r18": (
        (100, 0.2, 512),
        {"ce": 1, "cat_kd": 0.5},
        {"cat_kd": {"resolution": 4, "normalize": False}},
        71.26,
    ),
    "imagenet/lskd_r34_r18": ((100, 0.1, 512), {"ce": 0.5, "kd": 9}, {"kd": {"temperature": 2.0}}, 71.42),
    "imagenet/mlkd_r34_r18": (
        (100, 0.2, 512),
        {"ce": 1, **dict.fromkeys(("instance", "batch", "class"), 9)},
        {},
        71.90,
    ),
    "imagenet/simkd_r34_r18": ((120, 0.1, 256), {"simkd": 1}, {"simkd": {}}, 71.59),
    "imagenet/wkd_r34_r18": (
        (100, 0.2, 512),
        {"ce": 1, "target": 1, "logits": {**FALL, "value": 10.0}, "features": {**FALL, "value": 1.0}},
        {"logits": {"temperature": 2.0}, "features": {"grid": 4, "ratio": 2.0}},
        72.76,
    ),
    "imagenet/ickd_r34_r18": ((100, 0.1, 256), {"ce": 1, "ickd": 2.5}, {"ickd": {}}, 72.19),
    "imagenet/dml_r34_r18": ((100, 0.1, 256), {"ce": 1, "peer_ce_peer_1": 1, "mutual": 1}, {"mutual": {}}, 71.03),
    "imagenet/dml_r50_mv1": ((100, 0.1, 256), {"ce": 1, "peer_ce_peer_1": 1, "mutual": 1}, {"mutual": {}}, 71.13),
    "imagenet/wttm_r34_r18": ((100, 0.1, 256), {"ce": 1, "ttm": 4}, {"ttm": {"power": 0.2, "weighted": True}}, 72.19),
    "imagenet/wsld_r34_r18": ((100, 0.1, 256), {"ce": 1, "wsld": 2.5}, {"wsld": {"temperature": 2.0}}, 72.04),
    "imagenet/sphericalkd_r34_r18": (
        (100, 0.01, 256),
        {"ce": 0.1, "kd": 0.9},
        {"kd": {"temperature": 4.0}},
        73.01,
    ),
    "imagenet/kd_r50_mv1": ((100, 0.2, 512), {"ce": 0.5, "kd": 0.5}, {"kd": {"temperature": 1.0}}, 70.50),
    "imagenet/at_r50_mv1": ((100, 0.2, 512), {"ce": 1, **dict.fromkeys(("at1", "at2", "at3", "at4"), 1000)}, {}, 69.56),
    "imagenet/ofd_r50_mv1": (
        (100, 0.05, 128),
        {"ce": 1, "ofd1": 1.25e-5, "ofd2": 2.5e-5, "ofd3": 5e-5, "ofd4": 1e-4},
        {},
        71.25,
    ),
    "imagenet/crd_r50_mv1": ((100, 0.1, 256), {"ce": 1, "crd": 0.8}, {"crd": {"negatives": 16384}}, 71.37),
    "imagenet/reviewkd_r50_mv1": (
        (100, 0.1, 256),
        {"ce": 1, "review": {**WARMUP, "value": 8.0, "epochs": 1}},
        {},
        72.56,
    ),
    "imagenet/simkd_r50_mv1": ((120, 0.1, 256), {"simkd": 1}, {}, 72.25),
    "imagenet/cat_kd_r50_mv1": (
        (100, 0.2, 512),
        {"ce": 1, "cat_kd": 10},
        {"cat_kd": {"resolution": 2, "normalize": True}},
        72.24,
    ),
    "imagenet/lskd_r50_mv1": ((100, 0.2, 512), {"ce": 0.5, "kd": 9}, {"kd": {"temperature": 2.0}}, 72.18),
    "imagenet/ctkd_r50_mv1": ((120, 0.1, 256), {"ce": 1, "kd": 1, "temperature": REVERSAL}, {}, 71.16),
    "imagenet/dkd_r50_mv1": (
        (100, 0.2, 512),
        {"ce": 1, "dkd": {**WARMUP, "epochs": 1}},
        {"dkd": {"temperature": 1.0, "alpha": 1.0, "beta": 2.0}},
        72.05,
    ),
    "imagenet/mlkd_r50_mv1": (
        (100, 0.2, 512),
        {"ce": 1, **dict.fromkeys(("instance", "batch", "class"), 9)},
        {},
        73.01,
    ),
    "imagenet/dist_r50_mv1": (
        (100, 0.1, 256),
        {"ce": 1, "dist": 2},
        {"dist": {"temperature": 1.0, "beta": 1.0, "gamma": 1.0}},
        73.24,
    ),
    "imagenet/nkd_r50_mv1": ((100, 0.1, 256), {"ce": 1, "nkd": 1}, {"nkd": {"temperature": 1.0, "gamma": 1.5}}, 72.58),
    "imagenet/wttm_r50_mv1": ((100, 0.1, 256), {"ce": 1, "ttm": 4}, {"ttm": {"power": 0.2, "weighted": True}}, 73.09),
    "imagenet/wkd_r50_mv1": (
        (100, 0.2, 512),
        {"ce": 1, "target": 1, "logits": {**FALL, "value": 25.0}, "features": {**FALL, "value": 0.005}},
        {"logits": {"temperature": 2.0}, "features": {"grid": 4, "ratio": 2.0}},
        73.69,
    ),
    "imagenet/sdd_r50_mv1": (
        (100, 0.2, 512),
        {"ce": 1, "sdd": {**WARMUP, "epochs": 1}},
        {
            "sdd": {
                "base": {"_target_": "distill_app.losses.DecoupledKL", "temperature": 1.0, "alpha": 1.0, "beta": 2.0}
            }
        },
        73.08,
    ),
    "cifar100/wkd_r32x4_r8x4": (
        (240, 0.05, 64),
        {"ce": 1, "target": 1, "logits": {**FALLING, "value": 200.0}, "features": {**FALLING, "value": 0.08}},
        {"target": {"gamma": 0.0}, "logits": {"temperature": 8.0}, "features": {"grid": 1, "ratio": 8.0}},
        77.28,
    ),
    "cifar100/simkd_r32x4_r8x4": ((240, 0.05, 64), {"simkd": 1}, {"simkd": {}}, 78.08),
    "cifar100/crd_kd_r32x4_r8x4": (
        (240, 0.05, 64),
        {"ce": 1, "crd": 0.8, "kd": 1},
        {"crd": {"negatives": 16384}, "kd": {"temperature": 4.0}},
        75.46,
    ),
    "cifar100/lskd_dkd_r32x4_r8x4": (
        (240, 0.05, 64),
        {"ce": 1, "dkd": {**WARMUP, "epochs": 20}},
        {"dkd": {"temperature": 2.0, "alpha": 9.0, "beta": 72.0, "standardize": True}},
        77.01,
    ),
    "cifar100/lskd_r32x4_r8x4": ((240, 0.05, 64), {"ce": 0.1, "kd": 9}, {"kd": {"temperature": 2.0}}, 76.62),
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """An ImageFolder of three classes, three images each."""
    root = tmp_path_factory.mktemp("imagenet")
    generator = np.random.default_rng(0)
    for split in ("train", "val"):
        for label in range(3):
            folder = root / split / f"n{label}"
            folder.mkdir(parents=True)
            for number in range(3):
                pixels = generator.integers(0, 256, (80, 72, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.jpg")
    return root


def small(name: str, images: Path) -> list[str]:
    """The preset on data that is here."""
    if name.startswith("cifar100"):
        return [f"experiment={name}", "dataset=fake"]
    size = ["dataset.num_classes=3", "dataset.image_size=64", "runtime.num_workers=0"]
    overrides = [f"experiment={name}", f"dataset.root={images}", *size, *NO_DOWNLOADS.get(name, [])]
    cfg = compose(overrides)
    models = {"teacher": cfg.teacher, **{f"method.extra_models.{k}": v for k, v in cfg.method.extra_models.items()}}
    published = [key for key, model in models.items() if model.weights]
    return overrides + [f"{key}.{each}" for key in published for each in ("weights=null", "allow_random=true")]


def header_of(name: str) -> str:
    """The comment that a preset opens with, as one line."""
    lines = (FOLDER / f"{name}.yaml").read_text().split("\ndefaults:")[0].splitlines()
    return " ".join(line.removeprefix("# ") for line in lines)


def plans_of(name: str):
    cfg = compose([f"experiment={name}"])
    OmegaConf.resolve(cfg)
    plans, errors = plan_stages(to_app(OmegaConf.to_container(cfg)))
    assert not errors
    return [plan for plan in plans if plan.key.startswith("method.")]


@pytest.mark.parametrize("name", PRESETS)
def test_the_header_says_command_paper_expected_value_and_cost(name):
    lines = (FOLDER / f"{name}.yaml").read_text().splitlines()
    assert lines[0] == "# @package _global_" and lines[1].startswith(f"# distill experiment={name}")
    for part in ("Paper: https://", "Expected top-1: ", "Cost: "):
        assert part in header_of(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_the_header_says_by_which_epoch_the_figure_is_selected_and_what_to_type_for_it(name):
    header, selected = header_of(name), compose([f"experiment={name}"]).stage.select
    assert selected == "last"
    assert "stage.select=best" in header or "of the last epoch, which is what a stage hands on" in header
    assert name.startswith("cifar100") or "stage.select=best" in header


@pytest.mark.parametrize("name", TABLE_5)
def test_the_header_has_cost_and_selection_of_its_row_of_table_5(name):
    header = header_of(f"imagenet/{name}")
    assert "of the best epoch on the validation images (stage.select=best" in header
    cost = header.split("Cost: ")[1]
    (hours, minutes, gpus), *other = TIMES[name]
    assert cost.startswith(f"{hours} h {minutes:02} min on {gpus}")
    stages = TABLE_5[name][0][-1:] if name == "tfkd_self_r18" else TABLE_5[name][0]  # the copy comes trained
    epochs = sum(stage[0] for stage in stages)
    assert int(re.search(r"(\d+) min an epoch", cost)[1]) == round((60 * hours + minutes) / epochs)
    assert all(f"{accuracy} in {hours} h {minutes:02} min" in cost for hours, minutes, accuracy in other)
    batch = TABLE_5[name][0][0][2]
    assert batch == 256 or (f"global batch of {batch}" in cost and f"{batch // 3} images" in cost)


@pytest.mark.slow
def test_images_of_imagenet_are_loaded_by_as_many_processes_as_in_the_paper():
    assert compose(["experiment=imagenet/kd_r34_r18"]).runtime.num_workers == 16
    assert compose(["experiment=imagenet/kd_r34_r18", "runtime.num_workers=4"]).runtime.num_workers == 4


@pytest.mark.slow
def test_tfkd_regularisation_on_imagenet_is_the_papers_formula_without_cifars_multiplier():
    loss = plans_of("imagenet/tfkd_reg_r18")[0].terms["reg"].loss
    assert (loss["form"], loss["multiplier"], loss["temperature"]) == ("consistent", 1.0, 20.0)
    (cifar,) = plans_of("cifar100/tfkd_reg_r18")
    assert cifar.terms["reg"].loss["multiplier"] == 100.0 and "form" not in cifar.terms["reg"].loss


@pytest.mark.slow
def test_sskd_on_imagenet_augments_each_rotation_for_itself():
    wrappers = [plan.wrappers["views"][0] for plan in plans_of("imagenet/sskd_r34_r18")]
    assert [wrapper["each"] for wrapper in wrappers] == [True, True]


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_the_preset_passes_the_check(name, images):
    assert list(check(compose(small(name, images)))) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", mostly_slow(TABLE_5, *list(TABLE_5)[:2]))
def test_a_row_of_table_5_has_the_published_settings(name):
    stages, weights, expected = TABLE_5[name]
    plans = plans_of(f"imagenet/{name}")
    found = [(p.conf.epochs, scaled_lr(p.conf), p.conf.batch_size) for p in plans]
    assert found == [pytest.approx(stage[:3]) for stage in stages]
    assert [list(p.scheduler.schedule["milestones"]) for p in plans] == [stage[3] for stage in stages]
    assert {name: term.weight for name, term in plans[-1].terms.items()} == weights
    decay = 5e-4 if name.startswith("sskd") else 1e-4
    assert all((p.optimizer["momentum"], p.optimizer["weight_decay"]) == (0.9, decay) for p in plans)
    assert re.search(rf"Expected top-1: {expected:.2f} %", (FOLDER / "imagenet" / f"{name}.yaml").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("method", mostly_slow(CIFAR, "kd", "crd"))
def test_a_cifar_preset_has_the_published_weights(method):
    plans = plans_of(f"cifar100/{method}_r32x4_r8x4")
    last = plans[-1]
    assert {name: term.weight for name, term in last.terms.items()} == CIFAR[method]
    assert (last.conf.epochs, last.conf.lr, last.conf.batch_size) == (240, 0.05, 64)
    assert list(last.scheduler.schedule["milestones"]) == [150, 180, 210]
    assert last.optimizer["weight_decay"] == 5e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", SINCE)
def test_a_preset_of_a_later_method_has_the_published_settings(name):
    recipe, weights, arguments, expected = SINCE[name]
    (plan,) = plans_of(name)
    assert (plan.conf.epochs, scaled_lr(plan.conf), plan.conf.batch_size) == pytest.approx(recipe)
    assert list(plan.scheduler.schedule["milestones"]) == ([150, 180, 210] if "cifar" in name else [30, 60, 90])
    assert {term: conf.weight for term, conf in plan.terms.items()} == weights
    for term, wanted in arguments.items():
        assert {key: value for key, value in plan.terms[term].loss.items() if key != "_target_"} == wanted
    assert f"Expected top-1: {expected:.2f} %" in header_of(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in PRESETS if name.endswith("_r50_mv1")])
def test_mobilenet_v1_learns_from_resnet50_of_torchvision(name):
    cfg = compose([f"experiment={name}"])
    assert (cfg.teacher.name, cfg.teacher.weights, cfg.student.name) == ("resnet50", "IMAGENET1K_V1", "mobilenet_v1")


@pytest.mark.slow
def test_dkd_on_top_of_reviewkd_has_the_terms_of_both_presets():
    (both,), (dkd,), (review,) = (
        plans_of(f"cifar100/{name}_r32x4_r8x4") for name in ("dkd_reviewkd", "dkd", "reviewkd")
    )
    assert both.terms == {**review.terms, "dkd": dkd.terms["dkd"]} and both.adapters == review.adapters
    assert (both.conf.lr, both.conf.batch_size) == (review.conf.lr, review.conf.batch_size)


@pytest.mark.slow
def test_logit_standardisation_on_mlkd_is_of_the_instance_level_alone():
    (plan,) = plans_of("cifar100/lskd_mlkd_r32x4_r8x4")
    assert (plan.conf.epochs, plan.conf.lr) == (480, 0.025)
    assert list(plan.scheduler.schedule["milestones"]) == [150, 180, 210]
    teacher = compose(["experiment=cifar100/lskd_mlkd_r32x4_r8x4"]).prelude.stages.teacher
    assert (teacher.epochs, teacher.lr) == (240, 0.05)
    assert {name: term.weight for name, term in plan.terms.items()} == {"ce": 1, "instance": 9, "batch": 9, "class": 9}
    own = {name: term.loss for name, term in plan.terms.items() if name != "ce"}
    assert all(loss["temperatures"] == [2.0, 3.0, 5.0, 2.0, 6.0] for loss in own.values())
    assert [name for name, loss in own.items() if loss.get("standardize")] == ["instance"]


def test_the_cifar_teacher_is_trained_as_long_as_the_student_unless_its_file_is_there():
    cfg = compose(["experiment=cifar100/recipe"])
    assert (cfg.prelude.stages.teacher.epochs, cfg.prelude.stages.teacher.lr) == (240, 0.05)
    assert cfg.teacher.checkpoint.endswith("cifar100/resnet32x4.pt") and cfg.prelude.stages.teacher.skip_if_loaded


@pytest.mark.slow
def test_a_preset_gives_way_to_the_command_line():
    cfg = compose(["experiment=imagenet/kd_r34_r18", "stage.lr=0.2", "model@student=mobilenet_v2", "prelude=teacher"])
    assert (cfg.stage.lr, cfg.student.name, cfg.prelude.name) == (0.2, "mobilenet_v2", "teacher")
    assert compose(["experiment=imagenet/hnd_r152"]).student.name == "resnet152 with a bottleneck"
    assert compose(["experiment=imagenet/ghnd_r50"]).student.name == "resnet50_bottleneck"


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLE_5)
def test_a_row_of_table_5_runs_two_steps(name, images, tmp_path):
    short = ["runtime.max_epochs=1", "runtime.max_steps_per_epoch=2", "runtime.threads=1", "tracker=none"]
    small_batch = ["stage.batch_size=4", "teacher.weights=null", "teacher.allow_random=true"]
    cfg = compose([*small(f"imagenet/{name}", images), *short, *small_batch])
    OmegaConf.resolve(cfg)
    summary = run_experiment(OmegaConf.to_container(cfg), output_dir=str(tmp_path), command=["distill"])
    student = next(row for row in summary["rows"] if row["network"] == "student")
    assert 0 <= student["accuracy"] <= 1 and student["loss"] < float("inf")
    assert set(summary["stages"]) == {plan.name for plan in plans_of(f"imagenet/{name}")}

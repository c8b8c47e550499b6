"""The CIFAR-100 benchmark: any pair with any method, its settings, and runs on images in CIFAR's layout."""

import hashlib
import json
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from engine_fixtures import mostly_slow
from omegaconf import OmegaConf
from torchvision.datasets import CIFAR100

from distill_app.check.quick import read
from distill_app.cli import main
from distill_app.config.groups import conf_dir, options_of
from distill_app.config.plan import StagePlan
from distill_app.config.tree import compose

PAIRS = options_of("pair")
SETTINGS = sorted(path.stem for path in Path(conf_dir(), "setting/cifar100").glob("*.yaml"))
BENCHMARK = "experiment=cifar100/benchmark"
SLOW_LR = ("mobilenetv2", "shufflev1", "shufflev2", "shufflev2x1_5")
FOUR = ("vgg13_vgg8", "vgg13_mobilenetv2", "resnet50_mobilenetv2", "resnet50_vgg8")
# Pairs and methods, each pair and method of a kind once, that pass a dry run on images.
DRY = {
    "resnet32x4_resnet8x4": "dkd",
    "vgg13_mobilenetv2": "at",
    "resnet32x4_shufflev2": "cat_kd",
    "wrn_40_2_shufflev1": "wkd",
    "resnet50_vgg8": "reviewkd",
    "resnet56_resnet20": "crd",
    "vgg13_vgg8": "dab",
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def images(tmp_path, monkeypatch) -> Path:
    """Noise in the files of CIFAR-100, 200 images to train on and 100 to judge by, whose checksums pass for its own."""
    folder = tmp_path / "data" / "cifar100" / "cifar-100-python"
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)

    def write(name: str, content: dict) -> str:
        data = pickle.dumps(content)
        (folder / name).write_bytes(data)
        return hashlib.md5(data).hexdigest()

    def split(name: str, count: int) -> list[list[str]]:
        pixels = generator.integers(0, 256, (count, 3072), dtype=np.uint8)
        return [[name, write(name, {"data": pixels, "fine_labels": [i % 100 for i in range(count)]})]]

    names = {"fine_label_names": [f"class {i}" for i in range(100)]}
    monkeypatch.setattr(CIFAR100, "train_list", split("train", 200))
    monkeypatch.setattr(CIFAR100, "test_list", split("test", 100))
    monkeypatch.setattr(CIFAR100, "meta", {**CIFAR100.meta, "md5": write("meta", names)})
    monkeypatch.setenv("DISTILL_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("DISTILL_WEIGHTS", str(tmp_path / "weights"))
    return tmp_path


def plans_of(*overrides: str) -> list[StagePlan]:
    errors, _, plans = read(compose([BENCHMARK, *overrides]))
    assert [error for error in errors if not error.startswith("dataset.root")] == []
    return plans


def distill(*words: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(list(words))
    return int(stopped.value.code or 0)


@pytest.mark.parametrize("pair", mostly_slow(PAIRS, "vgg13_mobilenetv2"))
def test_a_pair_has_the_recipe_with_the_learning_rate_of_its_student(pair):
    teacher, student = plans_of(f"pair={pair}", "method=crd")
    lr = 0.01 if pair.endswith(SLOW_LR) else 0.05
    assert (student.conf.epochs, student.conf.batch_size, student.conf.lr) == (240, 64, lr)
    assert (teacher.conf.epochs, teacher.conf.lr, teacher.conf.skip_if_loaded) == (240, 0.05, True)
    assert list(student.scheduler.schedule["milestones"]) == [150, 180, 210]
    assert (student.optimizer["momentum"], student.optimizer["weight_decay"]) == (0.9, 5e-4)


@pytest.mark.slow
@pytest.mark.parametrize("method", SETTINGS)
def test_settings_of_a_method_fit_pairs_of_three_and_of_four_maps(method):
    for pair in ("resnet32x4_resnet8x4", "vgg13_vgg8"):
        assert plans_of(f"pair={pair}", f"method={method}")


def test_settings_belong_to_methods():
    assert set(SETTINGS) <= set(options_of("method"))


@pytest.mark.slow
@pytest.mark.parametrize(("pair", "count"), [("vgg13_vgg8", 4), ("resnet32x4_resnet8x4", 3)])
def test_methods_read_as_many_maps_as_the_networks_of_the_pair_have(pair, count):
    for method, term in (("at", "at"), ("vid", "vid"), ("nst", "nst"), ("ofd", "ofd"), ("dab", "ab"), ("fsp", "fsp")):
        plan = next(plan for plan in plans_of(f"pair={pair}", f"method={method}") if plan.key.startswith("method."))
        assert sum(name.startswith(term) and name != "ce" for name in plan.terms) == count, method
    review = plans_of(f"pair={pair}", "method=reviewkd")[-1].terms["review"]
    assert len(review.inputs["teacher"]) == count + 1


@pytest.mark.slow
def test_weights_go_by_pair_where_they_are_published_by_pair():
    def term(pair: str, method: str, name: str):
        return plans_of(f"pair={pair}", f"method={method}")[-1].terms[name]

    assert term("resnet56_resnet20", "dkd", "dkd").loss["beta"] == 2.0
    assert term("vgg13_vgg8", "dkd", "dkd").loss["beta"] == 6.0
    assert term("resnet32x4_shufflev2", "dkd", "dkd").loss["beta"] == 8.0
    cat = term("resnet32x4_shufflev2", "cat_kd", "cat_kd")
    assert (cat.weight, cat.loss["resolution"], cat.loss["normalize"]) == (600.0, 4, True)
    assert term("resnet32x4_shufflev2", "reviewkd", "review").weight["value"] == 8.0
    assert plans_of("pair=resnet32x4_shufflev2", "method=reviewkd")[-1].conf.lr == 0.02
    assert term("wrn_40_2_shufflev1", "wkd", "logits").weight["value"] == 60.0
    assert plans_of("pair=vgg13_vgg8", "method=ft")[1].conf.lr == 0.05
    assert plans_of("pair=resnet56_resnet20", "method=ft")[1].conf.lr == 0.01
    assert plans_of("pair=resnet56_resnet20", "method=mlkd")[-1].conf.epochs == 480


@pytest.mark.slow
def test_what_is_typed_comes_before_what_the_benchmark_sets():
    typed = ["pair=resnet56_resnet20", "model@student=wrn_16_1", "stage.lr=0.3"]
    cfg = compose([BENCHMARK, "method=dkd", *typed, "method.stages.distill.losses.dkd.loss.beta=5"])
    OmegaConf.resolve(cfg)
    assert (cfg.teacher.name, cfg.student.name, cfg.stage.lr) == ("resnet56", "wrn_16_1", 0.3)
    assert cfg.method.stages.distill.losses.dkd.loss.beta == 5
    assert cfg.method.stages.distill.lr == 0.3


@pytest.mark.slow
def test_methods_are_as_ever_without_the_benchmark():
    cfg = compose(["method=dkd"])
    assert cfg.benchmark.name is None and cfg.method.stages.distill.losses.dkd.weight is None
    alone = compose(["method=dkd", "benchmark=cifar100"])
    assert alone.method.stages.distill.losses.dkd.weight.epochs == 20 and alone.student.name == "plain_16_32_64"


@pytest.mark.slow
@pytest.mark.parametrize("pair", DRY)
def test_a_dry_run_passes_with_the_published_figures_beside_the_plan(pair, images, capsys):
    assert distill(BENCHMARK, f"pair={pair}", f"method={DRY[pair]}", "dry_run=true") == 0
    out = capsys.readouterr().out
    assert "200 images of cifar100, 240 epochs" in out and "published, cifar100, " in out
    method = "" if f"  {DRY[pair]}: nothing for this pair" in out else f" {DRY[pair]}"
    assert "  teacher: " in out and out.rstrip().endswith(f"distill published {pair}{method}")


@pytest.mark.slow
def test_pairs_and_methods_are_swept(images, capsys):
    sweep = ["pair=resnet56_resnet20,resnet32x4_resnet8x4", "method=kd,dkd", "dry_run=true"]
    assert distill("-m", BENCHMARK, *sweep, f"hydra.sweep.dir={images}/sweep") == 0
    out = capsys.readouterr().out
    assert out.count("published, cifar100, ") == 4
    for figure in ("KD: 70.66 %", "DKD: 71.97 %", "KD: 73.33 %", "DKD: 76.32 %"):
        assert figure in out


@pytest.mark.slow
def test_a_run_trains_the_teacher_or_takes_its_file_and_is_reported_beside_papers(images, capsys):
    short = ["runtime.max_epochs=1", "runtime.max_steps_per_epoch=2", "tracker=none", "runtime.threads=1"]
    line = [
        BENCHMARK,
        "pair=wrn_40_2_wrn_16_1",
        "model@teacher=wrn_40_1",
        "model@student=wrn_16_2",
        "method=dkd",
        *short,
    ]
    pair = [BENCHMARK, "pair=resnet56_resnet20", "model@teacher=resnet56", "method=dkd", *short]
    assert distill(*line, f"hydra.run.dir={images}/none") == 0
    capsys.readouterr()
    assert distill("report", f"{images}/none") == 0
    assert "published" not in capsys.readouterr().out  # networks of no pair
    assert distill(*pair, f"hydra.run.dir={images}/runs/0") == 0
    stages = json.loads((images / "runs/0/summary.json").read_text())["stages"]
    assert set(stages) == {"teacher", "distill"}
    (images / "weights/cifar100").mkdir(parents=True)
    (images / "runs/0/teacher.pt").rename(images / "weights/cifar100/resnet56.pt")
    assert distill(*pair, f"hydra.run.dir={images}/runs/1", "seed=1") == 0
    assert set(json.loads((images / "runs/1/summary.json").read_text())["stages"]) == {"distill"}
    capsys.readouterr()
    assert distill("report", f"{images}/runs") == 0
    out = capsys.readouterr().out
    assert "published" in out and "71.97 %" in out and "72.34 %" in out

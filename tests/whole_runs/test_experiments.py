"""Presets: each composes, checks, runs in one command and survives a swap of its method; the learning test of CI."""

import re
from pathlib import Path

import pytest
from engine_fixtures import QUIET, equal, metrics, mostly_slow, networks, run, runner
from scipy.stats import ttest_1samp

from distill_app.check.quick import check
from distill_app.config.groups import conf_dir
from distill_app.config.tree import compose
from distill_app.runs.checkpoint import Checkpoints
from distill_app.runs.statefile import load_file
from distill_app.training.stage import Stage

CONF = Path(conf_dir())
BUNDLED = [
    f"{folder}/{file.stem}"
    for folder in ("digits", "fashion_mini")
    for file in sorted((CONF / "experiment" / folder).glob("*.yaml"))
]
QUICK = ("debug=one_batch", "model@teacher=plain_8_16", "stage.batch_size=16")


@pytest.mark.parametrize("name", BUNDLED)
def test_a_preset_says_what_it_is_what_it_costs_and_what_to_expect(name):
    lines = (CONF / "experiment" / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    header = " ".join(line for line in lines if line.startswith("#"))
    assert lines[0] == "# @package _global_"
    assert f"distill experiment={name}" in lines[1]
    assert re.search(r"https://\S+", header)
    assert "Cost:" in header
    assert re.search(r"Expected.* \d\d", header)


@pytest.mark.slow
def test_the_default_spelled_out_is_the_default(composed):
    assert composed("experiment=fashion_mini/kd") == composed()


@pytest.mark.slow
@pytest.mark.parametrize("name", mostly_slow(BUNDLED, "fashion_mini/takd"))
def test_a_preset_runs_end_to_end(tmp_path, name):
    summary = run(tmp_path, base=(f"experiment={name}", *QUICK))
    rows = {row["network"]: row for row in summary["rows"]}
    assert {"teacher", "baseline", "student"} <= set(rows)
    assert [record["stage"] for record in metrics(tmp_path) if record["kind"] == "epoch"] == list(summary["stages"])
    assert rows["student"]["agreement"] <= 1.0


@pytest.mark.slow
@pytest.mark.parametrize("swap", ["method=ce", "method=fitnet", "prelude=none", "prelude=teacher"])
@pytest.mark.parametrize("name", mostly_slow(BUNDLED, "fashion_mini/takd"))
def test_swapping_a_part_of_a_preset_leaves_no_ghost_stages(name, swap):
    assert list(check(compose([f"experiment={name}", swap, "teacher.allow_random=true", *QUIET]))) == []


@pytest.mark.slow
def test_the_assistant_learns_from_the_teacher_and_teaches_the_student(tmp_path):
    overrides = ("model@method.extra_models.assistant=plain_16_32_64",)
    base = ("dataset=digits", "stage=digits", "prelude=none", "method=takd", *QUICK)
    with runner(tmp_path, *overrides, base=base) as made:
        assist, distill = made.plans
        assert (assist.trained, sorted(assist.taps)) == (["assistant"], ["assistant", "teacher"])
        assert (distill.trained, sorted(distill.taps)) == (["student"], ["assistant", "student"])
        summary = made.run()
        assert networks(made)["assistant"].fc.in_features == 64
    assert [row["name"] for row in summary["rows"]] == ["assistant", "teacher", "student with takd"]
    last = Checkpoints(tmp_path / "checkpoints").load("last")["parts"]["networks"]["assistant"]
    assert equal(load_file(tmp_path / "assistant.pt"), last)


@pytest.mark.slow
def test_pretraining_sees_other_images_of_the_same_size_and_the_method_goes_on_from_it(tmp_path):
    base = ("dataset=fashion_mini", "prelude=transfer", "method=ce", *QUICK)
    with runner(tmp_path, base=base) as made:
        names = {plan.name: plan.data.name for plan in made.plans}
        assert names == {
            "teacher": "fashion_mini",
            "alone": "fashion_mini",
            "pretrain": "digits",
            "train": "fashion_mini",
        }
        pretrain = Stage(made.plans[2], made.experiment)
        assert pretrain.example_batch()["input"].shape[-2:] == (32, 32)
        assert len(pretrain.data.indices) == 1080
        pretrain.close()
        made.run()
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    start = checkpoints.load("alone/last")["parts"]["networks"]["student"]
    pretrained = checkpoints.load("pretrain/last")["parts"]["networks"]["student"]
    assert not equal(start, pretrained)
    final = checkpoints.load("train/last")["parts"]["networks"]["student"]
    # One step moves batch norm's counter on from where the pretraining left it.
    counter = "features.0.1.num_batches_tracked"
    assert (int(start[counter]), int(pretrained[counter]), int(final[counter])) == (0, 1, 2)


@pytest.mark.slow
def test_a_student_with_a_teacher_beats_the_student_alone_on_real_digits(tmp_path):
    gains = []
    for seed in range(8):
        folder = tmp_path / str(seed)
        summary = run(folder, f"seed={seed}", base=("experiment=digits/kd",))
        accuracy = {row["network"]: row["accuracy"] for row in summary["rows"]}
        assert accuracy["teacher"] > 0.96
        assert accuracy["baseline"] > 0.75
        gains.append(accuracy["student"] - accuracy["baseline"])
        assert next(row["agreement"] for row in summary["rows"] if row["network"] == "student") > 0.85
        epochs = [record for record in metrics(folder) if record["kind"] == "epoch" and record["stage"] == "distill"]
        assert epochs[-1]["metrics"]["loss_kd"] < 0.2 * epochs[0]["metrics"]["loss_kd"]
    # The preset says 5 points. A seed's gain varies by 2.5 with no more than the processor's rounding; the mean of
    # eight, by less than one.
    assert sum(gains) / len(gains) > 0.03, gains
    assert ttest_1samp(gains, 0.0, alternative="greater").pvalue < 0.01, gains

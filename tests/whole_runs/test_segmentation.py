"""Segmenters through the whole program: what fits them and what not, resumes, ranks, and maps through the cache."""

import json
import re

import pytest
import torch
from engine_fixtures import QUIET, count_calls, equal, network, resolved, run, stage, train
from method_fixtures import SEGMENTATION
from ranks_fixtures import outcomes

from distill_app.cache import replay
from distill_app.errors import CacheError
from distill_app.runs.checkpoint import Checkpoints
from distill_app.runs.statefile import load_file
from distill_app.training import outcome as outcome_module
from distill_app.training.optimize import Optimization

BASE = (
    "dataset=fashion_seg",
    "dataset.image_size=48",
    "dataset.train.count=16",
    "dataset.test.count=6",
    "dataset.validation_fraction=0",
    "model@teacher=tiny_fpn_segmenter",
    "model@student=tiny_fpn_segmenter_8",
    "prelude=none",
    "teacher.allow_random=true",
    "stage=fashion_seg",
    "stage.epochs=2",
)
SIZES = ("dataset.train.sides=[45,64]", "dataset.test.sides=[45,64]")
SLOW = pytest.mark.slow


@pytest.fixture(autouse=True, scope="module")
def no_plots():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outcome_module, "final_plot", lambda folder: folder)
        yield


@SLOW
@pytest.mark.parametrize("method", SEGMENTATION)
def test_the_student_of_a_method_learns_and_its_teacher_stays_as_it_is(method, tmp_path):
    number = 1 if method == "seg_kta" else 0
    with stage(tmp_path, f"method={method}", "stage.epochs=6", base=BASE, number=number) as built:
        teacher = None if method == "seg_ce" else network(built, "teacher")
        before = {} if teacher is None else {name: value.clone() for name, value in teacher.state_dict().items()}
        first, last = train(built), train(built, epochs=5, first=1)
        assert last["total"] < first["total"] and last["seg"] < first["seg"]
        assert set(first) >= {"seg", "total"} and all(value.equal(before[k]) for k, value in _state(teacher).items())
        figures = built.judge()
    assert set(figures) == {"test_mIoU", "test_pixel_accuracy", "test_mean_accuracy"} and 0 < figures["test_mIoU"] < 1


def _state(module: torch.nn.Module | None) -> dict[str, torch.Tensor]:
    return {} if module is None else module.state_dict()


@SLOW
def test_a_network_with_several_outputs_learns_all_of_them(tmp_path):
    own = (
        "model@student=own",
        "student.net._target_=pixel_fixtures.WithOutputs",
        "runtime.allow=[pixel_fixtures]",
        "student.find_taps=false",
    )
    with stage(tmp_path, "method=seg_ce", *own, *SIZES, base=BASE) as built:
        before = network(built, "student").other.weight.clone()
        train(built)
        assert not torch.equal(network(built, "student").other.weight, before)
        assert built.judge()["test_mIoU"] > 0
    text = refusal_of(tmp_path, "method=seg_ce", *own, "+method.stages.train.losses.seg.loss.weights={auxx: 1.0}")
    assert "unknown output 'auxx'; did you mean 'aux'" in text


def refusal_of(folder, *overrides: str) -> str:
    with pytest.raises(ValueError) as caught, stage(folder, *overrides, base=BASE):
        pass
    return str(caught.value)


MIXUP = "+method.stages.train.wrappers={mixup: {_target_: distill_app.data.Mixup}}"
ROTATED = "+method.stages.train.wrappers={views: {_target_: distill_app.data.RotatedViews}}"
NO_CE = "method.stages.distill.losses.ce=null"
UNFIT = [
    # What is typed, and what the one error says.
    (("method=seg_ce", MIXUP), r"dataset\.wrappers: targets are .* of torch\.float32 .*leave out wrappers"),
    (("method=seg_ce", ROTATED), r"dataset\.wrappers: targets are .* for images \(8, 3, 48, 48\)"),
    (("method=seg_ce", "dataset.num_classes=9"), r"dataset\.num_classes: 9 was given.*dataset\.num_classes=11"),
    (("method=seg_ce", "student.net.num_classes=9"), r"dataset\.task: .*tells 9 classes apart, and there are 11"),
    (("method=seg_kd", "teacher.net.num_classes=9"), r"losses\.kd: .*of the same channels"),
    (("method=cwd",), r"losses\.ce: CrossEntropyLoss cannot take"),
    (("method=at", NO_CE, "model@student=plain_8_16"), r"dataset\.task: .*gives no maps: .*\(2, 11\)"),
    (("method=seg_ce", "model@student=plain_8_16"), r"losses\.seg: .*a map of logits \(B, C, H, W\), not \(2, 11\)"),
    (("method=own",), r"student\.losses: unknown tap 'losses'"),
]


@SLOW
@pytest.mark.parametrize(("typed", "match"), UNFIT, ids=[" ".join(typed) for typed, _ in UNFIT])
def test_what_does_not_fit_is_told_before_the_first_batch(typed, match, errors_of):
    (found,) = errors_of(*BASE, *QUIET, *typed)
    assert re.search(match, found), found


@SLOW
def test_an_interrupted_run_of_a_segmenter_goes_on_to_the_bit(tmp_path):
    typed = ("method=seg_cwd", *SIZES)
    run(tmp_path / "whole", *typed, base=BASE)
    original, count = Optimization.step, iter(range(1, 100))

    def broken(self):
        if next(count) == 3:
            raise KeyboardInterrupt
        original(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Optimization, "step", broken)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "cut", *typed, base=BASE)
    assert Checkpoints(tmp_path / "cut" / "checkpoints").has("last")
    resumed = run(tmp_path / "cut", *typed, base=BASE)
    whole = json.loads((tmp_path / "whole" / "summary.json").read_text())
    assert equal(load_file(tmp_path / "cut" / "student.pt"), load_file(tmp_path / "whole" / "student.pt"))
    names = [metric["name"] for metric in whole["metrics"]]
    assert [resumed["rows"][0][name] for name in names] == [whole["rows"][0][name] for name in names]
    details = whole["rows"][0]["details"]
    assert (
        details["images"] == 6 and [set(line) for line in details["per_class"]] == [{"IoU", "accuracy", "pixels"}] * 11
    )


@SLOW
def test_two_ranks_judge_a_segmenter_as_one_process_does(tmp_path):
    sizes = ("dataset.test.sides=[45,64]", "dataset.test.count=7", "dataset.eval_batch_size=2")
    config = resolved("method=seg_kd", *sizes, "stage.epochs=1", base=BASE)
    one, two = (outcomes(tmp_path, {"x": config}, ranks=ranks)["x"] for ranks in (1, 2))
    rows = [{row["network"]: row for row in each["records"] if row["kind"] == "test"} for each in (one, two)]
    for row in (row for each in rows for row in each.values()):
        del row["timing"]
    # The teacher is as it was; the student has learnt from means over other numbers of pixels.
    assert rows[0]["teacher"] == rows[1]["teacher"] and rows[0]["teacher"]["mIoU"] > 0
    assert rows[0]["student"].keys() == rows[1]["student"].keys() and rows[1]["student"]["agreement"] is not None


@SLOW
def test_maps_of_logits_are_cached_where_all_images_have_one_size(tmp_path):
    cached = ("method=seg_cwd", "cache.enabled=true", "cache.views=1", f"cache.folder={tmp_path / 'cache'}")
    with stage(tmp_path / "run", *cached, *SIZES, "dataset.task.pad_to=64", base=BASE) as built:
        first = train(built)
        calls = count_calls(built.frozen.tapped["teacher"])
        train(built, first=1)
        assert not calls and set(first) == {"seg", "cwd", "total"}
        assert built.examples["teacher"]["logits"].shape == (2, 11, 16, 16)
    text = refusal_of(tmp_path / "run", *cached, *SIZES)
    assert "images of several sizes" in text and "dataset.task.pad_to" in text
    text = refusal_of(tmp_path / "run", *cached, *SIZES, "dataset.task.pad_to=60")
    assert "px behind the transforms, and its batch grows beyond dataset.task.pad_to=60" in text


@SLOW
def test_a_size_that_no_look_has_met_is_refused_with_what_to_set(tmp_path, monkeypatch):
    monkeypatch.setattr(replay, "sizes_behind", lambda samples, views: [])
    cached = ("method=seg_cwd", "cache.enabled=true", "cache.views=1", f"cache.folder={tmp_path / 'cache'}")
    sizes = (*SIZES, "dataset.task.pad_to=50")
    with stage(tmp_path / "run", *cached, *sizes, base=BASE) as built, pytest.raises(CacheError) as caught:
        train(built)
    assert "set dataset.task.pad_to to a side that no image exceeds" in str(caught.value)

"""Detectors through the whole program: their own losses, resumes, ranks, hints through the cache, split computing."""

import json

import pytest
import torch
from engine_fixtures import QUIET, changed, count_calls, equal, network, resolved, run, snapshot, stage, train
from ranks_fixtures import outcomes

from distill_app.models import Bottleneck
from distill_app.models.detectors import resizing
from distill_app.networks.network import start_from
from distill_app.runs.checkpoint import Checkpoints
from distill_app.runs.statefile import load_file
from distill_app.training import outcome as outcome_module
from distill_app.training.describe import stage_text
from distill_app.training.optimize import Optimization

BASE = (
    "dataset=fashion_det",
    "dataset.train.count=24",
    "dataset.test.count=8",
    "dataset.validation_fraction=0",
    "model@teacher=tiny_fasterrcnn",
    "model@student=tiny_fasterrcnn_8",
    "prelude=none",
    "teacher.allow_random=true",
    "stage=fashion_det",
    "stage.epochs=2",
)
SIZES = ("dataset.train.sides=[80,112]", "dataset.test.sides=[80,112]")
SLOW = pytest.mark.slow


@pytest.fixture(autouse=True, scope="module")
def no_plots():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outcome_module, "final_plot", lambda folder: folder)
        yield


@SLOW
def test_a_detectors_own_losses_are_terms_and_fall(tmp_path):
    weighted = "method.stages.train.losses.proposals.weight=2.0"
    with stage(tmp_path, "method=own_rcnn", weighted, "stage.epochs=4", base=BASE) as built:
        first = train(built)
        assert set(first) == {"objectness", "proposals", "classes", "boxes", "total"}
        parts = sum(first[name] for name in ("objectness", "classes", "boxes")) + 2 * first["proposals"]
        assert first["total"] == pytest.approx(parts, rel=1e-5)
        assert train(built, epochs=3, first=1)["total"] < 0.8 * first["total"]


@SLOW
@pytest.mark.parametrize("student", ["tiny_retinanet", "tiny_maskrcnn"])
def test_other_detectors_train_on_images_of_several_sizes(tmp_path, student):
    kinds = "dataset.task.kinds=[bbox,segm]" if student == "tiny_maskrcnn" else "dataset.task.kinds=[bbox]"
    with stage(tmp_path, "method=own", kinds, *SIZES, "stage.epochs=4", f"model@student={student}", base=BASE) as built:
        first, again = train(built)["total"], train(built, epochs=3, first=1)["total"]
        assert again < first
        figures = built.judge()
    assert figures["test_bbox_mAP"] is not None and ("test_segm_mAP" in figures) == (student == "tiny_maskrcnn")
    assert len([name for name in figures if name.startswith("test_bbox_")]) == 12


@SLOW
def test_weights_for_losses_that_a_network_does_not_give_are_refused(tmp_path):
    weights = "+method.stages.train.losses.own.loss.weights={loss_objectnes: 2.0}"
    text = refusal_of(tmp_path, "method=own", weights)
    assert "unknown loss 'loss_objectnes'; did you mean 'loss_objectness'" in text
    text = refusal_of(tmp_path, "method=own_rcnn", "model@student=tiny_retinanet")
    assert "nothing provides student.losses.loss_objectness" in text and "bbox_regression" in text


def refusal_of(folder, *overrides: str) -> str:
    with pytest.raises(ValueError) as caught, stage(folder, *overrides, base=BASE):
        pass
    return str(caught.value)


@SLOW
def test_teacher_and_student_see_the_same_pixels_in_training_and_their_own_sizes_in_an_evaluation(tmp_path):
    sizes = ("+student.net.min_size=64", "+student.net.max_size=64")
    with stage(tmp_path, "method=l2_fpn", *sizes, base=BASE) as built:
        seen: dict[str, list[tuple[int, ...]]] = {"student": [], "teacher": []}
        bodies = {name: network(built, name).backbone.body for name in seen}
        for name, body in bodies.items():
            body.register_forward_pre_hook(lambda module, args, name=name: seen[name].append(tuple(args[0].shape)))
        batch = built.prepare(next(iter(built.data.train)))
        built.step(batch, built.frozen.run(batch))
        # A frozen network runs in a folded copy: its maps say what it saw.
        assert seen["student"] == [(8, 3, 96, 96)]
        assert built.frozen.run(batch)["teacher"]["p2"].shape[-1] == 24
        seen["student"].clear()
        built.judge()
        assert {shape[-1] for shape in seen["student"]} == {64}


@SLOW
def test_an_interrupted_run_of_a_detector_goes_on_to_the_bit(tmp_path):
    run(tmp_path / "whole", "method=own", *SIZES, "runtime.num_workers=1", base=BASE)
    original, count = Optimization.step, iter(range(1, 100))

    def broken(self):
        if next(count) == 5:
            raise KeyboardInterrupt
        original(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Optimization, "step", broken)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "cut", "method=own", *SIZES, "runtime.num_workers=1", base=BASE)
    assert Checkpoints(tmp_path / "cut" / "checkpoints").has("last")
    resumed = run(tmp_path / "cut", "method=own", *SIZES, base=BASE)
    whole = json.loads((tmp_path / "whole" / "summary.json").read_text())
    assert equal(load_file(tmp_path / "cut" / "student.pt"), load_file(tmp_path / "whole" / "student.pt"))
    names = [metric["name"] for metric in whole["metrics"]]
    assert [resumed["rows"][0][name] for name in names] == [whole["rows"][0][name] for name in names]
    assert len(whole["rows"][0]["details"]["per_class"]) == 10 and whole["rows"][0]["details"]["images"] == 8


@SLOW
def test_two_ranks_judge_a_detector_as_one_process_does(tmp_path):
    trained = tmp_path / "teacher"
    run(trained, "method=own", "model@student=tiny_fasterrcnn", "stage.epochs=6", base=BASE)
    given = f"teacher.checkpoint={trained / 'student.pt'}"
    config = resolved("method=l2_fpn", given, "dataset.test.count=15", "stage.epochs=1", base=BASE)
    one, two = (outcomes(tmp_path, {"x": config}, ranks=ranks)["x"] for ranks in (1, 2))
    rows = [{row["network"]: row for row in each["records"] if row["kind"] == "test"} for each in (one, two)]
    for row in (row for each in rows for row in each.values()):
        del row["timing"]
    assert rows[0]["teacher"] == rows[1]["teacher"] and rows[0]["teacher"]["bbox_AR100"] > 0
    assert set(rows[0]) == set(rows[1]) == {"teacher", "student"}


@SLOW
def test_levels_of_a_pyramid_are_cached_where_all_images_have_one_size(tmp_path):
    cached = ("method=pkd_fpn", "cache.enabled=true", "cache.views=1", f"cache.folder={tmp_path / 'cache'}")
    with stage(tmp_path / "run", *cached, base=BASE) as built:
        first = train(built)
        calls = count_calls(built.frozen.tapped["teacher"])
        train(built, first=1)
        assert not calls and set(first) == {"own", "pkd_p2", "pkd_p3", "pkd_p4", "pkd_p5", "total"}
    text = refusal_of(tmp_path / "run", *cached, *SIZES)
    assert "images of several sizes" in text and "dataset.task.pad_to" in text
    with stage(tmp_path / "run", *cached, *SIZES, "dataset.task.pad_to=128", base=BASE) as built:
        train(built)
        calls = count_calls(built.frozen.tapped["teacher"])
        train(built, first=1)
        assert not calls and built.examples["teacher"]["p2"].shape[-2:] == (32, 32)
    text = refusal_of(tmp_path / "run", *cached, *SIZES, "dataset.task.pad_to=96")
    assert "px behind the transforms, larger than 96" in text
    shortest = "{_target_: torchvision.transforms.v2.RandomShortestSize, min_size: [64, 96, 128]}"
    text = refusal_of(tmp_path / "run", *cached, f"dataset.train_transform=[{shortest}]")
    assert "behind them sides go up to 128 px" in text and "dataset.task.pad_to" in text


@SLOW
def test_training_and_evaluation_at_other_scales_are_warned_of(tmp_path):
    with stage(tmp_path, "method=own", base=BASE) as built:
        assert built.warnings == []
    larger = "{_target_: torchvision.transforms.v2.Resize, size: [192, 192]}"
    with stage(tmp_path, "method=own", f"dataset.train_transform=[{larger}]", base=BASE) as built:
        (text,) = built.warnings
        assert "student is trained on images whose shorter side is 192 px" in text and "to 96 px itself" in text


HEADS = ("backbone.fpn", "rpn", "roi_heads")
TAIL = ("backbone.body.layer2", "backbone.body.layer3", "backbone.body.layer4", *HEADS)


@SLOW
@pytest.mark.parametrize(
    ("method", "detector", "last"), [("hnd", "tiny_fasterrcnn", "layer1"), ("ghnd", "tiny_maskrcnn", "layer4")]
)
def test_head_distillation_trains_stem_and_bottleneck_and_runs_no_head(method, detector, last, tmp_path):
    pair = (f"method={method}", f"model@teacher={detector}", "model@student=teacher_bottleneck")
    kinds = "dataset.task.kinds=[bbox,segm]" if "mask" in detector else "dataset.task.kinds=[bbox]"
    with stage(tmp_path, *pair, kinds, "stage.epochs=3", base=BASE) as built:
        module, teacher = network(built, "student"), network(built, "teacher")
        assert start_from(built.networks["student"], built.networks["teacher"])
        assert built.tapped["student"].stops_at == built.tapped["teacher"].stops_at == f"stage{last[-1]}"
        theirs, before = teacher.state_dict(), snapshot(module)
        new = {name for name in before if name.startswith("backbone.body.layer1.")}
        assert all(value.equal(theirs[name]) for name, value in before.items() if name not in new)
        assert len(new) == len(Bottleneck((1, 16, 8, 8), (1, 16, 4, 4)).state_dict())

        built.step.train()
        batches = [built.prepare(raw) for raw in built.data.train]
        built.step(batches[0], built.frozen.run(batches[0]))  # the first forward in full learns where to stop
        calls, of_teacher = count_calls(module), count_calls(built.frozen.tapped["teacher"].model)
        for number in range(7):
            batch = batches[number % len(batches)]
            total, _ = built.step(batch, built.frozen.run(batch))
            total.backward()
            built.optimization.step()
        for counted in (calls, of_teacher):
            assert counted["backbone.body.conv1"] == counted[f"backbone.body.{last}.conv1"] or last == "layer1"
            assert counted["backbone.body.conv1"] == 7
            assert not [name for name in counted if name.startswith(HEADS)]
            assert ("backbone.body.layer2.conv1" in counted) == (method == "ghnd")
        moved = changed(module, before)
        assert not [name for name in moved if name.startswith(TAIL)], "the tail is the teacher's, to the bit"
        assert "backbone.body.conv1.weight" in moved and new & moved
        assert not changed(teacher, theirs)
        assert built.judge()["test_bbox_mAP"] is not None
        assert "cut at backbone.body.layer1: (3, 28, 28) crosses" in stage_text(built)


@SLOW
def test_a_network_that_is_no_detector_is_told_so(errors_of):
    (text,) = errors_of(*BASE, *QUIET, "method=own", "model@student=plain_8_16", "+student.taps.losses=''")
    assert "a network of this stage cannot run on the batches of dataset: TypeError: PlainCNN.forward()" in text


def test_statistics_that_no_detector_would_normalise_by_are_refused(errors_of):
    (text,) = errors_of(*BASE, *QUIET, "method=own", "dataset.normalize.mean=[0.5,0.5,0.5]")
    assert text.startswith("dataset.normalize: has no effect, networks of Detection normalise images themselves")


def test_resizing_leaves_other_networks_alone():
    plain = torch.nn.Linear(2, 2)
    with resizing(plain, enabled=False, pad_to=64):
        assert plain(torch.zeros(1, 2)).shape == (1, 2)

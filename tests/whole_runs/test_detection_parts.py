"""Detectors that learn through parts of their teacher: the student's regions or features in the teacher's heads."""

import math

import pytest
import torch
from engine_fixtures import changed, count_calls, network, resolved, snapshot, stage, train
from ranks_fixtures import outcomes
from torchvision.models.detection import roi_heads

from distill_app.training import outcome as outcome_module
from distill_app.training.stage import Stage

BASE = (
    "dataset=fashion_det",
    "dataset.image_size=64",
    "dataset.train.count=8",
    "dataset.test.count=4",
    "dataset.validation_fraction=0",
    "prelude=none",
    "teacher.allow_random=true",
    "stage=fashion_det",
    "stage.batch_size=4",
    "stage.epochs=1",
)
RCNN = (*BASE, "model@teacher=tiny_fasterrcnn", "model@student=tiny_fasterrcnn_8")
RETINA = (*BASE, "model@teacher=tiny_retinanet", "model@student=tiny_retinanet_8")
METHODS = {"roi_kd": RCNN, "roi_dkd": RCNN, "roi_dist": RCNN, "crosskd": RETINA}
pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True, scope="module")
def no_plots():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outcome_module, "final_plot", lambda folder: folder)
        yield


def batch_of(built: Stage) -> dict:
    built.begin_epoch(0)
    built.begin_step(0, 0)
    return built.prepare(next(iter(built.data.train)))


@pytest.mark.parametrize(
    ("method", "precision"), [*((method, "fp32") for method in METHODS), ("roi_dkd", "bf16"), ("crosskd", "bf16")]
)
def test_terms_are_finite_and_reach_the_student_alone(tmp_path, method, precision):
    more = (f"method={method}", f"runtime.precision={precision}")
    with stage(tmp_path, *more, base=METHODS[method]) as built:
        teacher, student = network(built, "teacher"), network(built, "student")
        before, batch = snapshot(teacher), batch_of(built)
        _, values = built.step(batch, built.frozen.run(batch))
        own = values.pop("own")
        assert values and all(value.isfinite() for value in (own, *values.values())) and not built.warnings
        sum(values.values()).backward()
        assert all(parameter.grad is None for parameter in teacher.parameters()) and not changed(teacher, before)
        assert student.backbone.body.conv1.weight.grad.abs().sum() > 0
        assert not [name for name in built.step.state_dict() if name.startswith("adapters")]


def test_regions_of_the_student_go_through_the_teachers_head_and_have_the_labels_of_its_own_losses(
    tmp_path, monkeypatch
):
    seen, own = [], roi_heads.fastrcnn_loss

    def watched(logits, deltas, labels, targets):
        seen.append(torch.cat(labels))
        return own(logits, deltas, labels, targets)

    monkeypatch.setattr(roi_heads, "fastrcnn_loss", watched)
    with stage(tmp_path, "method=roi_dkd", base=RCNN) as built:
        given, kept = batch_of(built), {}
        for name in ("classes", "teacher_logits"):
            keep = lambda module, args, output, name=name: kept.update({name: (args[0], output)})  # noqa: E731
            built.step.adapters[name].register_forward_hook(keep)
        teacher, seen[:] = network(built, "teacher"), []
        said = built.frozen.run(given)  # the first time in full, to learn where to stop
        calls = count_calls(teacher)
        built.step(given, {**said, **built.frozen.run(given)})
        assert kept["classes"][1].equal(seen[-1]) and len(kept["teacher_logits"][1]) == len(seen[-1]) > 0
        assert (seen[-1] > 0).any() and (seen[-1] == 0).any()
        # The teacher's boxes are not made at all: its head runs as a part.
        assert not any(calls[name] for name in ("rpn.head.cls_logits", "roi_heads.box_predictor.bbox_pred"))
        assert built.tapped["teacher"].stops_at == "fpn"
        features, boxes, sizes = kept["teacher_logits"][0]
        heads = teacher.roi_heads
        pooled = heads.box_head(heads.box_roi_pool(features, boxes, sizes))
        torch.testing.assert_close(kept["teacher_logits"][1], heads.box_predictor(pooled)[0])


def test_features_of_the_student_go_through_what_is_left_of_the_teachers_head(tmp_path):
    with stage(tmp_path, "method=crosskd", "method.stages.distill.losses.own=null", base=RETINA) as built:
        student = network(built, "student")
        batch = batch_of(built)
        total, _ = built.step(batch, built.frozen.run(batch))
        total.backward()
        heads = student.head.classification_head, student.head.regression_head
        trained = [[conv[0].weight.grad is not None for conv in head.conv] for head in heads]
        assert trained == [[True, True, True, False]] * 2, (
            "the last one and the outputs learn from its own losses alone"
        )
        matches = built.step.adapters["matches"]([built.examples["student"]["anchors"], _targets(built)])
        assert {int(value) for value in matches.unique()} >= {-2, -1, 0}


def _targets(built: Stage) -> list:
    return built.examples["student"]["transformed"][1]


def test_a_network_without_such_a_head_is_told_so(errors_of):
    retina = [each for each in RETINA if "student" not in each]
    (text, *_) = errors_of("method=crosskd", *retina, "model@student=tiny_fasterrcnn_8")
    assert "unknown tap 'cls_hidden'" in text
    other = "+student.net.fpn=32"
    errors = errors_of("method=crosskd", *RETINA, other)
    assert any("MatchStatistics needs maps" in text and "same channels" in text for text in errors)


@pytest.mark.parametrize(("method", "stored"), [("roi_kd", "fpn.0"), ("crosskd", "cls_hidden.2")])
def test_nested_taps_are_cached_and_the_teacher_runs_once_but_for_its_parts(tmp_path, method, stored):
    cached = ("cache.enabled=true", "cache.views=1", f"cache.folder={tmp_path / 'cache'}")
    losses = []
    for more in ((), cached):
        plain = ("dataset.train_transform=[]", "stage.epochs=2", *more)
        with stage(tmp_path / "run", f"method={method}", *plain, base=METHODS[method]) as built:
            first, calls = train(built), count_calls(built.frozen.tapped["teacher"])
            losses.append([first, train(built, first=1)])
            assert any("backbone" in name for name in calls) == (not more)
    for plain, replayed in zip(*losses, strict=True):
        assert replayed == {name: pytest.approx(value, rel=0.02, abs=1e-3) for name, value in plain.items()}
    assert [path.name for path in (tmp_path / "cache").glob("*/*") if path.name.startswith(f"{stored}-")]


def test_regions_cannot_be_cached_and_the_check_says_so(tmp_path, errors_of):
    cached = ("cache.enabled=true", "cache.views=1", f"cache.folder={tmp_path / 'cache'}")
    inputs = "method.stages.distill.losses.pkd.inputs"
    for tap, told in (
        ("box_features", "its rows are regions, of which a network proposes as many as it finds"),
        ("losses", "cannot be cached: "),
    ):
        read = f"{inputs}={{student: teacher.{tap}, teacher: teacher.{tap}}}"
        errors = errors_of("method=pkd_fpn", *RCNN, *cached, read)
        assert any(told in text for text in errors), errors


def test_two_ranks_train_through_a_part_with_regions_of_their_own_and_leave_the_bare_student(tmp_path):
    short = ("runtime.compare_ranks_every=1", "runtime.max_steps_per_epoch=1")
    found = outcomes(tmp_path, {"x": resolved("method=roi_dist", *short, base=RCNN)}, ranks=2)["x"]
    losses = [record["losses"]["dist"] for record in found["records"] if "losses" in record]
    assert losses and all(math.isfinite(loss) for loss in losses)
    with stage(tmp_path / "other", "method=own", base=RCNN) as built:
        network(built, "student").load_state_dict(found["weights"]["student.pt"])

"""What tasks of a user's own may do, and what of them is refused before anything trains."""

import pytest
import torch
from engine_fixtures import refusal, stage, train

ALLOW = "runtime.allow=[task_fixtures]"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("raises", "Faulty cannot judge an answer (2, 10) and a target (2,): KeyError: 'weights'"),
        ("undescribed", "Faulty.figures gives f1, and Faulty.metrics describes accuracy, top5, loss, agreement"),
        ("leading", "Faulty.figures does not give accuracy, by which epochs are judged"),
        ("twice", "Faulty.metrics has a name twice"),
        ("reserved", "seconds is something else in a table"),
    ],
)
def test_an_evaluation_that_would_fail_after_training_fails_before(errors_of, tiny, fault, told):
    task = ("dataset.task._target_=task_fixtures.Faulty", f"+dataset.task.fault={fault}")
    (error,) = errors_of(*tiny, "prelude=none", ALLOW, *task)
    assert error.startswith("dataset.task: ") and told in error


def test_a_sound_task_of_one_s_own_passes(errors_of, tiny):
    task = ("dataset.task._target_=task_fixtures.Faulty", "+dataset.task.fault=none")
    assert errors_of(*tiny, "prelude=none", ALLOW, *task) == []


def test_what_is_no_task_is_refused(errors_of, tiny):
    (error,) = errors_of(*tiny, "prelude=none", ALLOW, "dataset.task={_target_: task_fixtures.NoTask}")
    assert error == "dataset.task: NoTask is no task; derive it from distill_app.tasks.Task"


@pytest.mark.slow
def test_a_network_of_which_nobody_says_what_answers_is_refused_by_the_check(errors_of, tiny):
    net = ("student.net._target_=task_fixtures.Net", "~student.net.widths", "+student.net.style=features_first")
    overrides = (*tiny, "prelude=none", "method=ce", ALLOW, *net, "student.taps.stem=fc", "~student.taps.logits")
    wired = "method.stages.train.losses.ce.inputs.input=student.stem"
    (error,) = errors_of(*overrides, wired)
    assert "student.taps: the network returns 2 tensors" in error and "'+student.taps.logits=PATH'" in error
    assert errors_of(*overrides, wired, "+student.taps.logits=fc") == []


def test_joint_transforms_see_and_change_the_target(tmp_path):
    overrides = (ALLOW, "dataset.task._target_=task_fixtures.Joint", "dataset.student_labels_per_class=2")
    with stage(tmp_path, *overrides, "dataset.train_transform=[{_target_: task_fixtures.Turned}]") as built:
        raw = next(iter(built.data.train))
        targets = torch.tensor(built.data.train.dataset.dataset.targets)[raw["index"]]
        assert raw["target"].equal((targets + 1) % 10)
        judged = next(iter(built.data.judge))
        assert judged["target"].equal(torch.tensor(built.data.judge.dataset.dataset.targets)[judged["index"]])
        assert "the task makes every sample" in built.data.train.how
        assert train(built)["total"] > 0


def test_joint_transforms_return_both(tmp_path):
    overrides = (ALLOW, "dataset.task._target_=task_fixtures.Joint", "dataset.resident=false")
    text = refusal(tmp_path, *overrides, "dataset.train_transform=[{_target_: task_fixtures.ImageAlone}]")
    assert "is called with (input, target), as the task has joint_transforms, and must return both" in text


@pytest.mark.slow
@pytest.mark.parametrize("labels", ["null", "3"])
def test_samples_without_a_single_label_have_no_budget_and_can_be_split(tmp_path, labels):
    overrides = ("dataset=fake_multilabel", "method=multilabel_kd", f"dataset.student_labels_per_class={labels}")
    if labels == "null":
        with stage(tmp_path, *overrides, "dataset.image_size=8") as built:
            assert built.data.labels is None and built.data.judged_on == "validation"
            assert built.data.identity["validation"] == 51 and built.data.identity["label_counts"] is None
        return
    text = refusal(tmp_path, *overrides)
    assert text.startswith("dataset.student_labels_per_class: 3 was given, but samples of fake_multilabel have no")

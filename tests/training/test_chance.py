"""A stage does not learn from a network whose weights are chance, unless that is asked for."""

import json

import pytest
import torch
from engine_fixtures import resolved, run
from torch import nn

from distill_app.config.planning import plan_stages
from distill_app.config.schema import to_app
from distill_app.models import PlainCNN
from distill_app.training.chance import random_errors
from distill_app.training.experiment import Experiment

ALONE = ("dataset=digits", "stage=digits", "model@teacher=plain_8_16", "model@student=plain_8_16", "prelude=none")


def errors(*overrides: str, **nets) -> list[str]:
    """What is refused; `nets` are other constructors by network, with their taps as they were."""
    app = to_app(resolved(*overrides, base=ALONE))
    for name, kind in nets.items():
        getattr(app, name).net = {"_target_": f"{__name__}.{kind.__name__}"}
    app.runtime.allow = [__name__]
    plans, wrong = plan_stages(app)
    assert not wrong
    with Experiment(app, plans) as experiment:
        return random_errors(experiment)


class Loads(PlainCNN):
    """Comes with weights."""

    def __init__(self) -> None:
        super().__init__([8, 16], num_classes=10)
        self.load_state_dict(PlainCNN([8, 16], num_classes=10).state_dict())


class LoadsABody(PlainCNN):
    """Comes with weights but for its classifier."""

    def __init__(self) -> None:
        super().__init__([8, 16], num_classes=7)
        self.load_state_dict(PlainCNN([8, 16], num_classes=7).state_dict())
        self.fc = nn.Linear(16, 10)


class Fixed(nn.Module):
    """Has nothing to learn."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Identity()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(images.flatten(1)[:, :10])


@pytest.mark.slow
def test_a_random_teacher_is_an_error_that_says_what_to_type():
    (error,) = errors()
    assert error.startswith("teacher: its weights are random")
    for typed in ("prelude=teacher", "teacher.checkpoint=FILE", "teacher.allow_random=true"):
        assert typed in error
    assert errors("teacher.allow_random=true") == []


def test_weights_of_torchvision_are_proposed_for_its_networks_only():
    assert "weights=NAME" not in errors()[0]
    assert "teacher.weights=NAME" in errors("model@teacher=mobilenet_v3_small")[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides", [["prelude=teacher"], ["prelude=comparison"], ["method=ce"], ["method=tfkd_self"]]
)
def test_a_teacher_that_a_stage_trains_first_or_none_reads_passes(overrides):
    assert errors(*overrides) == []


@pytest.mark.slow
def test_a_file_a_constructor_and_nothing_to_learn_pass(tmp_path):
    torch.save(PlainCNN([8, 16], num_classes=10).state_dict(), tmp_path / "net.pt")
    assert errors(f"teacher.checkpoint={tmp_path / 'net.pt'}") == []
    assert errors(teacher=Loads) == []
    assert errors(teacher=Fixed) == []


@pytest.mark.slow
def test_an_assistant_is_trained_by_a_stage_of_its_own_and_its_teacher_by_none():
    (error,) = errors("method=takd")
    assert error.startswith("teacher: its weights are random") and "stage 'assist'" in error


def test_another_network_is_told_by_its_key():
    found = errors("method=takd", "method.schedule=[distill]", "prelude=teacher")
    assert [error.split(":")[0] for error in found] == ["method.extra_models.assistant"]


@pytest.mark.slow
def test_a_network_that_starts_from_another_one_has_its_weights(tmp_path):
    torch.save(PlainCNN([8, 16], num_classes=10).state_dict(), tmp_path / "net.pt")
    start = "+method.stages.distill.init_from={teacher: student}"
    assert len(errors(start)) == 1
    assert errors(start, f"student.checkpoint={tmp_path / 'net.pt'}") == []


@pytest.mark.slow
def test_a_random_classifier_is_warned_of_where_its_logits_are_read(caplog):
    assert errors("prelude=teacher", teacher=LoadsABody) == []
    (error,) = caplog.messages
    assert error.startswith("teacher: its classifier fc is random") and "learns from teacher.logits" in error
    assert "prelude.stages.teacher.skip_if_loaded=false trains it first" in error
    assert errors("prelude=teacher", "prelude.stages.teacher.skip_if_loaded=false", teacher=LoadsABody) == []
    assert errors("teacher.allow_random=true", teacher=LoadsABody) == []
    assert errors("method=at", teacher=LoadsABody) == []


@pytest.mark.slow
def test_the_prelude_does_not_train_a_teacher_that_came_with_weights(tmp_path):
    torch.save(PlainCNN([32, 64, 128], num_classes=10).state_dict(), tmp_path / "net.pt")
    file = f"teacher.checkpoint={tmp_path / 'net.pt'}"
    summary = run(tmp_path / "run", "prelude=teacher", "debug=one_batch", file)
    assert list(summary["stages"]) == ["distill"]
    assert summary["origins"] == {"teacher": f"checkpoint {tmp_path / 'net.pt'}", "student": "random initialisation"}
    assert "stage teacher: skipped, teacher came with weights" in (tmp_path / "run/train.log").read_text()
    assert json.loads((tmp_path / "run/summary.json").read_text())["origins"] == summary["origins"]


@pytest.mark.slow
def test_an_optional_file_that_is_not_there_is_told_as_a_warning(tmp_path, capsys):
    absent = ("teacher.checkpoint=no/such.pt", "teacher.checkpoint_optional=true")
    run(tmp_path, "prelude=teacher", "debug=one_batch", *absent)
    warning = "warning: teacher.checkpoint: there is no file no/such.pt; instead: random initialisation"
    assert warning in capsys.readouterr().err

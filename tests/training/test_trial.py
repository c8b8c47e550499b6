"""What assembling every stage on trial finds before the first batch, and what it warns of."""

from collections import Counter
from contextlib import closing

import pytest
import torch
from engine_fixtures import metrics, network, run, runner, stage, train
from torch import nn

from distill_app.api import run as run_config
from distill_app.check.quick import check
from distill_app.config.tree import compose
from distill_app.data import BundledImages
from distill_app.models import PlainCNN
from distill_app.training.describe import stage_text
from distill_app.training.optimize import parameter_groups
from distill_app.training.preflight import refuse_what_does_not_fit
from distill_app.training.stage import Stage

TINY = ("dataset=digits", "stage=digits", "model@teacher=plain_32_64_128", "model@student=plain_8_16", "prelude=none")
TINY = (*TINY, "teacher.allow_random=true")
SCHEDULERS = "torch.optim.lr_scheduler"
DISTILL = "method.stages.distill"


def errors_of(*overrides: str) -> list[str]:
    return list(check(compose([*TINY, *overrides])))


def own(name: str) -> tuple[str, ...]:
    """A student of the tests' own."""
    return "runtime.allow=[net_fixtures]", f"student.net._target_=net_fixtures.{name}", "~student.net.widths"


# Terms that teach nothing


def test_a_term_without_value_and_gradient_is_warned_of_with_the_reason(tmp_path):
    with stage(tmp_path, "+loss@method.stages.distill.losses.at=attention_transfer") as built:
        (warning,) = built.warnings
        assert warning.startswith("term at teaches nothing") and "maps are of 1 x 1" in warning


@pytest.mark.slow
def test_the_warning_stands_in_the_log_of_the_run(tmp_path):
    run(tmp_path, "+loss@method.stages.distill.losses.at=attention_transfer", "stage.epochs=1")
    assert "WARNING warning: stage distill: term at teaches nothing" in (tmp_path / "train.log").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["kd", "rkd", "spkd"])
def test_terms_that_teach_are_not_warned_of(tmp_path, method):
    with stage(tmp_path, f"method={method}") as built:
        assert built.warnings == []


def test_a_term_on_what_no_gradient_reaches_is_warned_of(tmp_path):
    term = {
        "loss": {"_target_": "torch.nn.MSELoss"},
        "inputs": {"input": "teacher.logits", "target": "teacher.logits"},
        "weight": 1.0,
    }
    with stage(tmp_path, distill={"losses": {"idle": term}}) as built:
        assert built.warnings == [
            "term idle teaches nothing: its value and gradient are exactly zero on the first images, since both of its "
            "inputs are the same"
        ]


# Networks that did not pass the check on shapes alone


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SeveralOutputs", "LooksAtValues"])
def test_networks_with_several_outputs_in_training_or_that_look_at_values_pass_and_train(name, tmp_path):
    assert errors_of(*own(name)) == []
    run(tmp_path, *own(name), "stage.epochs=1")
    assert metrics(tmp_path)[-1]["kind"] == "test"


def test_what_fails_in_train_mode_alone_is_found_by_the_check():
    (error,) = errors_of(*own("FailsInTraining"))
    assert error.startswith(f"{DISTILL}: a network of this stage cannot run") and "not while training" in error


def test_a_network_of_other_channels_is_told_what_the_images_have():
    (error,) = errors_of(*own("OneChannel"))
    assert "cannot run on images of 3 channels and 8 px" in error and "1 channels" in error


def test_a_mistake_in_code_that_is_no_network_keeps_its_traceback_and_says_when_it_happened(monkeypatch):
    def mistaken(*_: object, **__: object) -> None:
        raise AttributeError("a mistake")

    monkeypatch.setattr("distill_app.training.stage.DataWait", mistaken)
    with pytest.raises(AttributeError, match="a mistake") as raised:
        errors_of("stage.epochs=1")
    assert raised.value.__notes__ == ["while stage 'distill' was assembled on trial, on its first images"]


# Schedules


@pytest.mark.slow
def test_a_stage_too_short_for_its_schedule_is_told_by_the_check():
    (error,) = errors_of("stage.batch_size=20", "stage.epochs=1")
    assert error.startswith("stage.scheduler.schedule: stage 'distill' has 5 steps for it")
    assert "more epochs" in error and "scheduler@stage.scheduler=constant" in error


def test_a_one_cycle_that_would_end_in_mid_training_is_told_by_the_check():
    (error,) = errors_of("+stage.scheduler.schedule.total_steps=50")
    assert error.startswith("stage.scheduler.schedule.total_steps: 50 steps are fewer than there are")


PLATEAU = (
    "scheduler@stage.scheduler=constant",
    f"stage.scheduler.schedule={{_target_: {SCHEDULERS}.ReduceLROnPlateau, _partial_: true, patience: 0, factor: 0.5}}",
)


def test_a_schedule_that_looks_at_values_follows_what_epochs_reach(tmp_path):
    with stage(tmp_path, *PLATEAU) as built:
        rates = []
        for loss in (0.6, 0.5, 0.5, 0.6):
            built.optimization.end_epoch(value=0.0, loss=loss)
            rates.append(built.optimization.lr)
        assert rates == pytest.approx([rates[0], rates[0], rates[0] / 2, rates[0] / 4])


@pytest.mark.slow
def test_it_lowers_the_rate_in_a_run_and_cannot_follow_a_warm_up_or_count_steps(tmp_path):
    demanding = "+stage.scheduler.schedule.threshold=10"  # no epoch is better than the one before
    run(tmp_path, *PLATEAU, demanding, "stage.epochs=3")
    rates = [record["lr"] for record in metrics(tmp_path) if record["kind"] == "step"]
    assert rates[-1] < rates[0]
    (error,) = errors_of(*PLATEAU, "stage.warmup_epochs=1")
    assert error.startswith(f"{DISTILL}.warmup_epochs: ReduceLROnPlateau cannot follow a warm-up")
    (error,) = errors_of(*PLATEAU, "stage.scheduler.interval=step")
    assert error.startswith("stage.scheduler.interval: ReduceLROnPlateau looks at epochs")


# Lists of numbers, taps, norms


def test_class_weights_are_given_as_a_list(tmp_path):
    weights = [1, 1, 5, 1, 1, 1, 1, 1, 1, 0.5]
    with stage(tmp_path, f"+{DISTILL}.losses.ce.loss.weight={weights}") as built:
        assert built.step.losses["ce"].weight.tolist() == weights


def test_lists_stay_lists_where_numbers_are_wanted(tmp_path):
    with stage(tmp_path, "optimizer@stage.optimizer=adam") as built:
        assert built.optimization.optimizer.param_groups[0]["betas"] == (0.9, 0.999)
        assert all(type(beta) is float for beta in built.optimization.optimizer.param_groups[0]["betas"])


class Overwriting(nn.Module):
    """A term whose forward runs and whose backward does not."""

    def forward(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        probabilities = student.exp()
        probabilities.mul_(2.0)
        return (probabilities - teacher).pow(2).mean()


def test_a_term_without_a_gradient_is_told_by_the_check():
    term = f"{DISTILL}.losses.kd.loss"
    line = (f"{term}._target_={__name__}.Overwriting", f"~{term}.temperature", f"runtime.allow=[{__name__}]")
    (error,) = errors_of("method=kd", *line)
    assert error.startswith(f"{DISTILL}.losses.kd: its gradient cannot be computed: RuntimeError: one of the variables")


def test_too_few_class_weights_are_told_by_the_check():
    (error,) = errors_of(f"+{DISTILL}.losses.ce.loss.weight=[1,1,5]")
    assert error.startswith(f"{DISTILL}.losses.ce: CrossEntropyLoss cannot take")


@pytest.mark.slow
def test_taps_name_modules_wherever_modules_can_be_named(tmp_path):
    scales = "{student.stage1: 0.1, student.logits: 3.0, student.features.0.0.weight: 0.5}"
    with stage(tmp_path, f"+stage.lr_scales={scales}", "scheduler@stage.scheduler=constant") as built:
        student = network(built, "student")
        rate_of = {p: g["lr"] / 0.2 for g in built.optimization.optimizer.param_groups for p in g["params"]}
        assert rate_of[student.fc.weight] == rate_of[student.fc.bias] == pytest.approx(3.0)
        assert rate_of[student.features[0][0].weight] == pytest.approx(0.5), "the narrowest entry wins"
        assert rate_of[student.features[0][1].weight] == pytest.approx(0.1)
        assert rate_of[student.features[1][0].weight] == pytest.approx(1.0)
    (error,) = errors_of("+stage.lr_scales={student.stage9: 0.1}")
    assert "lr_scales: nothing that is trained is called ['student.stage9']" in error


@pytest.mark.slow
def test_a_redesign_may_name_taps(tmp_path):
    entries = "[stage2, stage3, stage4, {_target_: torch.nn.AdaptiveAvgPool2d, output_size: 1}, "
    redesign = f"+{DISTILL}.redesign={{teacher: {entries}{{_target_: torch.nn.Flatten}}, logits]}}"
    with stage(tmp_path / "whole") as built:
        batch = built.example_batch(4)
        expected = built.frozen.run(batch)["teacher"]["logits"]
    with stage(tmp_path / "cut", redesign) as built:
        torch.testing.assert_close(built.frozen.run(batch)["teacher"]["logits"], expected)


def test_norms_of_every_kind_are_left_out_of_weight_decay(tmp_path):
    with stage(tmp_path, *own("RMSNormed"), "stage.decay_norm_and_bias=false") as built:
        student = network(built, "student")
        groups = parameter_groups(built.step, built.plan, networks=built.networks, lr=0.1)
        plain = {p for group in groups if group.get("weight_decay") == 0.0 for p in group["params"]}
        assert student.norm.weight in plain and student.fc.bias in plain and student.fc.weight not in plain
        assert isinstance(student.norm, nn.RMSNorm)


# Once each


def test_a_run_with_a_prelude_builds_each_network_and_each_data_set_once(tmp_path, monkeypatch):
    built = Counter()
    for kind in (PlainCNN, BundledImages):

        def counting(self, *arguments, kind=kind, init=kind.__init__, **more):
            built[kind.__name__] += 1
            init(self, *arguments, **more)

        monkeypatch.setattr(kind, "__init__", counting)
    overrides = [*TINY[:-1], "prelude=comparison", "runtime.max_epochs=1", "runtime.max_steps_per_epoch=1"]
    run_config(compose([*overrides, "tracker=none"]), output_dir=str(tmp_path))
    assert built == {"PlainCNN": 3, "BundledImages": 2}, "teacher, baseline, student; training and test images"


@pytest.mark.slow
def test_the_plan_says_the_rate_that_is_used_what_changes_it_and_where_weights_come_from(tmp_path):
    overrides = ("stage.reference_batch_size=32", "stage.lr=0.1", "stage.warmup_epochs=1", "prelude=comparison")
    with runner(tmp_path, *overrides) as made, closing(Stage(made.plans[-1], made.experiment)) as built:
        text = stage_text(built)
    assert "lr 0.2 = 0.1 x 64 / 32, OneCycleLR by step after 1 epochs of warm-up" in text
    assert "network teacher: frozen, from stage teacher" in text
    assert "network student: trained, random initialisation" in text


@pytest.mark.slow
def test_training_is_the_same_as_without_a_trial(tmp_path):
    """The trial leaves no trace in networks, data or random numbers."""
    losses = []
    for trial in (False, True):
        with runner(tmp_path / str(trial), "method=fitnet") as made:
            if trial:
                refuse_what_does_not_fit(made.experiment, made.plans)
            built = Stage(made.plans[0], made.experiment)
            built.tracker = made.tracker
            losses.append(train(built, epochs=2))
            built.close()
    assert losses[0] == losses[1]


def test_gradient_norms_that_no_log_point_would_show_are_an_error():
    (error,) = errors_of("runtime.gradient_norms_every=7", "runtime.log_every=5")
    assert error.startswith("runtime.gradient_norms_every: the log speaks every 5 steps")

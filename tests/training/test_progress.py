"""Where a run is: what a checkpoint stores of it, what counts as over, and what a resume builds."""

import re
from contextlib import closing

import pytest
import torch
from engine_fixtures import run, runner, stage, train

from distill_app.errors import CheckpointError
from distill_app.runs.checkpoint import Checkpoints
from distill_app.runs.journal import Journal
from distill_app.runs.statefile import load_file
from distill_app.training import runner as runner_module
from distill_app.training.progress import Progress
from distill_app.training.stage import Stage


def plan_of(tmp_path, *overrides):
    with runner(tmp_path, *overrides) as made:
        return made.plans[0]


def test_epochs_are_taken_up_and_the_best_is_the_first_of_equals():
    progress = Progress()
    progress.begin("distill")
    for value, is_best in ((0.2, True), (0.5, True), (0.5, False), (0.1, False)):
        progress.add({"total": torch.tensor(1.0)})
        progress.end_epoch(value)
        assert progress.epoch_is_best == is_best
    assert (progress.epoch, progress.step, progress.sums) == (4, 0, {})
    assert (progress.best, progress.best_epoch, progress.last) == (0.5, 1, 0.1)


def test_losses_are_summed_over_the_steps_of_an_epoch():
    progress = Progress("distill")
    for value in (1.0, 2.5):
        progress.add({"total": torch.tensor(value), "ce": torch.tensor(1.0)})
    assert progress.step == 2 and {k: float(v) for k, v in progress.sums.items()} == {"total": 3.5, "ce": 2.0}


def test_a_stage_is_over_after_its_epochs_or_when_patience_ends(tmp_path):
    plan = plan_of(tmp_path, "stage.epochs=9", "stage.patience=2")
    progress = Progress("distill")
    ends = []
    for value in (0.1, 0.3, 0.2, 0.3):
        progress.end_epoch(value)
        ends.append(progress.has_ended(plan))
    assert ends == [False, False, False, True], "two epochs behind the best one"
    progress.end(plan)
    assert progress.has_ended(plan) and progress.stage is None and progress.done["distill"]["epochs"] == 4


def test_epochs_are_judged_now_and_then_and_the_last_one_always(tmp_path):
    plan = plan_of(tmp_path, "stage.epochs=8", "stage.judge_every=3", "stage.patience=4")
    progress, judged = Progress("distill"), []
    while not progress.has_ended(plan):
        due = progress.judges(plan)
        judged += [progress.epoch + 1] if due else []
        progress.end_epoch(0.5 if due else None)
    assert judged == [3, 6, 7] and (progress.best_epoch, progress.last) == (2, 0.5), "patience ends with a judged epoch"
    plan = plan_of(tmp_path, "stage.epochs=2")
    assert [Progress("distill", epoch=epoch).judges(plan) for epoch in (0, 1)] == [True, True]


@pytest.mark.slow
def test_epochs_that_are_not_judged_are_not_the_best_and_have_no_figures(tmp_path):
    plateau = "{_target_: torch.optim.lr_scheduler.ReduceLROnPlateau, _partial_: true, mode: max, patience: 0}"
    every = (
        "stage.epochs=5",
        "stage.judge_every=2",
        "stage.select=best",
        "scheduler@stage.scheduler=constant",
        f"+stage.scheduler.schedule={plateau}",
    )
    summary = run(tmp_path, "method=ce", *every)
    records = Journal.read(tmp_path / "metrics.jsonl").records
    metrics = [record["metrics"] for record in records if record["kind"] == "epoch"]
    assert ["validation_accuracy" in each for each in metrics] == [False, True, False, True, True]
    assert summary["objective"] == max(each.get("validation_accuracy", 0) for each in metrics)


def test_a_state_comes_back_and_one_of_another_version_is_refused():
    progress = Progress("distill", epoch=3, step=2, best=0.5, done={"hint": {"seconds": 1.0}})
    assert Progress.of(progress.state()) == progress
    with pytest.raises(CheckpointError, match="another version"):
        Progress.of({"stage": "distill", "epoch": 3})


@pytest.mark.slow
def test_patience_ends_a_run_early_and_says_so(tmp_path):
    summary = run(tmp_path, "method=ce", "stage.lr=0.0000001", "stage.epochs=9", "stage.patience=2")
    assert next(iter(summary["stages"].values()))["epochs"] < 9
    assert re.search(r"ends after epoch \d, no better one since \d", (tmp_path / "train.log").read_text())


def interrupted(monkeypatch, tmp_path, *overrides, at: str):
    """A run that breaks off when it begins a stage; the stages that are built from then on."""
    begin = runner_module.StageRunner.begin

    def broken(self, stage, state):
        if stage.plan.name == at:
            raise KeyboardInterrupt
        begin(self, stage, state)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(runner_module.StageRunner, "begin", broken)
        run(tmp_path, *overrides)
    built, init = [], Stage.__init__

    def noting(self, plan, experiment):
        built.append(plan.name)
        init(self, plan, experiment)

    monkeypatch.setattr(Stage, "__init__", noting)
    return built


@pytest.mark.slow
def test_a_resume_builds_no_stage_that_is_over_and_ends_the_same(tmp_path, monkeypatch):
    whole = run(tmp_path / "whole", "method=fitnet")
    built = interrupted(monkeypatch, tmp_path / "broken", "method=fitnet", at="distill")
    summary = run(tmp_path / "broken", "method=fitnet")
    assert set(built) == {"distill"}
    expected, found = (load_file(tmp_path / name / "student.pt") for name in ("whole", "broken"))
    assert all(found[name].equal(value) for name, value in expected.items())
    assert [row["accuracy"] for row in summary["rows"]] == [row["accuracy"] for row in whole["rows"]]


@pytest.mark.slow
def test_what_a_later_stage_reads_of_one_that_is_over_lives_on_with_what_it_learnt(tmp_path, monkeypatch):
    whole = tmp_path / "whole"
    run(whole, "method=ft")
    built = interrupted(monkeypatch, tmp_path / "broken", "method=ft", at="distill")
    run(tmp_path / "broken", "method=ft")
    assert set(built) == {"distill"}
    expected, found = (
        Checkpoints(folder / "checkpoints").load("last")["parts"]["adapters"] for folder in (whole, tmp_path / "broken")
    )
    assert expected.keys() == found.keys() and expected
    for name, state in expected.items():
        assert all(found[name][key].equal(value) for key, value in state.items()), name


@pytest.mark.slow
def test_what_no_later_stage_reads_is_given_up(tmp_path):
    with runner(tmp_path, "method=fitnet") as made:
        parts = made.experiment.parts
        with closing(Stage(made.plans[0], made.experiment)):
            assert "regressor" in parts.adapters and "hint" in parts.losses
        parts.forget(plans=made.plans[1:])
        assert "regressor" not in parts.adapters and "hint" not in parts.losses


# Frozen networks in checkpoints


@pytest.mark.slow
def test_a_frozen_network_is_a_hash_in_checkpoints_and_another_one_is_refused(tmp_path):
    run(tmp_path, "stage.epochs=1")
    parts = Checkpoints(tmp_path / "checkpoints").load("last")["parts"]
    assert set(parts["networks"]) == {"student"} and set(parts["frozen"]) == {"teacher"}
    with runner(tmp_path / "other") as made:
        made.experiment.parts.load(parts)
        with torch.no_grad():
            next(made.experiment.network("teacher").module.parameters()).add_(1.0)
        with pytest.raises(CheckpointError, match="the weights of 'teacher' are not those that the run began with"):
            made.experiment.parts.load(parts)


# Averages of weights


@pytest.mark.slow
def test_an_average_of_weights_is_judged_tested_and_saved_beside_the_network(tmp_path):
    summary = run(tmp_path, "method=ce", "stage.ema.decay=0.5", "stage.epochs=2")
    assert {row["network"] for row in summary["rows"]} == {"student", "student_ema"}
    raw, average = (load_file(tmp_path / summary["files"][name]) for name in ("student", "student_ema"))
    assert raw.keys() == average.keys(), "a plain state dict of the architecture"
    assert any(not average[name].equal(value) for name, value in raw.items())
    assert "student_ema_validation_accuracy" in (tmp_path / "metrics.jsonl").read_text()


def test_an_average_follows_its_formula_and_has_no_hooks(tmp_path):
    with stage(tmp_path, "method=ce", "stage.ema.decay=0.9") as built:
        weight, average = built.networks["student"].module.fc.weight, built.averages["student"].module
        seen = []
        built.after_step.append(lambda *arguments: seen.append(weight.detach().clone()))
        train(built, epochs=2)
        expected = seen[0]
        for value in seen[1:]:
            expected = 0.9 * expected + 0.1 * value
        torch.testing.assert_close(average.fc.weight, expected)
        assert not any(part._forward_hooks for part in average.modules())


@pytest.mark.slow
def test_an_average_goes_on_after_an_interruption(tmp_path, monkeypatch):
    overrides = ("method=ce", "stage.ema.decay=0.9", "stage.epochs=3")
    run(tmp_path / "whole", *overrides)
    save = runner_module.StageRunner.save

    def broken(self, stage):
        save(self, stage)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(runner_module.StageRunner, "save", broken)
        run(tmp_path / "broken", *overrides)
    run(tmp_path / "broken", *overrides)
    expected, found = (load_file(tmp_path / name / "student_ema.pt") for name in ("whole", "broken"))
    assert all(found[name].equal(value) for name, value in expected.items())


# Gradient norms


@pytest.mark.slow
def test_gradient_norms_of_each_weighted_term_are_logged_on_request(tmp_path):
    with stage(tmp_path, "runtime.gradient_norms_every=1") as built:
        recorded = []
        built.tracker.step = lambda **values: recorded.append(values["gradient_norms"])
        train(built)
        parameters = [parameter for parameter in built.step.parameters() if parameter.requires_grad]
        assert all(norms.keys() == {"ce", "kd"} and min(norms.values()) > 0 for norms in recorded)
        # The last ones are of the weights that the epoch ended with, on its last batch.
        built.begin_epoch(0)
        batch = built.prepare(list(built.data.train)[-1])
        _, values = built.step(batch, built.frozen.activations(batch))
        gradients = torch.autograd.grad(0.5 * values["ce"], parameters, allow_unused=True)
        expected = torch.stack([g.norm() for g in gradients if g is not None]).norm()
        assert recorded[-1]["ce"] == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.slow
def test_looking_at_gradients_changes_no_weight(tmp_path):
    states = []
    for every in ("null", "1"):
        with stage(tmp_path / every, f"runtime.gradient_norms_every={every}") as built:
            train(built)
            states.append(built.networks["student"].module.state_dict())
    assert all(states[0][name].equal(value) for name, value in states[1].items())


# All that a stage trains


@pytest.mark.slow
def test_every_network_that_a_stage_trains_is_judged_named_and_saved(tmp_path):
    peer = "+model@extra_models.peer=plain_8_16"
    term = {
        "loss": {"_target_": "torch.nn.CrossEntropyLoss"},
        "inputs": {"input": "peer.logits", "target": "batch.target"},
        "weight": 1.0,
    }
    overrides = ("method=kd", peer, "method.stages.distill.train=[student,peer]", "stage.epochs=1")
    summary = run(tmp_path, *overrides, distill={"losses": {"peer": term}})
    assert {"student", "peer", "teacher"} == {row["network"] for row in summary["rows"]}
    assert (tmp_path / "peer.pt").is_file()
    assert '"peer_validation_accuracy"' in (tmp_path / "metrics.jsonl").read_text()

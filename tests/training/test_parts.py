"""A part of one network as an adapter of a stage: shared, frozen, told where it does not fit."""

import pytest
import torch
from engine_fixtures import count_calls, equal, network, run, runner, snapshot, stage, train

from distill_app.errors import ConfigError
from distill_app.runs.checkpoint import Checkpoints
from distill_app.runs.statefile import load_file
from distill_app.training.describe import stage_text
from distill_app.training.optimize import Optimization

READ = "method.stages.distill.adapters.read"
FIT = {
    "module": {"_target_": "distill_app.adapters.LinearProjector"},
    "source": "student.pooled",
    "target": "teacher.pooled",
}


def reading(part="teacher.pooled", *, compared="teacher.logits", **more):
    """The student's features through a projector and a part of the teacher."""
    adapters = {"fit": FIT, "read": {"part": part, "source": "adapters.fit", **more}}
    loss = {"loss": {"_target_": "torch.nn.MSELoss"}, "inputs": {"input": "adapters.read", "target": compared}}
    return {"adapters": adapters, "losses": {"read": loss}}


def short(folder, *overrides, **choices):
    return stage(folder, "runtime.max_steps_per_epoch=4", *overrides, **choices)


def batch_of(built):
    built.begin_epoch(0)
    return built.task.prepare(next(iter(built.data.train)), device=built.device)


def test_a_part_is_the_networks_own_module_and_nothing_of_it_is_trained_or_stored(tmp_path):
    with short(tmp_path, distill=reading()) as built:
        teacher, step = network(built, "teacher"), built.step
        assert step.adapters["read"]._chain[0][0] is teacher.fc
        assert not [name for name in (*step.state_dict(), *dict(step.named_parameters())) if "adapters.read" in name]
        assert built.plan.trained_adapters == ["fit"]
        batch, before = batch_of(built), snapshot(teacher)
        total, values = step(batch, built.frozen.run(batch))
        total.backward()
        assert all(parameter.grad is None for parameter in teacher.parameters())
        assert network(built, "student").features[0][0].weight.grad.abs().sum() > 0
        fit = step.adapters["fit"](built.tapped["student"](batch["input"])["pooled"])
        expected = (teacher.fc(fit) - teacher(batch["input"])).square().mean()
        torch.testing.assert_close(values["read"], expected, rtol=1e-3, atol=1e-5)
        step.zero_grad()
        train(built)
        assert equal(snapshot(teacher), before)
        assert "adapter read: teacher.pooled, shared and frozen, gives (2, 10)" in stage_text(built)


@pytest.mark.slow
def test_gradients_that_reach_the_student_through_a_part_alone_train_it(tmp_path):
    off = [f"method.stages.distill.losses.{name}=null" for name in ("ce", "kd")]
    with short(tmp_path, *off, distill=reading()) as built:
        first = train(built)["read"]
        assert train(built, first=1)["read"] < first
        assert not [name for name in built.unread if "features" in name]


def test_a_network_of_which_only_a_part_is_used_is_built_and_does_not_run(tmp_path):
    own = {**FIT, "target": None, "module": {**FIT["module"], "out_shape": [2, 128]}}
    off = ["method.stages.distill.losses.kd=null"]
    wiring = reading(compared="student.logits")
    wiring["adapters"]["fit"] = own
    with short(tmp_path, *off, distill=wiring) as built:
        assert list(built.plan.taps) == ["student"]
        calls = count_calls(network(built, "teacher"))
        train(built)
        assert set(calls) == {"fc"}


def test_norms_of_a_part_are_those_of_the_frozen_network_though_it_runs_in_a_folded_copy(tmp_path):
    fit = {
        "module": {"_target_": "distill_app.adapters.ConvRegressor"},
        "source": "student.stage4",
        "target": "teacher.stage3",
    }
    wiring = reading("teacher.stage4", compared="teacher.stage4")
    wiring["adapters"]["fit"] = fit
    with short(tmp_path, distill=wiring) as built:
        teacher = network(built, "teacher")
        before = snapshot(teacher)
        train(built)
        assert built.frozen.forms["teacher"].pairs and equal(snapshot(teacher), before)
        batch = batch_of(built)
        given = built.frozen.run(batch)
        through = built.step.adapters["read"](teacher.features[:2](batch["input"]))
        torch.testing.assert_close(through, given["teacher"]["stage4"], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("part", "told"),
    [
        ("teacher.fcc", "no module at 'fcc' ('fcc' is not there); nearest: fc"),
        ("teacher.features.7", "no module at 'features.7'"),
        ("teachr.fc", "did you mean 'teacher'"),
        ("teacher", "names no module; write student.<tap> or student.<path>"),
        ("teacher.fc:in", "of the options of taps a part has :all alone"),
        ("student.fc", "the stage trains 'student', and a part keeps its weights"),
        (["teacher.fc", "student.fc"], "student.fc: the stage trains 'student'"),
        ("student_ema.fc", "student_ema is an average of weights that change in every step"),
        ("teacher.pooled:all", "items of one list are needed: (2, 128)"),
    ],
)
def test_a_part_that_cannot_be_is_told_with_its_key(tmp_path, part, told):
    with pytest.raises(ConfigError) as caught, short(tmp_path, distill=reading(part)):
        pass
    (error,) = [error for error in caught.value.errors if error.startswith(READ)]
    assert told in error


def test_all_parts_that_are_not_there_are_told_at_once(tmp_path):
    with pytest.raises(ConfigError) as caught, short(tmp_path, distill=reading(["teacher.fcc", "teacher.poold"])):
        pass
    assert [error.split(" (")[0] for error in caught.value.errors if error.startswith(READ)] == [
        f"{READ}.part: no module at 'fcc'",
        f"{READ}.part: no module at 'poold'",
    ]


@pytest.mark.parametrize(
    ("more", "key", "told"),
    [
        ({"module": FIT["module"]}, READ, "is either built (module) or a part of a network (part)"),
        ({"part": None}, READ, "needs a module to build"),
        ({"target": "teacher.logits"}, f"{READ}.target", "says nothing of a part"),
        ({"borrows": "teacher.pooled"}, f"{READ}.borrows", "says nothing of a part"),
    ],
)
def test_what_does_not_go_with_a_part_is_told(tmp_path, more, key, told):
    with pytest.raises(ConfigError) as caught, short(tmp_path, distill=reading(**{"part": "teacher.fc", **more})):
        pass
    (error,) = [error for error in caught.value.errors if error.startswith(f"{key}:")]
    assert told in error


def test_a_part_cannot_be_trained(tmp_path):
    train_part = "+method.stages.distill.train=[student,adapters.read]"
    with (
        pytest.raises(ConfigError, match=r"adapters\.read is a part of a network"),
        short(tmp_path, train_part, distill=reading()),
    ):
        pass


@pytest.mark.slow
def test_a_frozen_student_may_lend_a_part(tmp_path):
    train_fit = "+method.stages.distill.train=[adapters.fit]"
    wiring = reading("student.pooled", compared="student.logits")
    wiring["adapters"]["fit"] = {**FIT, "source": "teacher.pooled", "target": "student.pooled"}
    off = [f"method.stages.distill.losses.{name}=null" for name in ("ce", "kd")]
    with short(tmp_path, *off, train_fit, distill=wiring) as built:
        before = snapshot(network(built, "student"))
        train(built)
        assert equal(snapshot(network(built, "student")), before)


METHOD = """
defaults: [kd, _self_]
name: read
stages:
  distill:
    adapters: {read: {part: PART, source: student.pooled}}
    losses:
      kd: null
      read: {loss: {_target_: torch.nn.MSELoss}, inputs: {input: adapters.read, target: student.logits}}
"""
PAIR = ("method=read", "dataset=digits", "model@teacher=plain_8_16", "prelude=none")


@pytest.fixture
def errors_with(tmp_path, errors_of):
    """What is wrong where a part of the teacher reads the student's pooled features."""

    def errors(part: str, *overrides: str) -> list[str]:
        (tmp_path / "method").mkdir()
        (tmp_path / "method" / "read.yaml").write_text(METHOD.replace("PART", part))
        return errors_of(*PAIR, *overrides, config_dirs=[str(tmp_path)])

    return errors


def test_parts_of_a_network_with_random_weights_are_refused_like_its_taps(errors_with):
    (error,) = errors_with("teacher.pooled", "model@student=plain_8_16")
    assert error.startswith("teacher: its weights are random")


@pytest.mark.slow
def test_a_part_may_be_called_by_a_tap_that_nobody_wrote(errors_with):
    own = ("model@teacher=own", "teacher.net._target_=distill_app.models.PlainCNN", "+teacher.net.widths=[8,16]")
    more = (*own, "model@student=plain_8_16", "teacher.allow_random=true")
    assert errors_with("teacher.pooled", *more) == []


def test_what_a_part_cannot_take_is_told_with_its_key(errors_with):
    (error,) = errors_with("teacher.pooled", "model@student=plain_16_32_64", "teacher.allow_random=true")
    assert error.startswith(f"{READ}: cannot take (2, 64)")


@pytest.mark.slow
def test_an_interrupted_run_with_a_part_goes_on_to_the_bit_and_the_student_is_exported_bare(tmp_path, monkeypatch):
    run(tmp_path / "whole", distill=reading())
    original, count = Optimization.step, iter(range(100))

    def broken(self):
        if next(count) == 3:
            raise KeyboardInterrupt
        original(self)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Optimization, "step", broken)
        run(tmp_path / "cut", distill=reading())
    run(tmp_path / "cut", distill=reading())
    whole, cut = (load_file(tmp_path / name / "student.pt") for name in ("whole", "cut"))
    assert equal(whole, cut)
    with runner(tmp_path / "other") as made:
        made.experiment.network("student").module.load_state_dict(whole)
    assert "read" not in Checkpoints(tmp_path / "cut" / "checkpoints").load("last")["parts"]["adapters"]

"""Reduced precision: what computes in it, what stays float32, and the scaler of fp16."""

import pytest
import torch
from engine_fixtures import Recording, metrics, mostly_slow, network, run, stage, train
from torch import nn

from distill_app.config.schema import RuntimeConf
from distill_app.machine.device import set_up
from distill_app.runs.checkpoint import Checkpoints
from distill_app.training.precision import Precision
from distill_app.training.runner import StageRunner

RECORDING = {
    "losses": {
        "own": {
            "loss": {"_target_": "engine_fixtures.Recording"},
            "inputs": {"student": "student.logits", "teacher": "teacher.logits"},
        }
    }
}


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_networks_compute_in_reduced_precision_and_losses_in_float32(tmp_path, precision):
    Recording.seen.clear()
    overrides = (f"runtime.precision={precision}", "runtime.allow=[engine_fixtures]")
    with stage(tmp_path, *overrides, distill=RECORDING) as built:
        dtypes = []
        network(built, "student").features[0].register_forward_hook(lambda m, a, out: dtypes.append(out.dtype))
        built.begin_epoch(0)
        built.frozen.running("teacher").model.features[0].register_forward_hook(
            lambda m, a, out: dtypes.append(out.dtype)
        )
        train(built)
        assert set(dtypes) == {Precision(precision).dtype}
        assert {parameter.dtype for parameter in built.optimization.parameters} == {torch.float32}
        assert {p.grad.dtype for p in built.optimization.parameters if p.grad is not None} <= {torch.float32}
    assert set(Recording.seen) == {(torch.float32, torch.float32)}


def test_the_frozen_teacher_holds_its_weights_in_the_type_of_the_forward_and_the_network_itself_does_not(tmp_path):
    with stage(tmp_path, "runtime.precision=bf16") as built:
        train(built)
        running = built.frozen.running("teacher").model
        kinds = (nn.Conv2d, nn.Linear)
        assert {part.weight.dtype for part in running.modules() if isinstance(part, kinds)} == {torch.bfloat16}
        assert {value.dtype for value in network(built, "teacher").parameters()} == {torch.float32}


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("method", mostly_slow(["kd", "at", "fitnet", "crd"], "kd", "crd"))
def test_losses_are_close_to_those_of_float32(tmp_path, precision, method):
    def first(name):
        with stage(tmp_path / name, f"method={method}", f"runtime.precision={name}") as built:
            built.begin_epoch(0)
            batch = built.example_batch(16)
            return {key: value.item() for key, value in built.step(batch, built.frozen.activations(batch))[1].items()}

    assert first(precision) == pytest.approx(first("fp32"), rel=0.05, abs=2e-3)


def test_fp16_scales_the_loss_and_leaves_out_a_step_whose_gradients_overflow(tmp_path):
    with stage(tmp_path, "runtime.precision=fp16", "method=ce") as built:
        train(built)
        assert built.precision.state()["scale"] == 2.0**16
        before = [parameter.detach().clone() for parameter in built.optimization.parameters]
        built.precision.scale(built.step(built.example_batch(8), {})[0]).backward()
        built.optimization.parameters[0].grad[0].fill_(float("inf"))
        built.optimization.step()
        assert all(map(torch.equal, before, built.optimization.parameters))
        assert built.precision.state()["scale"] == 2.0**15


def test_a_first_step_that_is_left_out_leaves_no_momentum(tmp_path):
    with stage(tmp_path, "runtime.precision=fp16", "method=ce") as built:
        built.begin_epoch(0)
        for overflow in (True, False):
            built.precision.scale(built.step(built.example_batch(8), {})[0]).backward()
            if overflow:
                built.optimization.parameters[0].grad[0].fill_(float("inf"))
            gradients = [p.grad / built.precision.state()["scale"] for p in built.optimization.parameters]
            before = [p.detach().clone() for p in built.optimization.parameters]
            built.optimization.step()
        state, decay = built.optimization.optimizer.state, 5e-4
        for parameter, gradient, old in zip(built.optimization.parameters, gradients, before, strict=True):
            assert torch.allclose(state[parameter]["momentum_buffer"], gradient + decay * old, rtol=1e-4, atol=1e-6)


def test_gradients_are_clipped_at_their_true_size(tmp_path):
    with stage(tmp_path, "runtime.precision=fp16", "method=ce", "stage.clip_grad_norm=0.001", "stage.lr=1.0") as built:
        built.begin_epoch(0)
        before = [parameter.detach().clone() for parameter in built.optimization.parameters]
        built.optimization.optimizer.param_groups[0].update(weight_decay=0.0, nesterov=False, lr=1.0)
        built.precision.scale(built.step(built.example_batch(8), {})[0]).backward()
        built.optimization.clip()
        built.optimization.step()
        moved = [(a - b).flatten() for a, b in zip(before, built.optimization.parameters, strict=True)]
        assert float(torch.cat(moved).detach().norm()) == pytest.approx(0.001, rel=1e-2)


@pytest.mark.slow
def test_the_factor_of_fp16_survives_an_interruption(tmp_path, monkeypatch):
    overrides = ("runtime.precision=fp16", "method=ce")
    monkeypatch.setattr(torch.amp.GradScaler, "get_growth_interval", lambda self: 3)
    run(tmp_path / "whole", *overrides)
    original = StageRunner.save

    def stopping(self, stage):
        original(self, stage)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(StageRunner, "save", stopping)
        run(tmp_path / "resumed", *overrides)
    run(tmp_path / "resumed", *overrides)
    assert metrics(tmp_path / "resumed") == metrics(tmp_path / "whole")
    states = [
        Checkpoints(tmp_path / name / "checkpoints").load("last")["optimization"]["scaler"]
        for name in ("whole", "resumed")
    ]
    assert states[0] == states[1] and states[0]["scale"] > 0


@pytest.mark.slow
def test_an_unknown_precision_is_named_with_those_there_are():
    from distill_app.check.quick import check
    from distill_app.config.tree import compose

    (error,) = check(compose(["runtime.precision=fp8"]))
    assert error.startswith("runtime.precision: unknown precision 'fp8'") and "bf16" in error


def test_what_an_experiment_sets_in_the_process_is_not_there_in_the_next(monkeypatch):
    def found():
        backends = torch.backends.cuda.matmul, torch.backends.cudnn
        return torch.get_num_threads(), [backend.allow_tf32 for backend in backends], torch.backends.cudnn.benchmark

    set_up(RuntimeConf())  # takes back what experiments of other tests have set
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    before, tf32 = found(), not torch.backends.cuda.matmul.allow_tf32
    set_up(RuntimeConf(tf32=tf32, threads=before[0] + 1, deterministic=True))
    assert found() == (before[0] + 1, [tf32, tf32], False)
    set_up(RuntimeConf(tf32=not tf32))
    set_up(RuntimeConf())
    assert found() == before and not torch.are_deterministic_algorithms_enabled()

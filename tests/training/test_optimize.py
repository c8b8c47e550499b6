"""Learning-rate schedules, parameter groups, accumulation and clipping, as stages get them from config."""

import math

import numpy as np
import pytest
import torch
from engine_fixtures import GOLDENS, equal, metrics, network, refusal, run, runner, snapshot, stage, train

from distill_app.config.schema import StageConf
from distill_app.training.optimize import gradient_scale, optimizer_steps, scaled_lr
from distill_app.training.stage import Stage

GOLDEN = np.load(GOLDENS / "lr_schedules.npz")
TORCH = "torch.optim.lr_scheduler"


def learning_rates(built: Stage, count: int) -> list[float]:
    """The learning rate of each epoch, or of each step, without training anything."""
    rates = []
    for _ in range(count):
        rates.append(built.optimization.lr)
        built.optimization.step()
        built.optimization.end_epoch(value=0.0, loss=0.0)
    return rates


@pytest.mark.parametrize(
    ("golden", "overrides"),
    [
        ("multistep_lr0.1_100ep_30_60_90_g0.1", ["stage=imagenet_sgd"]),
        ("multistep_lr0.3_100ep_30_60_90_g0.1", ["stage=imagenet_sgd", "stage.lr=0.3"]),
        (
            "step_lr0.1_90ep_30_g0.1",
            [
                "stage=imagenet_sgd",
                "scheduler@stage.scheduler=constant",  # a dict would be merged with what is there
                "stage.epochs=90",
                f"stage.scheduler.schedule={{_target_: {TORCH}.StepLR, _partial_: true, step_size: 30, gamma: 0.1}}",
            ],
        ),
        (
            "cosine_lr0.1_T50_min0",
            ["stage=imagenet_sgd", "scheduler@stage.scheduler=cosine", "stage.epochs=50"],
        ),
        (
            "warmup5_linear0.001_then_cosine45",
            [
                "stage=imagenet_sgd",
                "scheduler@stage.scheduler=cosine",
                "stage.epochs=50",
                "stage.warmup_epochs=5",
                "stage.warmup_start_factor=0.001",
            ],
        ),
    ],
)
@pytest.mark.slow
def test_schedules_by_epoch_equal_the_goldens(tmp_path, golden, overrides):
    expected = GOLDEN[f"out/{golden}"]
    with stage(tmp_path, *overrides) as built:
        np.testing.assert_allclose(learning_rates(built, len(expected)), expected, rtol=1e-9)


def test_polynomial_schedule_by_step_equals_the_golden(tmp_path):
    overrides = [
        "stage.epochs=5",
        "stage.lr=0.1",
        "stage.batch_size=10",  # 100 images: 10 steps an epoch
        "scheduler@stage.scheduler=poly",
    ]
    expected = GOLDEN["out/poly_lr0.1_10it_x_5ep_power0.9"]
    with stage(tmp_path, *overrides) as built:
        assert optimizer_steps(len(built.batch_sizes), 1) == 10
        np.testing.assert_allclose(learning_rates(built, 50), expected, rtol=1e-9)


@pytest.mark.slow
def test_learning_rates_of_a_run_are_logged_and_follow_the_schedule(tmp_path):
    run(
        tmp_path,
        "stage.epochs=4",
        "stage.lr=0.1",
        "scheduler@stage.scheduler=multistep",
        "stage.scheduler.schedule.milestones=[1,3]",
    )
    rates = [(r["epoch"], r["lr"]) for r in metrics(tmp_path) if r["kind"] == "step" and r["step"] == 0]
    assert rates == [(0, 0.1), *((e, pytest.approx(lr)) for e, lr in ((1, 0.01), (2, 0.01), (3, 0.001)))]


@pytest.mark.slow
def test_logged_rate_of_a_schedule_by_step_is_the_one_the_step_used(tmp_path):
    run(tmp_path, "stage.warmup_epochs=1", "stage.warmup_start_factor=0.5", "stage.scheduler.interval=step", *CONSTANT)
    rates = [record["lr"] for record in metrics(tmp_path) if record["kind"] == "step"]
    assert rates == pytest.approx([0.05, 0.075, 0.1, 0.1])


CONSTANT = ("stage.scheduler.schedule=null", "stage.lr=0.1")


def test_warm_up_stands_in_front_of_a_schedule_by_step(tmp_path):
    overrides = [
        "stage.epochs=4",
        "stage.lr=0.1",
        "stage.batch_size=25",
        "stage.warmup_epochs=1",
        "stage.warmup_start_factor=0.2",
        "scheduler@stage.scheduler=constant",
        "stage.scheduler.interval=step",
        f"stage.scheduler.schedule={{_target_: {TORCH}.CosineAnnealingLR, _partial_: true}}",
    ]
    with stage(tmp_path, *overrides) as built:
        rates = learning_rates(built, 16)
    assert rates[:5] == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.1])
    assert rates[4:] == pytest.approx([0.05 * (1 + math.cos(math.pi * t / 12)) for t in range(12)])


@pytest.mark.parametrize(
    ("case", "world_size", "per_gpu"), [(k, *v) for k, v in enumerate([(1, 256), (3, 256), (8, 32), (4, 64), (2, 16)])]
)
def test_linear_scaling_equals_the_goldens(case, world_size, per_gpu):
    base = float(GOLDEN["in/base_lr"][case])
    assert (world_size, per_gpu) == (GOLDEN["in/world_size"][case], GOLDEN["in/per_gpu_batch"][case])
    conf = StageConf(lr=base, batch_size=per_gpu * world_size, accumulation_steps=1, reference_batch_size=None)
    assert scaled_lr(conf) == base
    conf.reference_batch_size = 256
    assert scaled_lr(conf) == pytest.approx(GOLDEN["out/lr_goyal_ref256"][case], rel=1e-12)
    conf.reference_batch_size = per_gpu
    assert scaled_lr(conf) == pytest.approx(GOLDEN["out/lr_times_world_size"][case], rel=1e-12)


def test_the_rate_of_an_experiment_does_not_depend_on_how_many_processes_carry_it_out():
    weights = [gradient_scale(0, [7, 7], 2, own=own, ranks=2) for own in (4, 3)]
    assert weights == [4 * 2 / 14, 3 * 2 / 14] and sum(weights) / 2 == gradient_scale(0, [7, 7], 2)


def test_linear_scaling_is_applied_once_and_counts_accumulated_batches(tmp_path):
    overrides = ["stage.lr=0.1", "stage.batch_size=10", "stage.accumulation_steps=2", "stage.reference_batch_size=40"]
    with stage(tmp_path, *overrides, "scheduler@stage.scheduler=cosine") as built:
        assert built.optimization.lr == pytest.approx(0.05)
        assert [group["initial_lr"] for group in built.optimization.optimizer.param_groups] == pytest.approx([0.05])


def test_optimizer_steps_count_the_last_smaller_group():
    assert [optimizer_steps(batches, 4) for batches in (1, 4, 5, 8, 9)] == [1, 1, 2, 2, 3]


def test_gradient_scale_averages_over_the_samples_of_a_group():
    sizes = [12, 12, 12, 12, 12, 4]
    assert [gradient_scale(number, sizes, 1) for number in range(6)] == [1.0] * 6
    assert [gradient_scale(number, sizes, 4) for number in range(6)] == pytest.approx([0.25] * 4 + [0.75, 0.25])


# Batch norm depends on what is in a batch; frozen, it does not, and then neither does the network.
NO_BATCH_STATISTICS = ("method.stages.distill.freeze=['student:BatchNorm2d']", *CONSTANT)


@pytest.mark.slow
def test_accumulated_batches_equal_one_large_batch_to_the_uneven_end_of_the_epoch(tmp_path):
    weights = []
    # 100 images: batches of 36, 36, 28, or groups of 12+12+12, 12+12+12, 12+12+4
    for folder, size, steps in (("large", 36, 1), ("accumulated", 12, 3)):
        overrides = (f"stage.batch_size={size}", f"stage.accumulation_steps={steps}", *NO_BATCH_STATISTICS)
        with stage(tmp_path / folder, *overrides) as built:
            assert optimizer_steps(len(built.batch_sizes), steps) == 3
            train(built, epochs=2)
            weights.append(snapshot(network(built, "student")))
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-4, atol=1e-6, msg=name)


def test_no_gradient_is_left_over_from_the_end_of_an_epoch(tmp_path):
    with stage(tmp_path, "stage.batch_size=40", "stage.accumulation_steps=2") as built:
        train(built)  # 3 batches: a group of two, and a group of one
        assert all(parameter.grad is None for parameter in built.step.parameters())


@pytest.mark.slow
def test_clipping_bounds_the_norm_of_the_whole_gradient(tmp_path, monkeypatch):
    seen = []
    original = torch.optim.SGD.step

    def step(self, *args, **kwargs):
        gradients = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        seen.append(float(torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in gradients]))))
        return original(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.SGD, "step", step)
    with stage(tmp_path / "free", *CONSTANT) as built:
        train(built)
    assert min(seen) > 0.02
    seen.clear()
    with stage(tmp_path / "clipped", "stage.clip_grad_norm=0.01", *CONSTANT) as built:
        train(built)
    assert seen == pytest.approx([0.01] * len(seen), rel=1e-3)


def _groups(built: Stage) -> dict[str, dict]:
    """Parameter name -> the options of its group."""
    names = {id(parameter): name for name, parameter in built.step.named_parameters()}
    groups = built.optimization.optimizer.param_groups
    return {
        names[id(p)]: {k: v for k, v in group.items() if k != "params"} for group in groups for p in group["params"]
    }


def test_learning_rates_can_be_scaled_by_module(tmp_path):
    overrides = ["+stage.lr_scales={student.fc: 10, student.features: 0.1, student.features.1: 0.5}", *CONSTANT]
    with stage(tmp_path, *overrides) as built:
        rates = {name.removeprefix("networks.student.model."): g["lr"] for name, g in _groups(built).items()}
    assert rates["fc.weight"] == rates["fc.bias"] == pytest.approx(1.0)
    assert rates["features.0.0.weight"] == pytest.approx(0.01)
    assert rates["features.1.0.weight"] == pytest.approx(0.05)


def test_learning_rates_scale_by_role_and_for_adapters(tmp_path):
    overrides = ["method=fitnet", "+method.stages.hint.lr_scales={adapters.regressor: 5, student: 0.5}", *CONSTANT]
    with stage(tmp_path, *overrides) as built:
        rates = {name: group["lr"] for name, group in _groups(built).items()}
    assert {round(rate, 9) for name, rate in rates.items() if name.startswith("adapters.regressor.")} == {0.5}
    assert {round(rate, 9) for name, rate in rates.items() if name.startswith("networks.student.")} == {0.05}


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", ["onecycle", "multistep", "cosine"])
def test_scaled_learning_rates_stay_in_proportion_under_a_schedule(tmp_path, scheduler):
    overrides = ["+stage.lr_scales={student.fc: 10}", f"scheduler@stage.scheduler={scheduler}", "stage.epochs=10"]
    with stage(tmp_path, *overrides) as built:
        for _ in range(5):
            rates = {name: group["lr"] for name, group in _groups(built).items()}
            fc, block = rates["networks.student.model.fc.weight"], rates["networks.student.model.features.0.0.weight"]
            assert fc == pytest.approx(10 * block)
            built.optimization.step()
            built.optimization.end_epoch(value=0.0, loss=0.0)


def test_scaling_what_is_not_there_is_an_error(tmp_path):
    told = refusal(tmp_path, "+stage.lr_scales={student.head: 10}")
    assert "lr_scales: nothing that is trained is called ['student.head']" in told


def test_weight_decay_can_leave_norms_and_biases_out(tmp_path):
    with stage(tmp_path, "stage.decay_norm_and_bias=false", "stage.optimizer.weight_decay=0.01") as built:
        decays = {name.removeprefix("networks.student.model."): g["weight_decay"] for name, g in _groups(built).items()}
    assert decays == {
        "features.0.0.weight": 0.01,
        "features.0.1.weight": 0.0,
        "features.0.1.bias": 0.0,
        "features.1.0.weight": 0.01,
        "features.1.1.weight": 0.0,
        "features.1.1.bias": 0.0,
        "fc.weight": 0.01,
        "fc.bias": 0.0,
    }


def test_weight_decay_applies_to_everything_by_default(tmp_path):
    with stage(tmp_path, "stage.optimizer.weight_decay=0.01") as built:
        assert {group["weight_decay"] for group in _groups(built).values()} == {0.01}


@pytest.mark.slow
def test_changing_the_optimiser_leaves_nothing_of_the_one_before(tmp_path):
    overrides = ["method=fitnet", "+optimizer@method.stages.distill.optimizer=adam", "method.stages.distill.lr=0.001"]
    with runner(tmp_path, *overrides) as made:
        hint, distill = (Stage(plan, made.experiment).optimization.optimizer for plan in made.plans)
    assert type(hint) is torch.optim.SGD
    assert hint.defaults["momentum"] == 0.9
    assert type(distill) is torch.optim.Adam
    assert "momentum" not in distill.defaults
    assert distill.defaults["weight_decay"] == 0.0
    assert distill.defaults["betas"] == (0.9, 0.999)


@pytest.mark.slow
def test_a_later_stage_inherits_optimiser_and_schedule_of_the_stage_before(tmp_path):
    overrides = [
        "method=fitnet",
        "+optimizer@method.stages.hint.optimizer=adamw",
        "+scheduler@method.stages.hint.scheduler=multistep",
    ]
    with runner(tmp_path, *overrides) as made:
        hint, distill = (Stage(plan, made.experiment).optimization for plan in made.plans)
    assert type(hint.optimizer) is type(distill.optimizer) is torch.optim.AdamW
    assert type(hint.scheduler) is type(distill.scheduler) is torch.optim.lr_scheduler.MultiStepLR


def test_training_without_any_schedule_keeps_the_learning_rate(tmp_path):
    with stage(tmp_path, "scheduler@stage.scheduler=constant", "stage.lr=0.02") as built:
        assert learning_rates(built, 5) == [0.02] * 5


def test_an_unknown_interval_is_an_error(tmp_path):
    told = refusal(tmp_path, "stage.scheduler.interval=epochs")
    assert "scheduler.interval: unknown interval 'epochs'; did you mean 'epoch'" in told


def test_freezing_everything_is_an_error(tmp_path):
    assert "nothing to train" in refusal(tmp_path, "method.stages.distill.freeze=[student]")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scheduler", "warmup"),
    [
        ("multistep", 0),
        ("onecycle", 1),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (("onecycle", 0), ("multistep", 1), ("cosine", 0), ("cosine", 1), ("constant", 1))
        ),
    ],
)
def test_optimiser_and_schedule_go_on_from_their_state(tmp_path, scheduler, warmup):
    overrides = [
        f"scheduler@stage.scheduler={scheduler}",
        "optimizer@stage.optimizer=adam",
        "stage.epochs=6",
        f"stage.warmup_epochs={warmup}",
    ]
    with stage(tmp_path / "a", *overrides) as built:
        train(built, epochs=2)
        torch.save({"state": built.optimization.state(), "step": built.step.state_dict()}, tmp_path / "state.pt")
        train(built, epochs=2, first=2)
        expected, rate = snapshot(network(built, "student")), built.optimization.lr
    with stage(tmp_path / "b", *overrides) as built:
        saved = torch.load(tmp_path / "state.pt", weights_only=True)
        built.optimization.load(saved["state"])
        built.step.load_state_dict(saved["step"])
        train(built, epochs=2, first=2)
        assert equal(snapshot(network(built, "student")), expected)
        assert built.optimization.lr == rate


def test_parameters_of_a_loss_are_trained(tmp_path):
    target = "method.stages.distill.losses.kd.loss={_target_: engine_fixtures.Scaled, temperature: null}"
    with stage(tmp_path, target, "runtime.allow=[engine_fixtures]") as built:
        scale = built.step.losses["kd"].scale
        before = float(scale.detach())
        train(built)
        assert float(scale.detach()) != before

"""Training structures: peers, generations, chains, several teachers, exits, and the average that teaches."""

import copy
from pathlib import Path

import pytest
import torch
from engine_fixtures import (
    DIGITS,
    changed,
    equal,
    metrics,
    network,
    networks,
    refusal,
    resolved,
    run,
    runner,
    snapshot,
    stage,
    train,
)
from torch import nn

from distill_app.check.quick import check, read
from distill_app.config.tree import compose
from distill_app.runs.statefile import load_file
from distill_app.training.runner import StageRunner

SHORT = ("stage.epochs=2", "runtime.max_steps_per_epoch=3")
TINY = ("dataset=digits", "stage=digits", "model@teacher=plain_32_64_128", "model@student=plain_8_16")


def told(*overrides: str) -> list[str]:
    return list(check(compose([*TINY, "prelude=none", *overrides])))


def interrupted_run(folder: Path, monkeypatch, *overrides: str, epoch: int = 1) -> None:
    """A run that breaks off after some epochs, and goes on."""
    take_steps = StageRunner.take_steps

    def breaks_off(self, stage, training):
        if self.progress.epoch == epoch and stage.plan.name == "distill":
            raise KeyboardInterrupt
        return take_steps(self, stage, training)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(StageRunner, "take_steps", breaks_off)
        run(folder, *overrides)
    run(folder, *overrides)


RESUMED = {
    "dml": ("student", "peer_1"),
    "kdcl": ("student", "peer_1"),
    "ban": ("generation_1", "generation_2", "student"),
    "multi_teacher": ("teacher_1", "student"),
    "mean_teacher": ("student", "student_ema"),
    "byot": ("student",),
    "ofa_kd": ("student",),
}


@pytest.mark.slow
@pytest.mark.parametrize("method", RESUMED)
def test_a_run_that_broke_off_ends_with_the_same_bits(tmp_path, monkeypatch, method):
    overrides = (f"method={method}", *SHORT)
    summary = run(tmp_path / "whole", *overrides)
    interrupted_run(tmp_path / "broken", monkeypatch, *overrides)
    assert set(summary["files"]) == set(RESUMED[method])
    for name in RESUMED[method]:
        whole, broken = (load_file(tmp_path / each / f"{name}.pt") for each in ("whole", "broken"))
        assert equal(whole, broken), name
    whole, broken = (metrics(tmp_path / each) for each in ("whole", "broken"))
    for record in (*whole, *broken):
        record.pop("seconds", None)
    assert whole == broken


@pytest.mark.slow
def test_networks_of_one_architecture_start_from_numbers_of_their_own(tmp_path):
    with runner(tmp_path, "method=dml", "method.params.peers=2") as made:
        made_of = [snapshot(net) for net in networks(made).values()]
        kernels = [state["features.0.0.weight"] for state in made_of]
        assert len(kernels) == 3
        assert not any(a.equal(b) for n, a in enumerate(kernels) for b in kernels[n + 1 :])


@pytest.mark.slow
def test_peers_learn_as_with_an_optimiser_each(tmp_path):
    with stage(tmp_path, "method=dml", "method.params.peers=2", "scheduler@stage.scheduler=constant") as built:
        peers = {name: copy.deepcopy(network(built, name)).train() for name in built.plan.trained}
        lr = built.optimization.lr
        conf = {key: value for key, value in built.plan.optimizer.items() if not key.startswith("_")}
        optimizers = {name: torch.optim.SGD(net.parameters(), lr=lr, **conf) for name, net in peers.items()}
        for _ in range(3):
            batch = built.example_batch(16)
            total, _ = built.step(batch, built.frozen.activations(batch))
            total.backward()
            built.optimization.step()
            # As the paper's loop: all forwards, then a backward and a step for each of them.
            logits = {name: net(batch["input"]) for name, net in peers.items()}
            for name, own in logits.items():
                others = [other.detach() for each, other in logits.items() if each != name]
                loss = nn.functional.cross_entropy(own, batch["target"])
                for other in others:
                    divergence = nn.functional.kl_div(own.log_softmax(1), other.softmax(1), reduction="batchmean")
                    loss = loss + divergence / len(others)
                optimizers[name].zero_grad()
                loss.backward()
            for optimizer in optimizers.values():
                optimizer.step()
        for name, net in peers.items():
            ours, theirs = network(built, name).state_dict(), net.state_dict()
            for key, value in theirs.items():
                torch.testing.assert_close(ours[key], value, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_every_peer_is_judged_tested_and_exported(tmp_path):
    summary = run(tmp_path, "method=dml", "method.params.peers=2", *SHORT)
    assert [row["network"] for row in summary["rows"]] == ["student", "peer_1", "peer_2"]
    epochs = [record for record in metrics(tmp_path) if record["kind"] == "epoch"]
    for name in ("", "peer_1_", "peer_2_"):
        assert f"{name}validation_accuracy" in epochs[-1]["metrics"]
    for name in ("student", "peer_1", "peer_2"):
        assert (tmp_path / f"{name}.pt").is_file()


@pytest.mark.slow
def test_the_networks_of_both_roles_may_be_peers():
    assert told("method=dml", "method.params.peers=[teacher]") == []
    wide = ("method.params.peers=[wide]", "+model@method.extra_models.wide=plain_16_32_64")
    assert told("method=dml", *wide) == []


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dml", "kdcl"])
def test_a_student_without_peers_is_refused(method):
    (error,) = told(f"method={method}", "method.params.peers=0")
    assert "needs two networks or more, got 1: they teach each other" in error


@pytest.mark.slow
def test_generations_learn_each_from_the_one_before(tmp_path):
    summary = run(tmp_path, "method=ban", "method.params.generations=3", *SHORT)
    assert list(summary["stages"]) == ["first", "born_generation_2", "born_generation_3", "distill"]
    assert [row["name"] for row in summary["rows"]][:3] == ["generation_1", "generation_2", "generation_3"]
    with runner(tmp_path / "plans", "method=ban", "method.params.generations=3") as made:
        teachers = [plan.network("teacher") for plan in made.plans]
    assert teachers == ["teacher", "generation_1", "generation_2", "generation_3"]
    assert not (tmp_path / "teacher.pt").exists() and "teacher" not in summary["origins"]


@pytest.mark.slow
def test_a_first_generation_that_is_there_already_is_not_trained(tmp_path):
    run(tmp_path / "first", "method=ce", *SHORT)
    file = f"++method.extra_models.mine.checkpoint={tmp_path / 'first' / 'student.pt'}"
    own = ("method.params.generations=[mine]", "+model@method.extra_models.mine=plain_8_16", file)
    summary = run(tmp_path / "second", "method=ban", *own, *SHORT)
    assert list(summary["stages"]) == ["distill"]


@pytest.mark.slow
def test_no_generation_at_all_is_refused():
    errors = told("method=ban", "method.params.generations=0")
    assert errors and all(error.startswith("method.params.generations: is empty") for error in errors)


@pytest.mark.slow
def test_a_chain_of_assistants_ends_with_the_student(tmp_path):
    chain = ("method.params.assistants=[large,small]", "+model@method.extra_models.large=plain_32_64_128")
    chain = (*chain, "+model@method.extra_models.small=plain_16_32_64")
    summary = run(tmp_path, "method=takd", *chain, *SHORT)
    assert list(summary["stages"]) == ["assist_large", "assist_small", "distill"]
    assert summary["files"].keys() == {"large", "small", "student"}
    with runner(tmp_path / "plans", "method=takd", *chain) as made:
        assert [plan.network("teacher") for plan in made.plans] == ["teacher", "large", "small"]


def test_an_assistant_that_is_no_network_is_refused():
    errors, _, _ = read(compose([*TINY, "method=takd", "method.params.assistants=[nobody]"]))
    assert errors == []  # one of the default's architecture
    errors, _, _ = read(compose([*TINY, "method=takd", "method.params.assistants=[resnet20]"]))
    assert errors[0].startswith("method.extra_models.resnet20: is called like model=resnet20")


@pytest.mark.slow
def test_teachers_are_trained_or_loaded_or_refused(tmp_path):
    (error,) = list(check(compose([*TINY, "prelude=none", "method=multi_teacher", "method.params.teachers=2"])))
    assert error.startswith("teacher: its weights are random")
    assert told("method=multi_teacher", "method.params.teachers=2", "teacher.allow_random=true") == []
    left_out = ("method=multi_teacher", "method.schedule=[distill]", "teacher.allow_random=true")
    (error,) = told(*left_out)
    assert error.startswith("method.extra_models.teacher_1: its weights are random")
    summary = run(tmp_path, "method=multi_teacher", "method.params.teachers=2", *SHORT)
    assert list(summary["stages"]) == ["teach_teacher_1", "teach_teacher_2", "distill"]


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["mean", "probabilities", "entropy", "labels"])
def test_only_the_student_learns_from_several_teachers(tmp_path, weights):
    how = f"+method.stages.distill.losses.kd.loss.weights={weights}"
    with stage(tmp_path, "method=multi_teacher", "method.params.teachers=2", how, number=2) as built:
        before = {name: snapshot(network(built, name)) for name in ("teacher", "teacher_1", "teacher_2")}
        losses = train(built)
        assert losses["kd"] > 0
        assert all(changed(network(built, name), state) == set() for name, state in before.items())


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["entropy", "labels"])
def test_one_teacher_alone_has_no_confidence_to_compare(weights):
    how = f"+method.stages.distill.losses.kd.loss.weights={weights}"
    (error,) = told("method=multi_teacher", "method.params.teachers=0", "teacher.allow_random=true", how)
    assert f"weights='{weights}' needs 2 teachers or more, got 1" in error


@pytest.mark.slow
def test_confidence_needs_teachers_that_pool_by_the_average():
    other = ("method.params.teachers=[other]", "+model@method.extra_models.other=vgg11_bn", "dataset.image_size=32")
    errors = told("method=ca_mkd", "teacher.allow_random=true", *other)
    assert errors and all("classifier" in error or "average of its last map" in error for error in errors), errors


@pytest.mark.slow
def test_exits_train_the_student_and_are_not_deployed(tmp_path):
    summary = run(tmp_path, "method=byot", *SHORT)
    plain = resolved("method=ce", base=DIGITS)["student"]
    state = load_file(tmp_path / "student.pt")
    assert not any("exit" in name for name in state) and summary["files"] == {"student": "student.pt"}
    assert plain["net"]["_target_"] == resolved("method=byot", base=DIGITS)["student"]["net"]["_target_"]
    with stage(tmp_path / "stage", "method=byot") as built:
        # The exit is the student's stages' business, the end learns labels alone.
        batch = built.example_batch(8)
        _, values = built.step(batch, {})
        sum(value for name, value in values.items() if name.startswith(("exit_kd", "exit_feature"))).backward()
        assert network(built, "student").fc.weight.grad is None or not network(built, "student").fc.weight.grad.any()


@pytest.mark.slow
def test_fewer_exits_may_be_named():
    assert told("method=byot", "method.params.exits=[stage2]") == []
    errors = told("method=byot", "method.params.exits=[stage9]")
    assert any("unknown tap 'stage9'" in error for error in errors)


@pytest.mark.slow
def test_the_teacher_is_the_plain_average_of_all_weights_until_the_decay_is_reached(tmp_path):
    constant = "scheduler@stage.scheduler=constant"
    with stage(tmp_path, "method=mean_teacher", "method.stages.distill.ema.decay=0.75", constant) as built:
        student, average = network(built, "student"), built.averages["student"]
        names = [name for name, _ in student.named_parameters()]
        seen = [snapshot(average.module)]
        assert not seen[0][names[0]].equal(student.state_dict()[names[0]]), "it starts from numbers of its own"
        for number in range(6):
            batch = built.example_batch(8)
            total, _ = built.step(batch, built.frozen.activations(batch))
            total.backward()
            built.optimization.step()
            before = snapshot(average.module)
            average.update(number, batch, {})
            seen.append(snapshot(student))
            for name in names:
                if number < 3:  # decays 1/2, 2/3, 3/4
                    wanted = torch.stack([each[name] for each in seen]).mean(dim=0)
                else:
                    wanted = 0.75 * before[name] + 0.25 * seen[-1][name]
                torch.testing.assert_close(average.module.state_dict()[name], wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_the_teacher_has_statistics_of_its_own_and_no_gradient(tmp_path):
    with stage(tmp_path, "method=mean_teacher") as built:
        average = built.averages["student"].module
        norms = [name for name in average.state_dict() if name.endswith("running_mean")]
        before = snapshot(average)
        train(built)
        after = snapshot(average)
        assert all(not after[name].equal(before[name]) for name in norms)
        student = network(built, "student").state_dict()
        assert all(not after[name].equal(student[name]) for name in norms)
        assert after[norms[0].replace("running_mean", "num_batches_tracked")] == len(built.batch_sizes)
        assert all(parameter.grad is None and not parameter.requires_grad for parameter in average.parameters())
        assert average.training


@pytest.mark.slow
def test_epochs_are_selected_by_the_teacher(tmp_path):
    summary = run(tmp_path, "method=mean_teacher", "stage.select=best", "stage.epochs=3")
    epochs = [record["metrics"] for record in metrics(tmp_path) if record["kind"] == "epoch"]
    assert summary["stages"]["distill"]["best"] == max(each["student_ema_validation_accuracy"] for each in epochs)
    assert [row["network"] for row in summary["rows"]] == ["student", "student_ema"]


@pytest.mark.slow
def test_a_teacher_of_a_student_that_comes_with_weights_begins_with_them(tmp_path):
    run(tmp_path / "first", "method=ce", *SHORT)
    file = f"student.checkpoint={tmp_path / 'first' / 'student.pt'}"
    with stage(tmp_path / "second", "method=mean_teacher", file) as built:
        assert equal(snapshot(built.averages["student"].module), snapshot(network(built, "student")))
        assert built.warnings == []


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["method.stages.distill.ema.decay=null"], "there is no average of weights; set method.stages.distill.ema"),
        (["method.stages.distill.roles.teacher=teacher_ema"], "the stage does not train 'teacher', so there is no av"),
        (["method.stages.distill.roles.teacher=nobody_ema"], "unknown network 'nobody_ema'"),
        (["method.stages.distill.losses.consistency.inputs.teacher=student_ema.logit"], "did you mean 'logits'?"),
    ],
)
def test_an_average_that_is_not_there_is_refused(overrides, message):
    errors, _, _ = read(compose([*TINY, "prelude=none", "method=mean_teacher", *overrides]))
    assert any(message in error for error in errors), errors


@pytest.mark.slow
def test_a_network_may_be_refused_for_its_own_reason(tmp_path):
    assert "unknown tap" in refusal(tmp_path, "method=byot", "method.params.exits=[stage7]")

"""One training step: what it runs and how far, what it changes and what it must not, and the sum of its terms."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from engine_fixtures import (
    GOLDENS,
    changed,
    count_calls,
    metrics,
    network,
    networks,
    refusal,
    run,
    runner,
    snapshot,
    stage,
    train,
)
from torch import nn

from distill_app.config.addresses import Address
from distill_app.losses import KLDivergence, LinearWarmup
from distill_app.networks import network as network_module
from distill_app.networks.hooks import TappedModel
from distill_app.training.precision import Precision
from distill_app.training.stage import Stage
from distill_app.training.step import Step, Term

METHODS_WITH_A_TEACHER = ("kd", "ft", *(pytest.param(name, marks=pytest.mark.slow) for name in ("fitnet", "at")))


@pytest.mark.parametrize("method", METHODS_WITH_A_TEACHER)
@pytest.mark.slow
def test_teacher_is_bit_identical_after_training(tmp_path, method):
    with runner(tmp_path, f"method={method}", "runtime.max_epochs=2") as made:
        before, student_before = (snapshot(networks(made)[name]) for name in ("teacher", "student"))
        assert any("running_mean" in name for name in before)
        made.run()  # builds the networks once more, equal to the bit
        teacher, student = (networks(made)[name] for name in ("teacher", "student"))
        assert changed(teacher, before) == set()
        assert changed(student, student_before) == set(student_before)
        assert not any(parameter.requires_grad or parameter.grad is not None for parameter in teacher.parameters())


def test_teacher_runs_in_eval_mode_and_the_student_in_train_mode(tmp_path):
    with stage(tmp_path, "method=kd") as built:
        modes = []
        for name, running in (
            ("teacher", built.frozen.running("teacher").model),
            ("student", network(built, "student")),
        ):
            running.fc.register_forward_pre_hook(lambda m, a, name=name: modes.append((name, m.training)))
        train(built)
        built.judge()
    assert {("teacher", False), ("student", True)} == set(modes[:4])
    assert set(modes[4:]) == {("student", False)}


class Chosen(nn.Module):
    """The class that logits speak for."""

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.argmax(dim=1)


def test_what_an_adapter_fills_in_is_what_terms_read_of_the_batch(tmp_path):
    chosen = {"module": {"_target_": f"{__name__}.Chosen"}, "source": "teacher.logits", "fills": "target"}
    with stage(
        tmp_path, "method=kd", f"runtime.allow=[{__name__}]", distill={"adapters": {"chosen": chosen}, "losses": {}}
    ) as built:
        batch = built.prepare(next(iter(built.data.train)))
        said = built.frozen.activations(batch)
        before, (_, values) = batch["target"].clone(), built.step(batch, said)
        labels, logits = (
            said["teacher"]["logits"].argmax(dim=1),
            built.step.networks["student"](batch["input"])["logits"],
        )
        torch.testing.assert_close(values["ce"], nn.functional.cross_entropy(logits, labels))
        assert batch["target"].equal(before) and not labels.equal(before)


def test_frozen_block_keeps_its_weights_and_batch_statistics(tmp_path):
    with stage(tmp_path, "method.stages.distill.freeze=[student.features.0]") as built:
        student = network(built, "student")
        before = snapshot(student)
        train(built, epochs=2)
        assert changed(student, before) == {name for name in before if not name.startswith("features.0.")}
        frozen = set(map(id, student.features[0].parameters()))
        assert not frozen & set(map(id, built.optimization.parameters))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["BatchNorm2d", "torch.nn.BatchNorm2d"])
def test_freezing_by_class_freezes_every_module_of_it(tmp_path, kind):
    with stage(tmp_path, f"method.stages.distill.freeze=['student:{kind}']") as built:
        student = network(built, "student")
        before = snapshot(student)
        train(built)
        norms = {
            name for name in before if name.split(".")[:2] == ["features", name.split(".")[1]] and ".1." in name[9:]
        }
        assert len(norms) == 10
        assert changed(student, before) == set(before) - norms


def test_freezing_by_class_below_a_path_leaves_the_rest(tmp_path):
    with stage(tmp_path, "method.stages.distill.freeze=['student.features.1:BatchNorm2d']") as built:
        student = network(built, "student")
        before = snapshot(student)
        train(built)
        assert changed(student, before) == {name for name in before if not name.startswith("features.1.1.")}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("student.features.7", "no module at 'features.7'"),
        ("student:torch.nn.GroupNorm", "no module of class 'torch.nn.GroupNorm' in student"),
        ("pupil", "'pupil' names no network"),
    ],
)
def test_freezing_what_is_not_there_is_an_error(tmp_path, entry, message):
    assert message in refusal(tmp_path, f"method.stages.distill.freeze=['{entry}']")


@pytest.mark.slow
def test_a_later_stage_trains_what_an_earlier_one_froze(tmp_path):
    overrides = ("method=fitnet", "method.stages.hint.freeze=[student.features.0.1]", "runtime.max_epochs=1")
    with runner(tmp_path, *overrides) as made:
        before = snapshot(networks(made)["student"])
        made.run()
        assert changed(networks(made)["student"], before) == set(before)


HINT = ("method=fitnet", "method.params.tap=stage3")


def test_hint_stage_stops_both_forwards_after_the_tap(tmp_path):
    with stage(tmp_path, *HINT) as built:
        teacher, student = count_calls(built.frozen.running("teacher").model), count_calls(network(built, "student"))
        train(built)
        batches = len(built.batch_sizes)
    # stage3 of the three-block teacher is its second block, that of the two-block student its first
    assert teacher == {f"features.{block}.{layer}": batches for block in (0, 1) for layer in (0, 1, 2)}
    assert student == {f"features.0.{layer}": batches for layer in (0, 1, 2)}


def test_forwards_still_stop_after_an_evaluation(tmp_path):
    with stage(tmp_path, *HINT) as built:
        train(built)
        built.judge()
        teacher, student = count_calls(built.frozen.running("teacher").model), count_calls(network(built, "student"))
        train(built, first=1)
    assert not any(name.startswith(("features.2", "avgpool", "fc")) for name in teacher)
    assert not any(name.startswith(("features.1", "avgpool", "fc")) for name in student)


def test_stopping_changes_neither_loss_nor_gradients(tmp_path, monkeypatch):
    def loss_and_gradients(folder):
        with stage(folder, *HINT) as built:
            built.begin_epoch(0)
            batch = built.task.prepare(next(iter(built.data.train)), device=built.device)
            total, _ = built.step(batch, built.frozen.run(batch))
            total.backward()
            stops = [tapped.stops_at for tapped in built.tapped.values()]
            return total, {name: p.grad for name, p in built.step.named_parameters() if p.grad is not None}, stops

    total, gradients, stops = loss_and_gradients(tmp_path / "stopping")
    monkeypatch.setattr(network_module, "TappedModel", partial(TappedModel, stop=False))
    full_total, full_gradients, full_stops = loss_and_gradients(tmp_path / "full")
    assert stops == ["stage3", "stage3"]
    assert full_stops == [None, None]
    assert torch.equal(total, full_total)
    assert gradients.keys() == full_gradients.keys()
    assert len(gradients) > 3
    assert all(torch.equal(gradients[name], full_gradients[name]) for name in gradients)


@pytest.mark.slow
def test_parameters_that_no_term_reads_stay_out_of_the_optimiser(tmp_path):
    with stage(tmp_path, *HINT, "stage.optimizer.weight_decay=0.5") as built:
        student = network(built, "student")
        before = snapshot(student)
        beyond = {name for name in before if not name.startswith("features.0.")}
        trained = set(map(id, built.optimization.parameters))
        assert not {id(p) for name, p in student.named_parameters() if name in beyond} & trained
        train(built, epochs=2)
        assert changed(student, before) == set(before) - beyond


@pytest.mark.slow
def test_building_a_stage_changes_no_buffer_and_no_random_state(tmp_path):
    with runner(tmp_path, "method=ft") as made:
        before = {name: snapshot(net) for name, net in networks(made).items()}
        state = torch.get_rng_state()
        for plan in made.plans:
            Stage(plan, made.experiment).close()
        assert torch.equal(torch.get_rng_state(), state)
        assert all(changed(networks(made)[name], before[name]) == set() for name in before)


def test_a_teacher_listed_in_train_is_trained(tmp_path):
    overrides = (
        "method.stages.distill.train=[student,teacher]",
        "+loss@method.stages.distill.losses.teacher_ce=cross_entropy",
        "method.stages.distill.losses.teacher_ce.inputs.input=teacher.logits",
    )
    with stage(tmp_path, *overrides) as built:
        before = snapshot(network(built, "teacher"))
        train(built)
        assert changed(network(built, "teacher"), before) == set(before)


class Given(nn.Module):
    """The loss that a model has computed itself."""

    def forward(self, value):
        return value


def _weighted(weights):
    terms = {
        "ce": (nn.CrossEntropyLoss(), {"input": "student.logits", "target": "batch.target"}, 0.5 + 2.0 * 0.5),
        "kl": (KLDivergence(4.0), {"student": "student.logits", "teacher": "teacher.logits"}, 2.0 * 0.5),
        "feature": (nn.MSELoss(), {"input": "student.pooled", "target": "teacher.pooled"}, 15.0),
    }
    for number, weight in enumerate(weights):
        terms[f"model{number}"] = (Given(), {"value": f"batch.losses.{number}"}, weight)
    return {
        name: Term(loss, {argument: Address.parse(text, {}) for argument, text in inputs.items()}, weight)
        for name, (loss, inputs, weight) in terms.items()
    }


@pytest.mark.parametrize(
    ("case", "weights"),
    [
        ("td_no_model_term", ()),
        ("td_model_weight_0_5", (0.5, 0.5, 0.5, 0.5)),
        # loss_classifier, loss_box_reg, loss_objectness, loss_rpn_box_reg
        ("td_model_weight_dict", (1.0, 2.0, 0.0, 0.5)),
    ],
)
def test_the_total_is_the_weighted_sum_of_the_terms(case, weights):
    golden = {name: torch.from_numpy(value) for name, value in np.load(GOLDENS / "weighted_sum.npz").items()}
    logits, feature = (golden[f"in/student_{name}"].clone().requires_grad_() for name in ("logits", "feat"))
    given = {
        "student": {"logits": logits, "pooled": feature},
        "teacher": {"logits": golden["in/teacher_logits"], "pooled": golden["in/teacher_feat"]},
    }
    batch = {"target": golden["in/labels"], "losses": list(golden["in/model_losses"])}
    total, values = Step(networks={}, adapters={}, terms=_weighted(weights), call=lambda *_: {}, precision=Precision())(
        batch, given
    )
    torch.testing.assert_close(total.detach(), golden[f"{case}/loss"], rtol=1e-9, atol=0)
    assert list(values) == ["ce", "kl", "feature", *(f"model{number}" for number in range(len(weights)))]
    total.backward()
    for name, tensor in (("student_logits", logits), ("student_feat", feature)):
        torch.testing.assert_close(tensor.grad, golden[f"{case}/grad/{name}"], rtol=1e-8, atol=1e-12)


@pytest.mark.slow
def test_every_term_is_logged_by_name_and_a_weight_schedule_moves_within_the_epoch(tmp_path):
    weight = "{_target_: distill_app.losses.LinearWarmup, value: 2.0, epochs: 2}"
    run(tmp_path, "method=kd", f"method.stages.distill.losses.kd.weight={weight}", "stage.batch_size=32")
    steps = [record for record in metrics(tmp_path) if record["kind"] == "step"]
    assert [(record["epoch"], record["step"]) for record in steps] == [(e, s) for e in range(2) for s in range(4)]
    schedule = LinearWarmup(value=2.0, epochs=2)
    assert [schedule(r["epoch"] + r["step"] / 4) for r in steps] == [0.25 * number for number in range(8)]
    for record in steps:
        assert list(record["losses"]) == ["ce", "kd"]
        losses, now = record["losses"], record["epoch"] + record["step"] / 4
        assert math.isclose(record["total"], 0.5 * losses["ce"] + schedule(now) * losses["kd"], rel_tol=1e-5)
    epochs = [record["metrics"] for record in metrics(tmp_path) if record["kind"] == "epoch"]
    for number, epoch in enumerate(epochs):
        means = [np.mean([r["losses"]["kd"] for r in steps if r["epoch"] == number])]
        assert epoch["loss_kd"] == pytest.approx(means[0], rel=1e-5)
        assert {"loss_total", "loss_ce", "loss_kd", "validation_accuracy", "validation_loss"} <= epoch.keys()


def test_a_term_that_a_schedule_holds_at_zero_still_trains_what_it_reads_later(tmp_path):
    overrides = (
        "method=fitnet",
        "method.schedule=[hint]",
        "method.stages.hint.losses.hint.weight={_target_: distill_app.losses.LinearWarmup, value: 1.0, epochs: 2}",
    )
    with stage(tmp_path, *overrides) as built:
        regressor = built.step.adapters["regressor"]
        assert set(map(id, regressor.parameters())) <= set(map(id, built.optimization.parameters))


def test_a_term_can_be_switched_off(tmp_path):
    with stage(tmp_path, "method.stages.distill.losses.ce=null") as built:
        assert list(train(built)) == ["total", "kd"]


def test_a_stage_without_any_term_is_an_error(tmp_path):
    off = [f"method.stages.distill.losses.{name}=null" for name in ("ce", "kd")]
    assert "needs at least one loss term" in refusal(tmp_path, *off)

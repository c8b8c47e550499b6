"""From wiring and probed shapes to adapters and loss terms: what is built, shared, kept, and refused."""

import pytest
import torch
from engine_fixtures import equal, network, networks, refusal, run, runner, snapshot, stage, train
from torch import nn

from distill_app.adapters import ConvRegressor
from distill_app.errors import ConfigError
from distill_app.training.stage import Stage

DISTILL = "method.stages.distill"
ADAPTERS = "distill_app.adapters"


def adapter(path: str, /, *, source: str, to: str | None = None, **arguments) -> dict:
    return {"module": {"_target_": path, **arguments}, "source": source, "target": to}


def term(path: str, /, *, weight: float = 1.0, **inputs) -> dict:
    return {"loss": {"_target_": path}, "inputs": inputs, "weight": weight}


FIT = {
    "adapters": {"fit": adapter(f"{ADAPTERS}.ConvRegressor", source="student.stage4", to="teacher.stage4")},
    "losses": {"fit": term("torch.nn.MSELoss", input="adapters.fit", target="teacher.stage4")},
}


def test_adapters_get_the_shapes_of_their_source_and_target(tmp_path):
    with stage(tmp_path, distill=FIT) as built:
        adapter = built.step.adapters["fit"]
        shapes = [tuple(built.examples[net]["stage4"].shape) for net in ("student", "teacher")]
        assert shapes == [(2, 16, 2, 2), (2, 128, 1, 1)]
        assert isinstance(adapter, ConvRegressor)
        assert adapter(torch.zeros(3, *shapes[0][1:])).shape == (3, *shapes[1][1:])
        before = snapshot(adapter)
        assert "fit" in train(built)
        assert not equal(snapshot(adapter), before)


def test_adapters_may_read_other_adapters(tmp_path):
    second = adapter(f"{ADAPTERS}.ConvRegressor", source="adapters.fit", to="teacher.stage3")
    chain = {
        "adapters": {"second": second, **FIT["adapters"]},
        "losses": {"fit": term("torch.nn.MSELoss", input="adapters.second", target="teacher.stage3")},
    }
    with stage(tmp_path, distill=chain) as built:
        assert list(built.step.adapters) == ["fit", "second"]
        before = {name: snapshot(module) for name, module in built.step.adapters.items()}
        train(built)
        assert all(not equal(snapshot(module), before[name]) for name, module in built.step.adapters.items())


def test_adapters_that_nothing_reads_are_not_built(tmp_path):
    with stage(tmp_path, distill={"adapters": FIT["adapters"]}) as built:
        assert list(built.step.adapters) == []


@pytest.mark.slow
def test_adapters_are_initialised_alike_whatever_else_is_there(tmp_path):
    with stage(tmp_path / "a", distill=FIT) as built:
        alone = snapshot(built.step.adapters["fit"])
    off = [f"{DISTILL}.losses.{name}=null" for name in ("ce", "kd")]
    with stage(tmp_path / "b", *off, distill=FIT) as built:
        assert equal(snapshot(built.step.adapters["fit"]), alone)
    with stage(tmp_path / "c", "seed=1", distill=FIT) as built:
        assert not equal(snapshot(built.step.adapters["fit"]), alone)


@pytest.mark.slow
def test_a_later_stage_finds_the_adapters_with_what_they_learnt(tmp_path):
    with runner(tmp_path, "method=ft", "method.stages.paraphrase.epochs=1") as made:
        first = Stage(made.plans[0], made.experiment)
        first.tracker = made.tracker
        before = snapshot(first.step.adapters["encoder"])
        train(first)
        learnt = snapshot(first.step.adapters["encoder"])
        first.close()
        assert not equal(learnt, before)
        second = Stage(made.plans[1], made.experiment)
        second.tracker = made.tracker
        assert second.step.adapters["encoder"] is first.step.adapters["encoder"]
        train(second)
        assert equal(snapshot(second.step.adapters["encoder"]), learnt)
        assert not second.step.adapters["encoder"].training
        assert "decoder" not in second.step.adapters
        second.close()


@pytest.mark.slow
def test_a_later_stage_finds_the_losses_with_what_they_learnt(tmp_path):
    # fitnet's second stage and one put in front of it share the term `kd`, whose loss has a parameter.
    loss = "{_target_: engine_fixtures.Scaled, temperature: null}"
    overrides = (
        "method=takd",
        "model@method.extra_models.assistant=plain_8_16",
        *(f"method.stages.{name}.losses.kd.loss={loss}" for name in ("assist", "distill")),
        "runtime.allow=[engine_fixtures]",
    )
    with runner(tmp_path, *overrides) as made:
        first = Stage(made.plans[0], made.experiment)
        first.tracker = made.tracker
        train(first)
        first.close()
        second = Stage(made.plans[1], made.experiment)
        assert second.step.losses["kd"] is first.step.losses["kd"]
        assert float(second.step.losses["kd"].scale.detach()) != 1.0
        second.close()


@pytest.mark.slow
def test_a_loss_that_is_configured_differently_is_a_new_one(tmp_path):
    with runner(tmp_path, "method=takd", "method.stages.distill.losses.kd.loss.temperature=2.0") as made:
        first, second = (Stage(plan, made.experiment) for plan in made.plans)
    assert (first.step.losses["kd"].temperature, second.step.losses["kd"].temperature) == (4.0, 2.0)


def test_losses_are_part_of_the_step(tmp_path):
    overrides = (
        f"{DISTILL}.losses.kd.loss={{_target_: engine_fixtures.Scaled, temperature: null}}",
        "runtime.allow=[engine_fixtures]",
    )
    with stage(tmp_path, *overrides) as built:
        assert "losses.kd.scale" in built.step.state_dict()


def test_any_torch_loss_can_be_a_term(tmp_path):
    huber = term("torch.nn.HuberLoss", input="student.logits", target="teacher.logits")
    huber["loss"]["delta"] = 0.5
    with stage(tmp_path, f"{DISTILL}.losses.kd=null", distill={"losses": {"huber": huber}}) as built:
        built.begin_epoch(0)
        batch = built.task.prepare(next(iter(built.data.train)), device=built.device)
        given = built.frozen.run(batch)
        _, values = built.step(batch, given)
        student = network(built, "student")
        built.close()
        expected = nn.HuberLoss(delta=0.5)(student(batch["input"]), given["teacher"]["logits"])
        torch.testing.assert_close(values["huber"], expected)


@pytest.mark.slow
def test_all_that_does_not_fit_is_told_at_once_with_shapes_and_an_adapter(tmp_path):
    overrides = (
        f"+loss@{DISTILL}.losses.one=l2",
        f"+loss@{DISTILL}.losses.two=l2",
        f"{DISTILL}.losses.two.inputs={{input: student.stage4, target: teacher.stage4}}",
    )
    with pytest.raises(ConfigError) as caught, stage(tmp_path, *overrides):
        pass
    one, two = caught.value.errors
    assert one.startswith(f"{DISTILL}.losses.one: MSELoss cannot take input (2, 16), target (2, 128)")
    assert "distill_app.adapters.LinearProjector}, source: student.pooled, target: teacher.pooled" in one
    assert two.startswith(f"{DISTILL}.losses.two: MSELoss cannot take input (2, 16, 2, 2), target (2, 128, 1, 1)")
    assert "distill_app.adapters.ConvRegressor}, source: student.stage4, target: teacher.stage4" in two


def test_the_suggested_adapter_works(tmp_path):
    with stage(tmp_path, distill=FIT) as built:
        assert train(built)["fit"] > 0


def test_a_loss_must_be_a_scalar(tmp_path):
    told = refusal(tmp_path, f"+{DISTILL}.losses.ce.loss.reduction=none")
    assert "losses.ce: CrossEntropyLoss must return a scalar tensor, got (2,)" in told


def test_building_a_stage_leaves_the_buffers_of_adapters_alone(tmp_path):
    wiring = {
        "adapters": {"norm": adapter("torch.nn.BatchNorm1d", source="student.logits", num_features=10)},
        "losses": {"norm": term("torch.nn.MSELoss", input="adapters.norm", target="teacher.logits")},
    }
    with stage(tmp_path, distill=wiring) as built:
        norm = built.step.adapters["norm"]
        assert int(norm.num_batches_tracked) == 0
        train(built)
        assert int(norm.num_batches_tracked) == len(built.batch_sizes)


@pytest.mark.slow
def test_weights_of_one_network_can_start_another(tmp_path):
    overrides = (
        "prelude=comparison",
        "prelude.schedule=[alone]",
        "method=ce",
        "+method.stages.train.init_from={student: baseline}",
        "runtime.max_epochs=1",
    )
    with runner(tmp_path, *overrides) as made:
        first = Stage(made.plans[0], made.experiment)
        first.tracker = made.tracker
        train(first)
        first.close()
        second = Stage(made.plans[1], made.experiment)
        student, baseline = (networks(made)[name] for name in ("student", "baseline"))
        assert not equal(snapshot(student), snapshot(baseline))
        made.begin(second, None)
        assert equal(snapshot(student), snapshot(baseline))
        second.close()
    assert "student starts from baseline: 14 of 14 tensors" in (tmp_path / "train.log").read_text()


@pytest.mark.slow
def test_weights_whose_shapes_differ_are_left(tmp_path):
    overrides = (
        "method=ce",
        "+method.stages.train.init_from={student: other}",
        "+model@extra_models.other=plain_8_16",
        "extra_models.other.net.num_classes=7",
    )
    run(tmp_path, *overrides)
    log = (tmp_path / "train.log").read_text()
    assert "student starts from other: 12 of 14 tensors; kept its own fc.bias, fc.weight" in log


@pytest.mark.slow
def test_starting_from_a_network_with_nothing_in_common_is_an_error(tmp_path):
    overrides = ("method=ce", "+method.stages.train.init_from={student: other}", "+model@extra_models.other=resnet8")
    with pytest.raises(ValueError, match="student cannot start from other: no weight agrees in name and shape"):
        run(tmp_path, *overrides)


MAPS = {"_target_": f"{ADAPTERS}.ClassMaps"}


def borrowing(what, module=MAPS):
    adapter = {"module": module, "source": ["student.stage4", "student.pooled"], "borrows": what}
    loss = {"loss": {"_target_": "torch.nn.MSELoss"}, "inputs": {"input": "adapters.maps", "target": "adapters.maps"}}
    return {"adapters": {"maps": adapter}, "losses": {"maps": loss}}


def test_an_adapter_works_with_a_module_that_stays_the_networks_own(tmp_path):
    with stage(tmp_path, distill=borrowing("student.pooled")) as built:
        (classifier,) = built.step.adapters["maps"]._borrowed
        assert classifier is network(built, "student").fc
        assert not [name for name, _ in built.step.named_parameters() if name.startswith("adapters")]


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("student", "names no module; write student.<tap>"),
        ("studnet.pooled", "did you mean 'student'"),
        ("student.fcc", "no module at 'fcc'"),
    ],
)
def test_a_module_that_cannot_be_borrowed_is_told_with_its_key(tmp_path, what, told):
    with pytest.raises(ConfigError) as caught, stage(tmp_path, distill=borrowing(what)):
        pass
    (error,) = [error for error in caught.value.errors if "maps.borrows" in error]
    assert told in error


def test_an_adapter_that_has_no_use_for_a_module_says_so(tmp_path):
    module = {"_target_": f"{ADAPTERS}.SelectView", "views": 1}
    with (
        pytest.raises(ConfigError, match="takes no module of a network"),
        stage(tmp_path, distill=borrowing("student.pooled", module)),
    ):
        pass

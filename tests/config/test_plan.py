"""Addresses, and what follows from them for each stage: networks, taps, adapters, what is inherited."""

from typing import Any

import pytest
from plan_fixtures import ADAM, DATA, NET, SGD, STEP, app, term

from distill_app.config.addresses import Address, bind, fetch
from distill_app.config.planning import plan_stages


def adapter(source: Any, target: str | None = None) -> dict[str, Any]:
    return {"module": {"_target_": "torch.nn.Identity"}, "source": source, "target": target}


def stages(**named: dict[str, Any]) -> dict[str, Any]:
    return {"stages": named}


def plans(method: dict[str, Any], **more: Any):
    found, errors = plan_stages(app(method, **more))
    assert errors == []
    return found


def errors(method: dict[str, Any], **more: Any) -> list[str]:
    return plan_stages(app(method, **more))[1]


KD = {"losses": {"kd": term(input="student.logits", target="teacher.logits")}}
CE = {"losses": {"ce": term(input="student.logits", target="batch.target")}}


def test_an_address_is_looked_up_through_nested_values():
    namespace = {"student": {"fpn": [{"p": 1}, {"p": 2}]}, "batch": {"target": 3}}
    assert Address.parse("student.fpn.-1.p", {}).fetch(namespace) == 2
    nested = bind({"a": ["student.fpn.0.p", "batch.target"], "b": None}, {})
    assert fetch(nested, namespace) == {"a": [1, 3], "b": None}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("student.fpm", "nothing provides student.fpm: unknown key 'fpm'; did you mean 'fpn'?"),
        ("student.fpn.2", r"unknown key '2' \(there are: 0, 1\)"),
        ("student.fpn.-3", "unknown key '-3'"),
        ("teacher.fpn", r"nothing provides teacher.fpn: unknown key 'fpn' \(there are: none\)"),
    ],
)
def test_an_address_that_leads_nowhere_names_what_is_there(text, message):
    with pytest.raises(KeyError, match=message):
        Address.parse(text, {}).fetch({"student": {"fpn": [1, 2]}})


@pytest.mark.parametrize("text", ["logits", "", "student.", ".logits", "student..logits"])
def test_an_address_has_a_space_and_a_name(text):
    with pytest.raises(ValueError, match="is no address; write student"):
        Address.parse(text, {})


def test_a_stage_needs_the_networks_and_taps_that_it_reads_and_no_more():
    method = stages(distill={"losses": {"x": term(a="student.stage2", b="teacher.stage1", c="student.output")}})
    (plan,) = plans(method)
    assert plan.taps == {"student": ["stage2", "output"], "teacher": ["stage1"]}
    (plan,) = plans(stages(train=CE))
    assert plan.taps == {"student": ["logits"]} and plan.trained == ["student"]


def test_a_role_is_played_by_another_network():
    method = {
        **stages(assist={"roles": {"student": "assistant"}, **KD}, distill={"roles": {"teacher": "assistant"}, **KD}),
        "extra_models": {"assistant": NET},
    }
    assist, distill = plans(method)
    assert assist.taps == {"assistant": ["logits"], "teacher": ["logits"]} and assist.trained == ["assistant"]
    assert distill.taps == {"student": ["logits"], "assistant": ["logits"]} and distill.trained == ["student"]


def test_networks_may_be_addressed_by_their_names():
    method = {**stages(a={"losses": {"x": term(a="student.logits", b="peer.logits")}}), "extra_models": {"peer": NET}}
    assert plans(method)[0].taps == {"student": ["logits"], "peer": ["logits"]}


def test_objects_are_inherited_from_the_stage_before_and_numbers_from_the_recipe():
    method = stages(
        one=CE,
        two={"optimizer": ADAM, "scheduler": STEP, "data": {**DATA, "name": "b"}, "epochs": 3, **CE},
        three=CE,
        four={"optimizer": SGD, **CE},
    )
    one, two, three, four = plans(method)
    assert [plan.optimizer["_target_"][-4:] for plan in (one, two, three, four)] == [".SGD", "Adam", "Adam", ".SGD"]
    keys = [
        "stage.optimizer",
        "method.stages.two.optimizer",
        "method.stages.two.optimizer",
        "method.stages.four.optimizer",
    ]
    assert [plan.optimizer_key for plan in (one, two, three, four)] == keys
    assert [plan.scheduler.interval for plan in (one, two, three, four)] == ["epoch", "step", "step", "step"]
    assert [plan.scheduler_key for plan in (one, three)] == ["stage.scheduler", "method.stages.two.scheduler"]
    assert [plan.data.name for plan in (one, two, three, four)] == ["a", "b", "b", "b"]
    assert [plan.data_key for plan in (one, four)] == ["dataset", "method.stages.two.data"]
    assert [plan.conf.epochs for plan in (one, two, three, four)] == [100, 3, 100, 100]


def test_the_method_inherits_nothing_from_the_prelude():
    prelude = {"name": "p", "schedule": ["first"], "stages": {"first": {"optimizer": ADAM, "data": None, **CE}}}
    first, train = plans(stages(train=CE), prelude=prelude)
    assert first.optimizer == ADAM and first.key == "prelude.stages.first"
    assert train.optimizer == SGD and train.key == "method.stages.train"


def test_stages_run_in_the_order_of_the_schedule_and_only_those():
    method = {**stages(distill=CE, hint=CE, spare=CE), "schedule": ["hint", "distill"]}
    assert [plan.name for plan in plans(method)] == ["hint", "distill"]


def test_epochs_are_cut_short_for_debugging_and_the_warm_up_with_them():
    method = stages(a={"warmup_epochs": 5, **CE}, b={"epochs": 1, **CE})
    a, b = plans(method, runtime={"max_epochs": 2})
    assert (a.conf.epochs, a.conf.warmup_epochs, b.conf.epochs) == (2, 1, 1)
    assert plans(method)[0].conf.epochs == 100


def test_adapters_are_ordered_sources_first_and_only_those_that_are_read():
    adapters = {
        "last": adapter("adapters.middle", "teacher.stage4"),
        "unread": adapter("student.stage4"),
        "middle": adapter(["adapters.first", "student.stage3"], "adapters.side"),
        "side": adapter("teacher.stage2"),
        "first": adapter("student.stage1"),
    }
    (plan,) = plans(stages(a={"adapters": adapters, "losses": {"x": term(a="adapters.last", b="student.logits")}}))
    assert plan.adapters == ["first", "side", "middle", "last"]
    assert set(plan.trained_adapters) == {"first", "side", "middle", "last"}
    # Of a target in a network the shape is wanted, once; a target that is an adapter runs with the others.
    assert plan.taps == {"student": ["stage1", "stage3", "logits"], "teacher": ["stage2"]}
    assert plan.shape_taps == {"teacher": ["stage4"]}


def test_an_adapter_is_trained_where_it_is_declared_and_frozen_afterwards_unless_listed():
    encoder = {"encoder": adapter("teacher.stage4")}
    read = {"losses": {"x": term(a="adapters.encoder", b="student.stage4")}}
    method = stages(
        first={"train": [], "adapters": encoder, **read},
        second=read,
        third={"train": ["student", "adapters.encoder"], **read},
    )
    first, second, third = plans(method)
    assert (first.trained, first.trained_adapters) == ([], ["encoder"])
    assert (second.adapters, second.trained_adapters) == (["encoder"], [])
    assert (third.trained, third.trained_adapters) == (["student"], ["encoder"])


def test_a_term_or_adapter_that_is_null_is_switched_off():
    losses = {**CE["losses"], "kd": None}
    (plan,) = plans(stages(a={"losses": losses, "adapters": {"gone": None}}))
    assert list(plan.terms) == ["ce"] and plan.declared == []


def test_adapters_that_read_each_other_in_a_circle_are_an_error():
    adapters = {"a": adapter("adapters.b"), "b": adapter("adapters.c"), "c": adapter("adapters.a")}
    (error,) = errors(stages(s={"adapters": adapters, "losses": {"x": term(a="adapters.a", b="student.logits")}}))
    assert error.startswith("method.stages.s.adapters.c.source: ") and error.endswith("a -> b -> c -> a")


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (
            {"losses": {"x": term(a="adapters.fti")}, "adapters": {"fit": adapter("student.stage1")}},
            "did you mean 'fit'?",
        ),
        ({"losses": {"x": term(a="student.stag1")}}, "unknown tap 'stag1'; did you mean 'stage1'?"),
        ({"losses": {"x": term(a="techer.stage1")}}, "unknown network 'techer'; did you mean 'teacher'?"),
        ({"losses": {"x": term(a="batch.target")}}, "no loss term reads 'student', so nothing would train it"),
        ({"losses": {}}, "method.stages.s.losses: a stage needs at least one loss term"),
        ({"roles": {"teacher": "asistant"}, **CE}, "method.stages.s.roles.teacher: unknown network 'asistant'"),
        (
            {"init_from": {"student": "techer"}, **CE},
            "s.init_from.student: unknown network 'techer'; did you mean 'tea",
        ),
        ({"train": ["student", "adapters.fit"], **CE}, "method.stages.s.train: unknown adapter 'fit'"),
    ],
)
def test_what_cannot_be_wired_is_one_error_with_its_key(stage, message):
    (error,) = errors(stages(s=stage))
    assert error.startswith("method.stages.s") and message in error


def test_a_schedule_names_stages_once():
    method = {**stages(a=CE), "schedule": ["a", "a", "b"]}
    twice, unknown = errors(method)
    assert twice.startswith("method.schedule: the stage 'a' is there twice") and "unknown stage 'b'" in unknown
    assert errors({"stages": {}}) == ["method.schedule: no stage to run; name at least one of method.stages"]


def test_wrappers_of_the_data_set_may_be_replaced_or_left_out_in_a_stage():
    data = {"wrappers": {"views": {"_target_": "a"}, "noise": {"_target_": "b"}}}
    method = stages(s={"wrappers": {"views": {"_target_": "c"}, "noise": None}, **CE}, t=CE)
    s, t = plans(method, dataset=data)
    assert s.wrappers == {"views": ({"_target_": "c"}, "method.stages.s.wrappers.views")}
    assert t.wrappers["noise"] == ({"_target_": "b"}, "dataset.wrappers.noise")


def filling(source: Any, fills: str = "target", **more: Any) -> dict[str, Any]:
    return {"adapters": {"made": {**adapter(source), "fills": fills}}, **KD, **more}


def test_what_fills_a_key_of_the_batch_is_run_although_no_term_reads_it():
    (plan,) = plans(stages(distill=filling({"targets": "batch.target", "said": "teacher.stage4"})))
    assert plan.adapters == ["made"] and plan.taps["teacher"] == ["logits", "stage4"]
    (plain,) = plans(stages(distill={"adapters": {"made": adapter("teacher.stage4")}, **KD}))
    assert plain.adapters == [] and plain.taps["teacher"] == ["logits"]


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (
            filling("student.logits"),
            "made.source: student.logits: 'student' is trained here, and runs behind what fills",
        ),
        (filling("teacher.logits", train=["teacher", "student"]), "'teacher' is trained here"),
        (filling("teacher.logits", fills="rows"), "made.fills: 'rows' says which samples a batch is made of"),
        (filling("teacher.stage9"), "adapters.made.source: teacher.stage9: unknown tap 'stage9'"),
    ],
)
def test_what_fills_the_batch_knows_nothing_of_what_is_trained(stage, message):
    assert any(message in error for error in errors(stages(distill=stage)))


def test_adapters_that_fill_one_key_or_read_others_are_refused():
    two = {name: {**adapter("teacher.logits"), "fills": "target"} for name in ("one", "other")}
    found = errors(stages(distill={"adapters": two, **KD}))
    assert len(found) == 2 and all("'target' is filled by another adapter too" in error for error in found)
    chain = {"one": adapter("teacher.logits"), "other": {**adapter("adapters.one"), "fills": "target"}}
    (text,) = errors(stages(distill={"adapters": chain, **KD}))
    assert "adapters.other.source: adapters.one: what fills the batch reads it and networks" in text


def test_targets_of_images_without_are_read_by_no_term_unless_they_are_filled_in():
    ce = {"losses": {"ce": term(input="student.logits", target="batch.target")}}
    (text,) = errors(stages(distill={"unlabelled": True, **ce}))
    assert text.startswith("method.stages.distill.unlabelled: the term 'ce' reads batch.target")
    through = {"adapters": {"both": adapter(["student.logits", "batch.target"])}}
    read = {"losses": {"x": term(input="adapters.both", target="teacher.logits")}}
    (text,) = errors(stages(distill={"unlabelled": True, **through, **read}))
    assert "the term 'x' reads batch.target" in text
    assert not errors(stages(distill={"unlabelled": True, **KD}))
    assert not errors(stages(distill={**filling("teacher.logits"), **ce, "unlabelled": True}))


@pytest.mark.parametrize("source", ["student.logits", "adapters.fit"])
def test_a_network_in_two_roles_of_one_term_is_refused(source):
    stage = {
        "adapters": {"fit": adapter("student.logits")},
        "losses": {"kd": term(input=source, target="teacher.logits")},
    }
    method = {"params": {"assistants": ["student"]}} | stages(distill=stage | {"roles": {"teacher": "student"}})
    assert errors(method) == [
        "method.stages.distill.roles.teacher: is 'student', which the term 'kd' reads as student too: a network would "
        "be compared with itself; name another one; method.params.assistants names 'student'"
    ]


def test_a_network_is_its_own_teacher_by_its_average_or_where_terms_read_one_role_each():
    averaged = KD | {"roles": {"teacher": "student_ema"}, "ema": {"decay": 0.9}}
    apart = {"losses": CE["losses"] | {"other": term(input="teacher.logits", target="batch.target")}}
    plans(stages(distill=averaged))
    plans(stages(distill=apart | {"roles": {"teacher": "student"}}))


@pytest.mark.parametrize(
    ("inputs", "named"),
    [
        ({"logits": ["student.logits", "teacher.logits", "student.logits"]}, "student.logits"),
        ({"student": "student.logits", "teachers": ["teacher.logits", "teacher.logits"]}, "teacher.logits"),
        ({"student": "student.logits", "teachers": ["teacher.logits", "student.logits"]}, "student.logits"),
    ],
)
def test_a_network_that_is_its_own_peer_or_one_of_its_teachers_is_refused(inputs, named):
    (error,) = errors(stages(distill={"losses": {"kd": term(**inputs)}}))
    assert error.startswith(f"method.stages.distill.losses.kd.inputs: {named} is there twice")
    others = {"logits": ["student.logits", "teacher.logits"], "own": "student.logits", "target": "batch.target"}
    plans(stages(distill={"losses": {"kd": term(**others)}}))

"""Parts of a method that are there once for each of several names."""

from typing import Any

import pytest
from plan_fixtures import NET, app, term

from distill_app.check.quick import read
from distill_app.config.each import names_of, written_out
from distill_app.config.plan import models_of
from distill_app.config.planning import plan_stages
from distill_app.config.tree import compose
from distill_app.errors import ConfigError

KD = {"losses": {"kd": term(input="student.logits", target="teacher.logits")}}


def method(**more: Any) -> dict[str, Any]:
    """Peers that all learn in one stage, and a chain of stages in which each learns from the one before."""
    return {
        "params": {"peers": 2, "chain": ["large", "small"]},
        "schedule": ["teach", "distill"],
        "extra_models": {"peer": {**NET, "each": "peers", "name": "{each}"}, "link": {**NET, "each": "chain"}},
        "stages": {
            "teach": {"each": "chain", "roles": {"student": "{each}", "teacher": "{before|teacher}"}, **KD},
            "distill": {
                "train": ["student", "{peers}"],
                "roles": {"teacher": "{chain.last|teacher}"},
                "losses": {
                    "all": term(logits=["student.logits", "{peers}.logits"], target="teacher.logits"),
                    "ce": {**term(input="{each}.logits"), "each": "peers"},
                },
            },
        },
        **more,
    }


def written(**more: Any):
    config = written_out(app(method(**more)))
    plans, errors = plan_stages(config)
    assert errors == []
    return config, plans


def refused(**more: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        written_out(app(method(**more)))
    return caught.value.errors


def test_a_number_lists_as_many_names_and_a_list_its_own():
    assert names_of(2, param="peers") == ["peer_1", "peer_2"] and names_of(0, param="peers") == []
    assert names_of(["wide", "deep"], param="peers") == ["wide", "deep"]


@pytest.mark.parametrize("value", [-1, 10**6, True, 1.5, "peer", None, ["a", "a"], ["a b"], [1], {"a": 1}])
def test_what_lists_no_names_is_refused(value):
    assert refused(params={"peers": value, "chain": []})[0].startswith("method.params.peers: must be a number from 0")


def test_networks_terms_and_items_are_there_once_for_each_name():
    config, (*_, distill) = written()
    assert [name for name in models_of(config) if name.startswith("peer")] == ["peer_1", "peer_2"]
    assert config.method.extra_models["peer_2"].name == "peer_2"
    assert distill.trained == ["student", "peer_1", "peer_2"]
    assert list(distill.terms) == ["all", "ce_peer_1", "ce_peer_2"]
    assert distill.terms["all"].inputs["logits"] == ["student.logits", "peer_1.logits", "peer_2.logits"]
    assert distill.terms["ce_peer_2"].inputs == {"input": "peer_2.logits"}


def test_a_chain_of_stages_learns_each_from_the_one_before():
    _, plans = written()
    assert [plan.name for plan in plans] == ["teach_large", "teach_small", "distill"]
    assert [plan.network("teacher") for plan in plans] == ["teacher", "large", "small"]


def test_a_stage_that_is_there_once_keeps_its_name_and_an_empty_list_leaves_it_out():
    assert [plan.name for plan in written(params={"peers": 0, "chain": ["one"]})[1]] == ["teach", "distill"]
    _, (distill,) = written(params={"peers": 0, "chain": []})
    assert distill.network("teacher") == "teacher" and list(distill.terms) == ["all"]
    assert distill.trained == ["student"] and distill.terms["all"].inputs["logits"] == ["student.logits"]


def test_an_empty_list_is_told(caplog):
    written(params={"peers": 0, "chain": ["one"]})
    (text,) = caplog.messages
    assert text == "method.params.peers is empty: of what is there once for each of its names nothing is there"


def test_what_has_none_before_it_is_left_out_for_the_first():
    stages = {
        "first": {"roles": {"student": "{chain.first}"}, "losses": {"ce": term(input="student.logits")}},
        "next": {"each": "chain", "roles": {"student": "{each}", "teacher": "{before}"}, **KD},
    }
    config = written_out(app(method(stages=stages, schedule=["first", "next"], params={"peers": 0, "chain": 3})))
    assert config.method.schedule == ["first", "next_chain_2", "next_chain_3"]
    assert config.method.stages["next_chain_2"].roles == {"student": "chain_2", "teacher": "chain_1"}


def test_what_the_config_has_itself_stands_for_its_name():
    other = {"net": {"_target_": "torch.nn.Linear"}, "taps": NET["taps"], "name": "other"}
    models = {**method()["extra_models"], "peer_1": other}
    config, _ = written(extra_models=models)
    assert config.method.extra_models["peer_1"].name == "other"
    assert config.method.extra_models["peer_2"].name == "peer_2"
    (single,) = written(params={"peers": ["peer"], "chain": []})[0].method.extra_models
    assert single == "peer"


def test_student_and_teacher_may_be_on_a_list():
    config, (*_, distill) = written(params={"peers": ["teacher"], "chain": []})
    assert "teacher" not in config.method.extra_models and distill.trained == ["student", "teacher"]


def test_writing_out_again_changes_nothing():
    config, _ = written()
    assert written_out(config) == config


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ({"label": "{each}"}, "method.stages.distill.label: {each} stands for nothing here"),
        ({"label": "{peers}"}, "method.stages.distill.label: {peers}: stands for several names"),
        ({"label": "{pears.last}"}, "method.stages.distill.label: unknown list 'pears'; did you mean 'peers'?"),
        ({"label": "{peer}"}, "method.stages.distill.label: {peer}: unknown list 'peer'; did you mean 'peers'?"),
        ({"each": "pears"}, "method.stages.distill: unknown list 'pears'; did you mean 'peers'?"),
        ({"label": "{chain.last}"}, "method.params.chain: is empty, and method.stages.distill.label reads its last"),
    ],
)
def test_a_word_that_stands_for_nothing_is_refused(stage, message):
    stages = {"distill": {**KD, **stage}}
    errors = refused(stages=stages, schedule=["distill"], params={"peers": 1, "chain": []}, extra_models={})
    assert errors[0].startswith(message), errors


def test_a_name_that_is_an_option_of_the_models_and_is_another_network_is_refused():
    overrides = ("dataset=digits", "stage=digits", "method=takd", "method.params.assistants=[resnet20]")
    errors, _, _ = read(compose(overrides))
    (error,) = errors
    assert error.startswith("method.extra_models.resnet20: is called like model=resnet20 and is plain_32_64_128; write")
    assert read(compose([*overrides, "+model@method.extra_models.resnet20=resnet20"]))[0] == []


def test_a_list_that_is_none_is_told_with_other_errors():
    errors, app_, plans = read(compose(["method=takd", "method.params.assistants=-1", "+stage.nothing=1"]))
    assert app_ is None and plans == []
    assert any(error.startswith("method.params.assistants: must be a number") for error in errors)
    assert any(error.startswith("stage.nothing") for error in errors)

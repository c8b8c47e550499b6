"""Stages that are like another one: what they take over, what they name anew, and what is refused."""

import pytest
from omegaconf import DictConfig, OmegaConf

from distill_app.check.quick import read
from distill_app.config.inherit import inherit
from distill_app.config.schema import StageConf
from distill_app.config.tree import compose

PAIR = ("dataset=digits", "stage=digits", "model@teacher=plain_32_64_128", "model@student=plain_8_16", "prelude=none")
PAIR = (*PAIR, "teacher.allow_random=true")


def second(method: str = "fitnet", like: str = "distill", **named) -> DictConfig:
    """A method with one more stage, `again`, that is like another."""
    cfg = compose([f"method={method}", *PAIR])
    OmegaConf.set_struct(cfg, False)
    cfg.method.schedule = [*cfg.method.schedule, "again"]
    cfg.method.stages["again"] = OmegaConf.merge(OmegaConf.structured(StageConf), {"like": like, **named})
    return cfg


def plans_of(cfg: DictConfig) -> dict:
    errors, _, plans = read(cfg)
    assert errors == []
    return {plan.name: plan for plan in plans}


def test_a_stage_takes_losses_adapters_epochs_and_the_rest_from_the_one_it_is_like():
    cfg = second(like="hint")
    cfg.method.stages.hint.epochs = 7
    plans = plans_of(cfg)
    hint, again = plans["hint"], plans["again"]
    assert again.conf.epochs == hint.conf.epochs == 7 != plans["distill"].conf.epochs
    assert again.terms == hint.terms and again.conf.adapters == hint.conf.adapters
    assert (again.taps, again.trained, again.trained_adapters) == (hint.taps, hint.trained, hint.trained_adapters)


def test_what_a_stage_names_itself_is_its_own_and_the_rest_of_the_entry_stays():
    plans = plans_of(second(epochs=3, lr=0.5, losses={"kd": {"weight": 0.9, "loss": {"temperature": 2.0}}}))
    distill, again = plans["distill"], plans["again"]
    assert (again.conf.epochs, again.conf.lr) == (3, 0.5)
    assert again.terms["ce"] == distill.terms["ce"]
    assert again.terms["kd"].weight == 0.9 and again.terms["kd"].inputs == distill.terms["kd"].inputs
    assert again.terms["kd"].loss == {**distill.terms["kd"].loss, "temperature": 2.0}
    assert distill.terms["kd"].weight != 0.9, "the other stage is as it was"


def test_a_weight_can_be_put_back_to_one_and_a_list_to_its_default():
    cfg = second(losses={"ce": {"weight": 1.0}}, train=["student"], freeze=[])
    cfg.method.stages.distill.train = ["student", "teacher"]
    cfg.method.stages.distill.freeze = ["student.stage1"]
    again = plans_of(cfg)["again"]
    assert again.terms["ce"].weight == 1.0 and again.trained == ["student"] and again.conf.freeze == []


def test_null_takes_a_term_out_and_another_target_replaces_the_whole_loss():
    plans = plans_of(second(losses={"ce": None, "kd": {"loss": {"_target_": "torch.nn.KLDivLoss"}}}))
    assert list(plans["again"].terms) == ["kd"]
    assert plans["again"].terms["kd"].loss == {"_target_": "torch.nn.KLDivLoss"}


@pytest.mark.slow
def test_stages_may_be_like_a_stage_that_is_like_another_and_like_one_of_the_prelude():
    cfg = second(epochs=3)
    cfg.method.stages["third"] = OmegaConf.merge(OmegaConf.structured(StageConf), {"like": "again", "lr": 0.7})
    cfg.method.schedule = [*cfg.method.schedule, "third"]
    third = plans_of(cfg)["third"]
    assert (third.conf.epochs, third.conf.lr, list(third.terms)) == (3, 0.7, list(plans_of(cfg)["distill"].terms))
    cfg = compose(["method=kd", *PAIR[:-1], "prelude=comparison", "+method.stages.distill.like=teacher"])
    assert list(inherit(cfg)) == []
    assert cfg.method.stages.distill.roles == {"student": "teacher"}
    assert cfg.method.stages.distill.label == cfg.prelude.stages.teacher.label


def test_the_recipe_still_reaches_a_stage_through_the_one_it_is_like():
    cfg = second()
    cfg.stage.lr = 0.123
    assert plans_of(cfg)["again"].conf.lr == 0.123


def test_doing_it_twice_changes_nothing_and_neither_does_a_stored_config():
    cfg = second(epochs=3, losses={"ce": None})
    assert list(inherit(cfg)) == []
    once = OmegaConf.to_container(cfg, resolve=True)
    assert list(inherit(cfg)) == [] and OmegaConf.to_container(cfg, resolve=True) == once
    OmegaConf.resolve(cfg)
    assert list(inherit(cfg)) == [] and OmegaConf.to_container(cfg) == once


@pytest.mark.slow
@pytest.mark.parametrize(
    ("like", "told"),
    [
        ("distil", "method.stages.again.like: unknown stage 'distil'; did you mean 'distill'"),
        ("again", "stages are like each other in a circle: method.stages.again -> method.stages.again"),
    ],
)
def test_a_stage_that_is_not_there_and_a_circle_are_told(like, told):
    errors, _, _ = read(second(like=like))
    assert any(told in error for error in errors), errors

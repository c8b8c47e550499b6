"""Taps that a config does not have are found when it is checked, and stand in it from then on."""

from dataclasses import asdict

import pytest
from conftest import TINY

from distill_app.check import taps
from distill_app.check.quick import read
from distill_app.config.planning import plan_stages
from distill_app.config.schema import to_app

OWN = ("model@student=own", "student.net._target_=distill_app.models.PlainCNN", "+student.net.widths=[8,16]")


def test_what_is_found_stands_in_the_config_and_is_not_looked_for_again(composed, monkeypatch):
    errors, app, plans = read(composed(*TINY, *OWN, "method=at"))
    assert not errors and app.student.find_taps
    assert app.student.taps["stage4"] == "features.1" and app.student.taps["logits"] == "fc"
    assert {tap for plan in plans for tap in plan.taps.get("student", ())} >= {"stage3", "stage4", "logits"}
    monkeypatch.setattr(taps, "fill_in_taps", lambda *_: pytest.fail("it was looked for"))
    again = to_app(asdict(app))
    assert plan_stages(again)[1] == [] and again.student.taps == app.student.taps


def test_written_taps_come_first(composed):
    errors, app, _ = read(composed(*TINY, *OWN, "method=at", "+student.taps.stage4=features.0"))
    assert not errors and app.student.taps["stage4"] == "features.0" and app.student.taps["stage3"] == "features.0"


def test_a_network_with_taps_of_its_own_is_not_looked_into(composed, monkeypatch):
    monkeypatch.setattr(taps, "fill_in_taps", lambda *_: pytest.fail("it was looked for"))
    errors, app, _ = read(composed(*TINY, "method=at"))
    assert not errors and app.student.find_taps is None
    line = ("method=at", "method.stages.distill.losses.at4.inputs.student=student.stage9")
    (error,) = read(composed(*TINY, *line))[0]
    assert "unknown tap 'stage9'" in error and "student.find_taps=true looks for those that are not written" in error


def test_a_network_that_cannot_be_read_is_told_with_what_was_seen_and_what_to_type(composed):
    net = ("model@student=own", "student.net._target_=net_fixtures.OneChannel", "runtime.allow=[net_fixtures]")
    (error,) = read(composed(*TINY, *net))[0]
    assert error.startswith(
        "student.taps: nothing could be found in net_fixtures.OneChannel: it does not run on images"
    )
    assert "3 x 224 x 224, 3 x 8 x 8" in error and "'+student.taps.logits=PATH'" in error


def test_what_cannot_be_found_is_told_with_other_errors_and_stops_no_check(composed, errors_of):
    net = ("model@student=own", "student.net._target_=torch.nn.Flatten", "~student.net.num_classes", "prelude=none")
    first, second = errors_of(*TINY, *net, "stage.lr=-1")
    assert first.startswith("stage.lr: must be above 0")
    assert second.startswith("student.taps: logits not found in torch.nn.Flatten (it returns no logits of 10 classes)")


@pytest.mark.slow
def test_a_tap_that_is_not_there_is_told_with_those_that_are(composed):
    net = ("model@student=torchvision", "student.net.name=squeezenet1_1", "dataset=fashion_mini", "method=l2")
    (error,) = read(composed(*TINY, *net))[0]
    assert error.startswith("student.taps: pooled not found in squeezenet1_1 (the classifier classifier.1 takes")
    assert "found: stem, stage1," in error and "it returned (2, 10)" in error and "'+student.taps.pooled=PATH'" in error


@pytest.mark.slow
def test_no_weights_are_loaded_for_a_look(composed, monkeypatch):
    pytest.importorskip("timm")
    monkeypatch.setattr("timm.models._builder.load_pretrained", lambda *_, **__: pytest.fail("it loaded weights"))
    line = ("model@student=timm", "student.net.model_name=resnet10t", "student.net.pretrained=true")
    errors, app, _ = read(composed(*TINY, *line, "dataset=fashion_mini"))
    assert not errors and app.student.taps["logits"] == "fc"


@pytest.mark.slow
def test_taps_that_other_keys_refer_to_are_found_before(composed):
    line = ("model@teacher=torchvision", "model@student=torchvision", "dataset=fashion_mini", "prelude=none")
    errors, app, _ = read(composed(*TINY, *line, "method=simkd"))
    assert not errors and app.method.extra_models["reused"].net["student_map"] == "layer4"
    assert app.teacher.find_taps and app.teacher.taps["pooled"] == "fc:in"


@pytest.mark.slow
def test_a_network_that_cannot_be_built_is_told_once(composed, errors_of):
    pytest.importorskip("timm")
    errors = errors_of(*TINY, "model@student=timm", "student.net.model_name=nosuchnet", "dataset=fashion_mini")
    assert len(errors) == 1 and "Unknown model (nosuchnet)" in errors[0]

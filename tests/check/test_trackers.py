"""Trackers in a config: one, several, none, one's own, and what keeps one from being built."""

import importlib.util

import pytest

from distill_app.config.build import Builder
from distill_app.config.groups import options_of
from distill_app.runs.outlets import Outlet
from distill_app.trackers import TensorBoard
from distill_app.trackers.build import outlet_problems, outlets_of


class Own(Outlet):
    """A tracker of a user's own."""


class Nothing:
    """Has no look of a tracker."""


def test_tensorboard_is_the_default_and_several_can_be_chosen(composed):
    assert list(composed().tracker) == ["tensorboard"]
    assert list(composed("tracker=[tensorboard,mlflow]").tracker) == ["tensorboard", "mlflow"]
    assert composed("tracker=none").tracker == {} == composed("debug=one_batch").tracker
    assert list(composed("debug=one_batch", "tracker=wandb").tracker) == ["wandb"]


@pytest.mark.parametrize("name", [each for each in options_of("tracker") if each != "none"])
def test_every_option_is_a_tracker_or_says_what_to_install(composed, name):
    conf = composed(f"tracker={name}").tracker
    problems = list(outlet_problems(dict(conf), Builder()))
    if name == "tensorboard" or importlib.util.find_spec(name) is not None:
        assert problems == [] and isinstance(outlets_of(dict(conf), Builder())[name], Outlet)
    else:
        (problem,) = problems
        assert problem.startswith(f"tracker.{name}: ") and f"pip install 'distill-app[{name}]'" in problem


def test_what_is_not_installed_is_told_with_the_extra(monkeypatch):
    monkeypatch.setattr("distill_app.extras.find_spec", lambda package: None)
    (problem,) = outlet_problems({"x": {"_target_": "distill_app.trackers.Trackio"}}, Builder())
    assert problem == "tracker.x: trackio is not installed; pip install 'distill-app[trackio]'"


def test_null_and_false_leave_a_tracker_out():
    conf = {"a": None, "b": False, "c": {"_target_": "distill_app.trackers.TensorBoard"}}
    assert list(outlet_problems(conf, Builder())) == []
    found = outlets_of(conf, Builder())
    assert list(found) == ["c"] and isinstance(found["c"], TensorBoard)


def test_a_tracker_of_ones_own_needs_to_be_allowed_and_to_be_one(errors_of, tiny):
    base = [*tiny[:-1], "debug=one_batch"]
    (error,) = errors_of(*base, "+tracker.own={_target_: test_trackers.Own}")
    assert "runtime.allow" in error and "tracker.own._target_" in error
    (problem,) = outlet_problems({"x": {"_target_": f"{__name__}.Nothing"}}, Builder([__name__.split(".")[0]]))
    assert problem.startswith("tracker.x: Nothing is no tracker")
    assert isinstance(outlets_of({"x": {"_target_": f"{__name__}.Own"}}, Builder([__name__]))["x"], Own)


def test_a_loss_is_no_tracker(errors_of, tiny):
    (error,) = errors_of(*tiny, "+tracker.own={_target_: distill_app.losses.KLDivergence}")
    assert "is no tracker" in error


def test_a_wrong_argument_is_told_with_its_key(errors_of, tiny):
    (error,) = errors_of(*tiny[:-1], "tracker.tensorboard.imags=3")
    assert "imags" in error and "images" in error

"""A sweep that cannot be composed: every value that is wrong is told, once, before the first point."""

from importlib.util import find_spec

import pytest
from hydra.errors import ConfigCompositionException, HydraException, InstantiationException

from distill_app.check.command_line import composition_errors, search_errors
from distill_app.check.line import Line, composed, is_interval

INTERVAL = "stage.lr=tag(log, interval(0.02, 1))"
OPTUNA = "pip install 'distill-app[optuna]'"
SEARCH = pytest.mark.skipif(find_spec("optuna") is None, reason=OPTUNA)


def told(*overrides: str, error: Exception | None = None) -> list[str]:
    """What is told of a sweep after Hydra's sweeper has raised something."""
    raised = error or ConfigCompositionException("Error merging override")
    return list(composition_errors(raised, ["-m", *overrides], quick=True))


def test_the_points_are_those_of_hydras_grid_and_an_interval_has_one():
    line = Line.parse(["-m", "a=1,2", "b=x", "+c=choice(p,q)", INTERVAL, "method=glob(k*,exclude=kd*)"])
    assert line.sweep and [len(values) for values in line.values] == [2, 1, 2, 1, 1]
    points = list(line.points())
    assert [point.overrides[0] + point.overrides[2] for point in points] == ["a=1+c=p", "a=1+c=q", "a=2+c=p", "a=2+c=q"]
    assert points[0].overrides[3:] == ("stage.lr=0.02", "method=kta") and points[0].typed("a=1") == "a=1,2"
    assert not points[0].sweep and Line.parse(["hydra.mode=MULTIRUN", "a=1,2"]).sweep
    assert is_interval(INTERVAL) and not is_interval("a=1,2") and not is_interval("a=(")


@pytest.mark.slow
def test_every_value_that_is_wrong_is_told_once_with_the_reason():
    errors = told("stage.lr=0.1,abc,def,-1", "seed=x,0,1", "sede=1,2", "method=kd,fitent")
    assert sorted(error.split(" (there are")[0] for error in errors) == [
        "method: unknown option 'fitent'; did you mean 'fitnet'?",
        "sede: unknown key 'sede'; did you mean 'seed'?",
        "seed: cannot be 'x': Value 'x' of type 'str' could not be converted to Integer",
        "stage.lr: cannot be 'abc': Value 'abc' of type 'str' could not be converted to Float",
        "stage.lr: cannot be 'def': Value 'def' of type 'str' could not be converted to Float",
        "stage.lr: must be above 0, got -1.0",
    ]


@pytest.mark.slow
def test_what_is_typed_instead_has_all_values():
    (added,) = told("+seed=1,2")
    assert added == "seed: is there already; write 'seed=1,2', without +"
    (moved,) = told("lr=0.1,0.2")
    assert moved == "lr: unknown key 'lr'; write 'stage.lr=0.1,0.2'"


@pytest.mark.slow
def test_a_key_that_one_of_the_methods_has_not_is_found():
    weight = "method.stages.distill.losses.kd.weight"
    (error,) = told("method=at,kd", f"{weight}=1,2")
    assert error.startswith(f"{weight}: unknown key ")


@pytest.mark.slow
def test_values_that_are_wrong_together_alone_are_found(monkeypatch):
    def together(line):
        wrong = {"seed=1", "stage.epochs=2"} <= set(line.overrides)
        return ConfigCompositionException("Error merging override seed=1") if wrong else composed(line)

    monkeypatch.setattr("distill_app.check.command_line.composed", together)
    (error,) = told("seed=0,1", "stage.epochs=1,2")
    assert error.startswith("seed: cannot be '1': ")


def test_what_no_point_has_is_told_as_hydra_says_it():
    cause = ValueError("no number")
    raised = ConfigCompositionException("Error merging override hydra.sweeper.params")
    raised.__cause__ = cause
    assert told("seed=0,1", error=raised) == ["Error merging override hydra.sweeper.params: no number"]
    raised = ConfigCompositionException("Sweeping over Hydra's configuration is not supported : 'hydra.job.num=1,2'")
    assert told("hydra.job.num=1,2", error=raised) == [str(raised)]


def test_an_interval_is_for_a_search(distill, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    raised = HydraException("BasicSweeper does not support sweep type : INTERVAL_SWEEP")
    (error,) = told(INTERVAL, error=raised)
    interval = (
        "stage.lr: 'tag(log, interval(0.02, 1))' is an interval, from which a search chooses: add hydra/sweeper=search"
    )
    assert error.startswith(interval)
    monkeypatch.setattr("distill_app.extras.find_spec", lambda name: None)
    assert told(INTERVAL, error=raised) == [f"{interval} (optuna is not installed; {OPTUNA})"]
    monkeypatch.setattr("distill_app.extras.find_spec", lambda name: object())
    code, _, err = distill(INTERVAL)
    assert code == 2 and err.splitlines()[1:] == [f"  1. {interval}, with -m"]
    code, _, err = distill("seed=range(0,2)")
    assert code == 2 and "seed: 'range(0,2)' are several values; sweep over them with -m" in err


def test_a_search_without_its_packages_says_which_extra_to_install():
    raised = InstantiationException(
        "Error locating target 'optuna.samplers.TPESampler', set env var HYDRA_FULL_ERROR=1"
    )
    assert told(error=raised) == [f"hydra/sweeper: optuna is not installed; {OPTUNA}"]
    raised = InstantiationException("Error locating target 'mine.Sampler', set env var HYDRA_FULL_ERROR=1")
    assert told(error=raised) == [str(raised)]


def test_a_search_without_its_sweeper_says_which_extra_to_install(monkeypatch):
    (error,) = search_errors(["-m", "hydra/sweeper=nothing"])
    assert error.startswith("hydra/sweeper: unknown option 'nothing'")
    assert list(search_errors(["-m", "seed=x,y"])) == list(search_errors(["hydra/sweeper=nothing"])) == []
    assert list(search_errors(["-m", "-cp", "elsewhere", "hydra/sweeper=nothing"])) == []
    raised = HydraException("In 'hydra/sweeper/search': Could not find 'hydra/sweeper/optuna'")
    monkeypatch.setattr("distill_app.check.command_line.composed", lambda line: raised)
    monkeypatch.setattr(Line, "failure", lambda self: None)
    first = next(search_errors(["-m", "hydra/sweeper=search", INTERVAL]))
    assert first == f"hydra/sweeper: Optuna's sweeper is not installed; {OPTUNA}"


@SEARCH
@pytest.mark.slow
def test_choices_of_a_search_are_looked_at_before_its_first_point(distill, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = distill("-m", "hydra/sweeper=search", "stage.lr=choice(0.1,abc)", "stage.epochs=interval(1,5)")
    assert code == 2 and "[1]" not in out and not list(tmp_path.iterdir())
    assert "stage.lr: cannot be 'abc': " in err and "stage.epochs: cannot be '1.0': " in err
    assert list(search_errors(["-m", "hydra/sweeper=search", INTERVAL, "stage.epochs=int(interval(1,5))"])) == []


@pytest.mark.slow
def test_a_sweep_with_a_wrong_value_begins_no_point(distill, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = distill("-m", "experiment=digits/kd", "stage.lr=0.1,abc")
    assert code == 2 and out == ""
    reason = "stage.lr: cannot be 'abc': Value 'abc' of type 'str' could not be converted to Float"
    assert err.splitlines()[1:] == [f"  1. {reason}"]

"""The points of a sweep: what is said of each, what sweepers are told, and what is left of one that failed."""

import pickle
import weakref
from typing import Any

import pytest
from omegaconf import OmegaConf

from distill_app.errors import ConfigError, NonFiniteLoss, OtherExperiment, PointFailed
from distill_app.launch.grid import GRID, grid
from distill_app.launch.sweep import Sweep, SweepFolder, table
from distill_app.runs.status import Status

LINE = ["-m", "dataset=digits", "stage.lr_scales={student.stem: 0.1}", "seed=0,1,2", "hydra.sweep.dir=sweep"]


def job(folder, number: int = 0, *, sweeper: str = GRID) -> Any:
    """Hydra's own config of a job."""
    overrides = ["dataset=digits", "stage.lr_scales={student.stem:0.1}", f"seed={number}"]
    return OmegaConf.create(
        {
            "job": {"num": number},
            "overrides": {"task": overrides},
            "runtime": {"output_dir": str(folder / str(number))},
            "sweep": {"dir": str(folder)},
            "sweeper": {"_target_": sweeper},
        }
    )


@pytest.fixture
def sweep(tmp_path, monkeypatch) -> Sweep:
    monkeypatch.setattr(SweepFolder, "last", str(tmp_path))
    monkeypatch.setattr(SweepFolder, "points", grid([word for word in LINE[1:] if not word.startswith("hydra")]))
    return Sweep(LINE)


def failing(error: Exception):
    def work():
        raise error

    return work


@pytest.mark.slow
def test_a_point_is_announced_by_what_makes_it_differ(sweep, tmp_path, capsys):
    assert sweep.run(job(tmp_path, 1), lambda: {"objective": 0.25}) == 0.25
    assert capsys.readouterr().out == "[2/3] seed=1\n"
    point = sweep.outcome()[1]
    assert (point.overrides, point.state, point.objective, point.exit_code) == (["seed=1"], "done", 0.25, 0)


def test_nobody_knows_how_many_points_another_sweeper_will_ask_for(sweep, tmp_path, capsys):
    sweep.run(job(tmp_path, 1, sweeper="optuna.Sweeper"), lambda: {"objective": 0.25})
    assert capsys.readouterr().out == "[2] seed=1\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "state", "code"),
    [
        (ConfigError(["stage.lr: is wrong", "seed: too"]), "refused", 2),
        (NonFiniteLoss("the loss is not finite"), "failed", 1),
        (ZeroDivisionError("a bug"), "failed", 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_grid_goes_on_and_other_sweepers_are_told(sweep, tmp_path, capsys, error, state, code):
    assert sweep.run(job(tmp_path, 0), failing(error)) is None
    with pytest.raises(PointFailed, match=r"\[2\] seed=1: "):
        sweep.run(job(tmp_path, 1, sweeper="optuna.Sweeper"), failing(error))
    points = sweep.outcome()
    assert [(point.state, point.exit_code) for point in points] == [(state, code)] * 2 + [("not run", 1)]
    err = capsys.readouterr().err
    assert str(error).splitlines()[0] in err and ("Traceback" in err) == isinstance(error, ZeroDivisionError)


@pytest.mark.slow
def test_an_error_that_was_told_is_not_told_again(sweep, tmp_path, capsys):
    for number in range(3):
        sweep.run(job(tmp_path, number), failing(ConfigError(["stage.lr: is wrong"])))
    lines = capsys.readouterr().err.splitlines()
    assert lines[-2:] == ["refused: the same as [1]"] * 2 and len(lines) == 4


@pytest.mark.slow
def test_points_of_other_processes_count_and_those_of_other_sweeps_do_not(sweep, tmp_path):
    copy = pickle.loads(pickle.dumps(sweep))
    copy.run(job(tmp_path, 0), lambda: {"objective": 0.5})
    Sweep(LINE).run(job(tmp_path, 1), lambda: {"objective": 0.75})
    with open(tmp_path / "sweep.jsonl", "a") as file:
        file.write('{"sweep": "%s", "unknown": 1}\n{"half' % sweep.identity)  # noqa: UP031
    assert [point.state for point in sweep.outcome()] == ["done", "not run", "not run"]


def test_a_sweep_of_which_no_point_began_has_no_table(sweep):
    assert sweep.outcome() == []


@pytest.mark.slow
def test_a_refused_point_leaves_a_status_for_the_report_but_not_over_another_run(sweep, tmp_path):
    sweep.run(job(tmp_path, 0), failing(ConfigError(["stage.lr: is wrong", "seed: too"])))
    record = Status(tmp_path / "0").read()
    assert record["state"] == "refused" and record["point"] == ["seed=0"]
    assert record["reason"] == "stage.lr: is wrong (and 1 more)"
    (tmp_path / "1").mkdir()
    Status(tmp_path / "1").set("done")
    sweep.run(job(tmp_path, 1), failing(OtherExperiment("another one\n  seed: 0 -> 1")))
    assert Status(tmp_path / "1").read()["state"] == "done"


class Network:
    """Something large."""


@pytest.mark.slow
@pytest.mark.parametrize("sweeper", [GRID, "optuna.Sweeper"])
def test_an_error_keeps_nothing_of_its_job_alive(sweep, tmp_path, sweeper):
    held = []

    def work():
        network = Network()
        network.itself = network
        held.append(weakref.ref(network))
        try:
            raise ValueError("inside")
        except ValueError as cause:
            raise NonFiniteLoss("outside") from cause

    kept = None
    try:
        sweep.run(job(tmp_path, 0, sweeper=sweeper), work)
    except PointFailed as error:
        kept = error
    assert held[0]() is None and (kept is None) == (sweeper == GRID)


def test_errors_of_a_config_come_whole_from_another_process():
    error = pickle.loads(pickle.dumps(ConfigError(["a: one", "b: two"])))
    assert error.errors == ["a: one", "b: two"]


@pytest.mark.slow
def test_the_table_lists_points_objectives_and_reasons(sweep, tmp_path):
    sweep.run(job(tmp_path, 0), lambda: {"objective": 0.5})
    sweep.run(job(tmp_path, 1), lambda: {"job_id": "77"})
    sweep.run(job(tmp_path, 2), failing(NonFiniteLoss("the loss is not finite")))
    lines = table(sweep.outcome()).splitlines()
    assert lines[0].split() == ["point", "seed", "objective", "folder", "state"]
    assert lines[2].split()[:3] == ["1", "0", "0.5"]
    assert lines[3].endswith("submitted as 77") and lines[4].endswith("failed: the loss is not finite")

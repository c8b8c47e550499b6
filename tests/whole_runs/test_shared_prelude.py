"""Points of a sweep that would train the same teacher train it once, and come out as if each had trained its own."""

import json
import multiprocessing
import signal
from pathlib import Path

import pytest
from engine_fixtures import QUIET, metrics, resolved, runner

from distill_app.cli import main as distill
from distill_app.runs.checkpoint import Checkpoints
from distill_app.runs.status import run_lock
from distill_app.runs.stop import Interrupted
from distill_app.training.run import run_experiment
from distill_app.training.shared import SharedPrelude
from scripts.stress.outcome import differences

pytestmark = pytest.mark.slow
BASE = ("dataset=digits", "model@teacher=plain_32_64_128", "model@student=plain_8_16", "stage=digits", "stage.epochs=2")
BASE = (*BASE, "prelude.stages.teacher.ema.decay=0.9")


def run(folder: Path, *overrides: str, shared: Path | None = None) -> None:
    config = resolved(*overrides, "tracker=tensorboard", base=BASE)
    run_experiment(config, output_dir=str(folder), command=["distill"], shared=None if shared is None else str(shared))


def trained(folder: Path) -> list[str]:
    """The stages that a run has trained itself: those of which it has checkpoints."""
    names = Checkpoints(folder / "checkpoints").names()
    return sorted({name.rpartition("/")[0] for name in names})


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("alone") / "at"
    run(folder, "method=at")
    return folder


def test_the_second_point_takes_over_what_the_first_has_trained(tmp_path, alone):
    shared = tmp_path / "prelude"
    run(tmp_path / "kd", "method=kd", shared=shared)
    run(tmp_path / "at", "method=at", shared=shared)
    assert trained(tmp_path / "kd") == ["alone", "distill", "teacher"] and trained(tmp_path / "at") == ["distill"]
    assert differences(tmp_path / "at", alone) == []
    summary = json.loads((tmp_path / "at" / "summary.json").read_text())
    assert summary["rows"][0]["name"].startswith("teacher") and "teacher_ema" in summary["files"]


def test_another_seed_or_another_recipe_trains_its_own(tmp_path):
    shared = tmp_path / "prelude"
    for name, more in (("a", ()), ("b", ("seed=1",)), ("c", ("stage.lr=0.01",))):
        run(tmp_path / name, "method=kd", *more, shared=shared)
        assert "teacher" in trained(tmp_path / name)
    assert len(list(shared.iterdir())) == 3


def test_what_is_kept_and_damaged_is_trained_again(tmp_path, alone):
    shared = tmp_path / "prelude"
    run(tmp_path / "kd", "method=kd", shared=shared)
    (file,) = shared.glob("*/prelude/state.pt")
    file.write_bytes(file.read_bytes()[:-100])
    run(tmp_path / "at", "method=at", shared=shared)
    assert "teacher" in trained(tmp_path / "at") and differences(tmp_path / "at", alone) == []


def test_points_that_run_side_by_side_wait_for_each_other(tmp_path, alone):
    fork = multiprocessing.get_context("fork")
    arguments = [(tmp_path / method, f"method={method}") for method in ("kd", "at")]
    points = [fork.Process(target=run, args=each, kwargs={"shared": tmp_path / "prelude"}) for each in arguments]
    for point in points:
        point.start()
    for point in points:
        point.join()
        assert point.exitcode == 0
    assert sorted("teacher" in trained(folder) for folder, _ in arguments) == [False, True]
    assert metrics(tmp_path / "at") == metrics(alone)


def test_a_sweep_trains_the_teacher_once(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        distill(["-m", *BASE, *QUIET, "method=kd,at,ce", f"hydra.sweep.dir={tmp_path}/sweep"])
    assert not ended.value.code, capsys.readouterr().err
    runs = sorted(path.parent for path in tmp_path.glob("sweep/**/summary.json"))
    assert len(runs) == 3 and sum("teacher" in trained(folder) for folder in runs) == 1


def test_a_run_that_waits_for_another_ones_prelude_still_ends_when_it_is_asked_to(tmp_path):
    looks: list[int] = []

    def look() -> None:
        looks.append(1)
        if len(looks) == 2:
            raise Interrupted(signal.SIGTERM)

    with runner(tmp_path / "run", "method=kd", base=BASE) as made:
        shared = SharedPrelude(tmp_path / "prelude", made.experiment)
        with run_lock(shared.folder), pytest.raises(Interrupted), shared.turn(made.tracker, look=look):
            raise AssertionError("another one has its turn")
        with shared.turn(made.tracker, look=look):
            assert len(looks) == 2

"""`distill resume`: other epochs and what is no setting; what a finished run has lost is made again."""

import json
import shutil
from pathlib import Path

import pytest
from engine_fixtures import DIGITS, QUIET, equal, metrics, run
from omegaconf import OmegaConf

from distill_app.runs.statefile import load_file
from distill_app.runs.status import Status
from distill_app.training import runner as runner_module
from distill_app.training.optimize import Optimization
from distill_app.verbs import call

pytestmark = pytest.mark.slow
CONSTANT = "scheduler@stage.scheduler=constant"


class Interrupted(Exception):
    """What stops a run in these tests."""


@pytest.fixture(autouse=True, scope="module")
def no_plots():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("distill_app.training.outcome.final_plot", lambda folder: folder)
        yield


def interrupted(folder: Path, *overrides: str, step: int = 5) -> Path:
    """A run of two steps an epoch that breaks off in the place of a step, counted from 1."""
    original, count = Optimization.step, iter(range(1, 10_000))

    def breaking(self):
        if next(count) == step:
            raise Interrupted
        original(self)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(Optimization, "step", breaking)
        run(folder, *overrides)
    return folder


@pytest.fixture(scope="module")
def broken(tmp_path_factory) -> Path:
    """Broke off in its third epoch of three, at a constant rate."""
    return interrupted(tmp_path_factory.mktemp("runs") / "broken", CONSTANT, "stage.epochs=3")


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "finished"
    run(folder, "stage.epochs=2")
    return folder


def copy(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to))


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def without_clock(folder: Path) -> list[dict]:
    rows = json.loads((folder / "summary.json").read_text())["rows"]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def same(folder: Path, other: Path) -> bool:
    weights = equal(load_file(folder / "student.pt"), load_file(other / "student.pt"))
    return weights and metrics(folder) == metrics(other) and without_clock(folder) == without_clock(other)


def test_more_epochs_end_as_a_run_that_had_them_from_the_start(broken, tmp_path, capsys):
    longer = copy(broken, tmp_path / "longer")
    assert call("resume", [str(longer), "stage.epochs=5", "runtime.num_workers=1"]) == 0
    assert "goes on with other settings: stage.epochs: 3 -> 5" in capsys.readouterr().out
    run(tmp_path / "whole", CONSTANT, "stage.epochs=5")
    assert same(longer, tmp_path / "whole")
    assert "INFO goes on with other settings: stage.epochs: 3 -> 5" in (longer / "train.log").read_text()
    config = OmegaConf.load(longer / "config_resolved.yaml")
    assert config.stage.epochs == config.method.stages.distill.epochs == 5 and config.runtime.num_workers == 1


def test_a_later_plain_resume_goes_on_with_them(broken, tmp_path, monkeypatch):
    longer = copy(broken, tmp_path / "longer")

    def breaking(*args, **kwargs):
        raise Interrupted

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(runner_module.StageRunner, "take_steps", breaking)
        call("resume", [str(longer), "stage.epochs=4"])
    assert call("resume", [str(longer)]) == 0
    assert [record["epoch"] for record in metrics(longer) if record["kind"] == "epoch"] == [0, 1, 2, 3]


def test_what_is_no_setting_may_be_another_and_is_no_news_in_the_log(broken, tmp_path):
    other = copy(broken, tmp_path / "other")
    assert call("resume", [str(other), "checkpoint.keep=3", "runtime.log_every=2"]) == 0
    assert "other settings" not in (other / "train.log").read_text()
    assert OmegaConf.load(other / "config_resolved.yaml").checkpoint.keep == 3


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["stage.lr=0.3"], "stage.lr: 0.2 -> 0.3"),
        (["stage.epochs=5", "seed=4"], "seed: 0 -> 4"),
        (["stage.epochs=1"], "2 epochs are over or under way, which is more"),
        (["stage.epoch=5", "sede=4"], "did you mean 'stage.epochs'?"),
        (["stage.epochs=many"], "stage.epochs"),
        (["stage.epochs=0"], "must be at least 1"),
        (["method=at"], "chooses a group"),
        (["scheduler@stage.scheduler=cosine"], "chooses a group"),
        (["dry_run=true"], "resume goes on with the run in its own folder"),
        (["hydra.run.dir=elsewhere"], "resume goes on with the run in its own folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_anything_else_is_refused_and_nothing_touched(broken, overrides, says, distill):
    before = contents(broken)
    code, _, err = distill("resume", str(broken), *overrides)
    assert code == 2 and says in err and "Traceback" not in err, err
    assert contents(broken) == before


def test_all_that_is_wrong_with_overrides_is_told_at_once(broken, distill):
    _, _, err = distill("resume", str(broken), "stage.epoch=5", "sede=4")
    assert "  1. stage.epoch: " in err and "  2. sede: unknown key 'sede'; did you mean 'seed'?" in err


def test_a_one_cycle_schedule_cannot_be_lengthened(tmp_path, distill):
    folder = interrupted(tmp_path / "run", "scheduler@stage.scheduler=onecycle", "stage.epochs=3")
    before = contents(folder)
    code, _, err = distill("resume", str(folder), "stage.epochs=5")
    assert code == 2 and "a one-cycle schedule cannot be lengthened" in err, err
    assert contents(folder) == before
    assert distill("resume", str(folder), "runtime.threads=1")[0] == 0


def test_a_finished_run_has_no_more_epochs(finished, distill):
    before = contents(finished)
    code, _, err = distill("resume", str(finished), "stage.epochs=5")
    assert code == 2 and f"distill continue {finished} stage.epochs=5" in err and "distill rerun" in err
    assert contents(finished) == before


def test_what_follows_from_other_keys_still_does_and_the_notes_follow(distill, tmp_path, monkeypatch):
    words = [*DIGITS, *QUIET, CONSTANT, "prelude=teacher", "prelude.params.epochs=2", "stage.epochs=2"]
    original = runner_module.StageRunner.train

    def breaking(self, stage):
        if stage.plan.name == "distill":
            raise Interrupted
        original(self, stage)

    with monkeypatch.context() as patch:
        patch.setattr(runner_module.StageRunner, "train", breaking)
        assert distill(*words, f"hydra.run.dir={tmp_path / 'run'}")[0] == 1
    code, out, err = distill("resume", str(tmp_path / "run"), "stage.epochs=3")
    assert code == 0, err
    assert "goes on with other settings: stage.epochs: 2 -> 3" in out
    config = OmegaConf.load(tmp_path / "run" / "config_resolved.yaml")
    assert (config.prelude.stages.teacher.epochs, config.method.stages.distill.epochs) == (2, 3)
    assert "stage.epochs=3" in OmegaConf.load(tmp_path / "run" / ".hydra" / "overrides.yaml")
    assert distill("rerun", str(tmp_path / "run"), "dry_run=true")[2].count("warning: the config files") == 0


def damage(folder: Path, name: str, how: str) -> None:
    (folder / name).unlink()
    if how == "damaged":
        (folder / name).write_text('{"state": "do')


@pytest.mark.parametrize("how", ["missing", "damaged"])
@pytest.mark.parametrize("name", ["summary.json", "status.json"])
def test_what_a_finished_run_has_lost_is_made_again_and_said(finished, tmp_path, name, how, distill):
    folder = copy(finished, tmp_path / "copy")
    summary = json.loads((folder / "summary.json").read_text())
    damage(folder, name, how)
    code, out, err = distill("resume", str(folder))
    assert code == 0, err
    lost = "is missing" if how == "missing" else "cannot be read"
    assert f"{folder} was finished; its {name} {lost} and is made again from the last checkpoint" in out
    assert json.loads((folder / "summary.json").read_text()) == summary
    assert Status(folder).read()["state"] == "done" and same(folder, finished)
    assert "is finished; its summary is" in distill("resume", str(folder))[1]


@pytest.mark.parametrize("how", ["missing", "damaged"])
def test_both_files_may_be_lost(finished, tmp_path, how, distill):
    folder = copy(finished, tmp_path / "copy")
    damage(folder, "status.json", how)
    damage(folder, "summary.json", how)
    code, out, err = distill("resume", str(folder))
    assert code == 0, err
    both = "its status.json cannot be read and its summary.json cannot be read"
    assert (both in out) == (how == "damaged")  # without a trace of them nobody knows that it was finished
    assert Status(folder).read()["state"] == "done" and same(folder, finished)


def test_a_finished_run_without_checkpoints_is_never_trained_anew(finished, tmp_path, distill):
    folder = copy(finished, tmp_path / "copy")
    shutil.rmtree(folder / "checkpoints")
    damage(folder, "summary.json", "damaged")
    before = contents(folder)
    code, _, err = distill("resume", str(folder))
    assert code == 2 and "its summary.json cannot be read" in err and "in a new folder: distill rerun" in err
    assert contents(folder) == before


def test_a_lost_status_is_written_again_where_the_summary_is_all_there_is(finished, tmp_path, distill):
    folder = copy(finished, tmp_path / "copy")
    shutil.rmtree(folder / "checkpoints")
    damage(folder, "status.json", "missing")
    code, out, _ = distill("resume", str(folder))
    assert code == 0 and "its status.json is missing; it is written anew" in out
    assert Status(folder).read()["state"] == "done" and same(folder, finished)

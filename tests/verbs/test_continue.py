"""`distill continue`: a new run whose networks begin with the weights that a finished one left."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from engine_fixtures import DIGITS, QUIET, equal, metrics
from omegaconf import OmegaConf

from distill_app.api import run as run_config
from distill_app.config.tree import compose
from distill_app.runs.settings import fingerprint
from distill_app.runs.statefile import load_file
from distill_app.runs.status import Status
from distill_app.training import runner as runner_module
from distill_app.verbs import call

pytestmark = pytest.mark.slow
SHORT = [*DIGITS, *QUIET, "stage.epochs=1"]
WORDS = [*SHORT, "prelude=comparison", "prelude.params.epochs=1", "teacher.allow_random=false"]


@pytest.fixture(autouse=True, scope="module")
def no_plots():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("distill_app.training.outcome.final_plot", lambda folder: folder)
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A finished run as the command line makes one: a teacher, the student alone, and KD."""
    from distill_app.app import start

    folder = tmp_path_factory.mktemp("runs") / "a run=1 (first)"
    assert start([*WORDS, f"hydra.run.dir='{folder}'"], show=pytest.fail) == []
    return folder


@pytest.fixture(scope="module")
def from_python(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "python"
    words = [*SHORT, "method=takd", "method.extra_models.assistant=${student}"]
    run_config(compose(words), output_dir=str(folder))
    return folder


@pytest.fixture
def continued(distill, tmp_path):
    """Continues a run in a folder of its own, and returns that and what was printed."""

    def go_on(*words: str) -> tuple[Path, str, str]:
        code, out, err = distill("continue", *words, f"hydra.run.dir={tmp_path / 'new'}")
        assert code == 0, err
        return tmp_path / "new", out, err

    return go_on


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def stages_of(folder: Path) -> set[str]:
    return {record["stage"] for record in metrics(folder) if record["kind"] == "epoch"}


def test_a_new_run_begins_with_the_weights_that_the_finished_one_left(finished, continued, monkeypatch):
    before, began = contents(finished), {}
    original = runner_module.StageRunner.train

    def looking(self, stage):
        for name, network in self.experiment.parts.networks.items():
            began[name] = {key: value.clone() for key, value in network.module.state_dict().items()}
        original(self, stage)

    monkeypatch.setattr(runner_module.StageRunner, "train", looking)
    new, out, _ = continued(str(finished), "stage.epochs=2", "stage.lr=0.01")
    for name in ("student", "teacher", "baseline"):
        assert equal(began[name], load_file(finished / f"{name}.pt")), name
    assert stages_of(new) == {"distill"}, "the prelude ran again"
    assert "stage teacher: skipped, teacher came with weights" in out and "stage alone: skipped" in out
    assert [r["epoch"] for r in metrics(new) if r["kind"] == "epoch"] == [0, 1]
    config = OmegaConf.load(new / "config_resolved.yaml")
    assert (config.stage.epochs, config.stage.lr) == (2, 0.01)
    assert not equal(load_file(new / "student.pt"), load_file(finished / "student.pt"))
    assert (
        equal(load_file(new / "baseline.pt"), load_file(finished / "baseline.pt"))
        if (new / "baseline.pt").exists()
        else True
    )
    assert contents(finished) == before


def test_what_it_continues_is_recorded(finished, continued):
    new, _, _ = continued(str(finished), "stage.epochs=1")
    record = json.loads((new / "weights.json").read_text())
    assert record.keys() == {
        "student.checkpoint",
        "teacher.checkpoint",
        "prelude.extra_models.baseline.checkpoint",
    }
    student = record["student.checkpoint"]
    old = OmegaConf.to_container(OmegaConf.load(finished / "config_resolved.yaml"))
    assert student["run"] == str(finished) and student["file"] == str(finished / "student.pt")
    assert student["settings"] == fingerprint(old) == json.loads((finished / "summary.json").read_text())["settings"]
    assert student["sha256"] == hashlib.sha256((finished / "student.pt").read_bytes()).hexdigest()
    assert str(finished / "student.pt") in json.loads((new / "summary.json").read_text())["origins"]["student"]


def test_another_method_goes_on_from_there(finished, continued):
    new, out, _ = continued(str(finished), "method=at", "prelude=teacher")
    assert OmegaConf.load(new / "config_resolved.yaml").method.name == "at" and stages_of(new) == {"distill"}
    assert json.loads((new / "weights.json").read_text()).keys() == {"student.checkpoint", "teacher.checkpoint"}
    assert "student.pt" in out


def test_a_prelude_whose_networks_the_run_did_not_train_runs(distill, tmp_path, finished):
    alone = tmp_path / "alone"
    words = [*SHORT, "method=ce"]
    assert distill(*words, f"hydra.run.dir={alone}")[0] == 0
    line = call("continue", [str(alone), "prelude=teacher", "method=kd"])
    assert f"student.checkpoint={alone}/student.pt" in [word.replace('"', "") for word in line]
    assert not any("teacher.checkpoint" in word or "skip_if_loaded" in word for word in line)


def test_a_student_that_starts_like_the_teacher_no_longer_does(distill, tmp_path):
    old = tmp_path / "old"
    words = [*SHORT, "model@student=plain_32_64_128", "+method.stages.distill.init_from={student: teacher}"]
    assert distill(*words, f"hydra.run.dir={old}")[0] == 0
    code, out, err = distill("continue", str(old), f"hydra.run.dir={tmp_path / 'new'}")
    assert code == 0, err
    assert "student starts from teacher" in (old / "train.log").read_text()
    assert "student starts from teacher" not in out


def test_what_is_typed_goes_before_what_would_be_filled_in(finished):
    line = call("continue", [str(finished), "student.checkpoint=mine.pt", "prelude.stages.alone.skip_if_loaded=false"])
    assert "student.checkpoint=mine.pt" in line and "prelude.stages.alone.skip_if_loaded=false" in line
    assert sum(word.startswith("student.checkpoint") for word in line) == 1
    assert "prelude.stages.alone.skip_if_loaded=true" not in line


def test_how_the_old_run_read_its_own_checkpoint_is_not_how_this_one_is_read(distill, tmp_path, finished):
    old = tmp_path / "old"
    start = f"student.checkpoint='{finished}/checkpoints/distill/epoch_0000/state.pt'"
    words = [*SHORT, "method=ce", start, "student.checkpoint_key=parts.networks.student"]
    code, _, err = distill(*words, f"hydra.run.dir={old}")
    assert code == 0, err
    code, _, err = distill("continue", str(old), "stage.lr=0.01", f"hydra.run.dir={tmp_path / 'new'}")
    assert code == 0, err
    config = OmegaConf.load(tmp_path / "new" / "config_resolved.yaml")
    assert config.student.checkpoint == str(old / "student.pt") and config.student.checkpoint_key is None


def test_a_continued_run_may_be_continued_and_be_a_sweep(finished, continued):
    first, _, _ = continued(str(finished), "stage.epochs=1")
    line = call("continue", [str(first), "stage.lr=0.1,0.01", "-m"])
    assert line[0] == "--multirun" and "stage.lr=0.1,0.01" in line
    assert [word for word in line if word.startswith("student.checkpoint=")] == [
        f'student.checkpoint="{first}/student.pt"'
    ]


def test_a_run_from_python_is_continued_from_its_config(from_python, continued):
    new, _, _ = continued(str(from_python), "stage.lr=0.01")
    record = json.loads((new / "weights.json").read_text())
    files = {key: Path(entry["file"]).name for key, entry in record.items()}
    assert files == {
        "student.checkpoint": "student.pt",
        "method.extra_models.assistant.checkpoint": "assistant.pt",
    }


def test_wrong_overrides_are_told_in_one_list(finished, distill):
    code, _, err = distill("continue", str(finished), "stage.epoch=5", "sede=4", "stage.lr=fast")
    assert code == 2 and "Traceback" not in err
    assert (
        "did you mean 'stage.epochs'?" in err and "did you mean 'seed'?" in err and "stage.lr: cannot be 'fast'" in err
    )


def test_another_student_is_told_with_the_file_that_does_not_fit(finished, distill):
    code, _, err = distill("continue", str(finished), "model@student=plain_16_32_64")
    assert code == 2 and "student.checkpoint" in err and "Traceback" not in err


@pytest.mark.parametrize(
    ("spoiled", "says"),
    [
        ({"status.json": '{"state": "failed"}'}, "is not finished (failed); first: distill resume"),
        ({"summary.json": "{"}, "is not finished (its summary.json cannot be read); first: distill resume"),
        ({"status.json": ""}, "is not finished (its status.json cannot be read); first: distill resume"),
        ({"student.pt": None}, "student.pt is not there any more"),
        ({"student.pt": "x"}, "student.checkpoint: "),
    ],
    ids=str,
)
def test_a_run_that_is_not_finished_or_whole_is_refused(finished, spoiled, says, distill, tmp_path):
    copied = Path(shutil.copytree(finished, tmp_path / "copy"))
    for name, text in spoiled.items():
        (copied / name).unlink()
        if text is not None:
            (copied / name).write_text(text)
    code, _, err = distill("continue", str(copied), "stage.epochs=3")
    assert code == 2 and says in err and "Traceback" not in err, err
    assert not list(tmp_path.glob("outputs/*"))


def test_a_run_that_is_running_is_to_be_waited_for(finished, distill, tmp_path):
    copied = Path(shutil.copytree(finished, tmp_path / "copy"))
    Status(copied).set("running")
    code, _, err = distill("continue", str(copied))
    assert code == 2 and "is not finished (running); wait for it" in err


def test_help_says_what_begins_anew(distill):
    out = " ".join(distill("continue", "-h")[1].split())
    assert "Optimiser, learning-rate schedule" in out and "begin anew" in out and "cannot be lengthened" in out

"""The command line: exit codes, messages without tracebacks, what is imported, and the verbs about runs that exist."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from distill_app.api import run as run_config
from distill_app.config.tree import compose
from distill_app.errors import CacheError, DataError, NonFiniteLoss, SettingError, UsageError, explain

LAZY = """
import sys
from distill_app.cli import main
try:
    main(sys.argv[1:])
except SystemExit as exit:
    assert not exit.code, exit.code
heavy = {"torch", "torchvision", "numpy", "matplotlib", "submitit"} & set(sys.modules)
assert not heavy, heavy
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny):
    """A finished run: a teacher, and a student of two epochs."""
    folder = tmp_path_factory.mktemp("runs") / "a run=1"
    more = ["debug=one_batch", "runtime.max_epochs=2", "prelude=teacher"]
    run_config(compose([*tiny, *more]), output_dir=str(folder))
    return folder


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of it to spoil."""
    return Path(shutil.copytree(finished, tmp_path / "copy"))


@pytest.mark.parametrize(
    ("arguments", "shows"),
    [
        (["--help"], ["distill method=fitnet model@teacher=resnet50", "method: at, cckd, ce", "seed: 0"]),
        (["--cfg", "job", "method=at", "stage.lr=0.3"], ["name: at", "lr: 0.3", "_target_: torchvision.datasets"]),
        (["--cfg", "job", "--resolve"], ["_target_: distill_app.models"]),
        (["--version"], ["Hydra 1.3"]),
        (["--info", "defaults"], ["method/kd"]),
    ],
    ids=lambda value: value[0],
)
def test_what_only_shows_config_imports_nothing_heavy(arguments, shows, tmp_path):
    arguments = [*arguments, "dataset=cifar10"] if "method=at" in arguments else arguments
    done = subprocess.run(
        [sys.executable, "-c", LAZY, *arguments],
        cwd=tmp_path,
        env=at_home(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert all(text in done.stdout for text in shows), done.stdout
    assert list(tmp_path.iterdir()) == []


def at_home() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}


def test_help_may_be_cut_short_by_a_pager(tmp_path):
    command = f"{sys.executable} -m distill_app --help | head -n 1"
    done = subprocess.run(command, shell=True, cwd=tmp_path, env=at_home(), capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("distill: ") and done.stderr == ""


@pytest.mark.slow
def test_a_wrong_command_line_ends_with_2_and_one_list(distill_process, tmp_path, tiny):
    done = distill_process(*tiny, "sede=3", "+deda=1", "student.net._target_=os.system", cwd=tmp_path)
    lines = done.stderr.splitlines()
    assert done.returncode == 2 and done.stdout == ""
    assert lines[0] == "the configuration cannot run:" and len(lines) == 4
    assert [line[:5] for line in lines[1:]] == ["  1. ", "  2. ", "  3. "]
    assert "sede" in lines[1] and "deda" in lines[2] and "os.system" in lines[3]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_run_from_another_folder_takes_paths_with_spaces_and_equals_signs(distill_process, tmp_path, tiny):
    done = distill_process(*tiny, "prelude=none", "debug=one_batch", "hydra.run.dir='my run=1'", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "my run=1" / "summary.json").read_text())
    assert summary["method"] == "kd" and "student" in done.stdout + done.stderr
    assert (tmp_path / "my run=1" / ".hydra" / "overrides.yaml").is_file()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["method=fitent"], "method: unknown option 'fitent'; did you mean 'fitnet'?"),
        (["experiment=digits/kt", "dry_run=true"], "experiment: unknown option 'digits/kt'; did you mean 'digits/kd'?"),
        (["debug=one_bach", "dry_run=true"], "debug: unknown option 'one_bach'; did you mean 'one_batch'?"),
        (["dataset.root=${nowhere}"], "dataset.root: Interpolation key 'nowhere' not found"),
        (["a b"], "'a b' is no override; write key=value"),
        (["stage=null"], "stage: unknown option 'null' (there are: "),
        (["--config-dir=not/there"], "--config-dir: not/there is not a folder"),
        (["dataset=cifar10", "dry_run=true"], "to get the data: python -c"),
        (["-m", "seed=0,1", "+deda=1", "dry_run=true"], "deda: unknown key 'deda'; did you mean 'seed'?"),
        (["-m", "method=kd,fitent", "sede=3"], "sede: unknown key 'sede'; did you mean 'seed'?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_is_configured_wrong_ends_with_2_and_no_traceback(arguments, says, distill, tmp_path, monkeypatch, tiny):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DISTILL_DATA", str(tmp_path))
    flags = [word for word in arguments if word.startswith("-")]
    code, _, err = distill(*flags, *tiny, "prelude=none", *(word for word in arguments if word not in flags))
    assert code == 2 and "Traceback" not in err
    told = [line for line in err.splitlines() if says in line]
    assert len(told) == 1, err


@pytest.mark.slow
def test_a_sweep_goes_on_past_a_job_that_fails(distill, tmp_path, monkeypatch, tiny):
    monkeypatch.chdir(tmp_path)
    point = ["prelude=none", "debug=one_batch", "hydra.sweep.dir=sweep"]
    code, out, err = distill("-m", *tiny, *point, "student.net.num_classes=9,10")
    assert code == 2 and err.startswith("refused: the configuration cannot run:\n  1. ")
    assert "[1/2] student.net.num_classes=9\n" in out and "[2/2] student.net.num_classes=10\n" in out
    assert not (tmp_path / "sweep/0/summary.json").exists() and (tmp_path / "sweep/1/summary.json").is_file()


@pytest.mark.slow
def test_errors_in_config_files_of_ones_own_name_the_file(distill, tmp_path, monkeypatch, tiny):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "mine" / "method"
    folder.mkdir(parents=True)
    texts = {
        "yaml": ("defaults: [kd, _self_\nname: x: y\n", "method/yaml.yaml"),
        "base": ("defaults: [kdd, _self_]\n", "method/base: unknown option 'kdd'; did you mean 'kd'?"),
        "word": (
            "defaults: [kd, _self_]\nshedule: [a]\n",
            "method/word: unknown key 'shedule'; did you mean 'schedule'?",
        ),
        "type": (
            "defaults: [kd, _self_]\nstages: {distill: {epochs: many}}\n",
            "'many' of type 'str' could not be conv",
        ),
    }
    for name, (text, says) in texts.items():
        (folder / f"{name}.yaml").write_text(text)
        code, _, err = distill("--config-dir", "mine", *tiny, f"method={name}", "dry_run=true")
        assert code == 2 and says in err and "Traceback" not in err, err


def test_options_of_ones_own_are_known_when_something_else_is_wrong(distill, tmp_path, monkeypatch, tiny):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine" / "method").mkdir(parents=True)
    (tmp_path / "mine" / "method" / "mine.yaml").write_text("defaults: [kd, _self_]\nname: mine\n")
    code, _, err = distill("--config-dir", "mine", *tiny, "method=mine", "sede=3", "dry_run=true")
    assert code == 2 and len(err.splitlines()) == 2 and "did you mean 'seed'?" in err, err
    code, _, err = distill("--config-dir=mine", *tiny, "method=min", "dry_run=true")
    assert code == 2 and "method: unknown option 'min'; did you mean 'mine'?" in err


def test_an_output_folder_that_cannot_be_written_is_told(distill, tmp_path, monkeypatch, tiny):
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    code, _, err = distill(*tiny, "prelude=none", "hydra.run.dir=file/run")
    assert code == 1 and "Traceback" not in err and "file/run" in err


def test_a_traceback_is_shown_on_demand(distill, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for wrong in (["sede=3"], ["dataset=cifar10", "dataset.root=/nowhere"]):
        code, _, err = distill(*wrong, "dry_run=true", full=True)
        assert code != 0 and "Traceback (most recent call last)" in err


@pytest.mark.parametrize("word", ["resum", "distill", "run"])
def test_an_unknown_verb_gets_its_nearest_match(word, distill):
    code, _, err = distill(word)
    assert code == 2 and f"error: unknown verb {word!r}" in err and "overrides have the form key=value" in err
    assert ("did you mean 'resume'?" in err) == (word == "resum")


@pytest.mark.parametrize("verb", ["resume", "evaluate", "export"])
def test_a_verb_explains_itself(verb, distill):
    code, out, _ = distill(verb, "-h")
    assert code == 0 and out.startswith(f"usage: distill {verb}")


def evaluated(distill, *arguments) -> dict:
    code, out, err = distill("evaluate", *map(str, arguments))
    assert code == 0, err
    return json.loads(out)


@pytest.mark.slow
def test_evaluate_gives_the_accuracy_of_the_table(distill, finished):
    rows = {row["network"]: row for row in json.loads((finished / "summary.json").read_text())["rows"]}
    for network in ("student", "teacher"):
        metrics = evaluated(distill, finished, "--network", network)
        assert metrics["accuracy"] == pytest.approx(rows[network]["accuracy"]) and metrics["split"] == "test"


def test_evaluate_takes_checkpoints_marks_and_files(distill, finished):
    last = evaluated(distill, finished)
    for place in ("checkpoints/last", "checkpoints/distill/epoch_0001", "checkpoints/distill/epoch_0001/state.pt"):
        assert {**evaluated(distill, finished / place), "weights": None} == {**last, "weights": None}
    assert evaluated(distill, finished / "student.pt")["accuracy"] == last["accuracy"]
    first = evaluated(distill, finished / "checkpoints" / "distill" / "epoch_0000")
    assert first["loss"] != last["loss"] and "epoch_0000" in first["weights"]
    assert evaluated(distill, finished, "--split", "validation")["split"] == "validation"


def test_evaluate_finds_the_run_from_inside(distill, finished, monkeypatch):
    monkeypatch.chdir(finished / "checkpoints" / "distill")
    assert evaluated(distill, "best")["network"] == "student"


def test_export_writes_a_plain_state_dict(distill, finished, tmp_path):
    file = tmp_path / "out.pt"
    code, out, _ = distill("export", str(finished / "checkpoints" / "distill" / "epoch_0000"), "--output", str(file))
    assert code == 0 and str(file) in out
    exported = torch.load(file, weights_only=True)
    assert exported.keys() == torch.load(finished / "student.pt", weights_only=True).keys()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["evaluate", "{run}/nothing"], "is not a run nor in one"),
        (["evaluate", "{run}/checkpoints"], "is no checkpoint of"),
        (["evaluate", "{run}/checkpoints/distill"], "there are: distill/best"),
        (["evaluate", "{run}/checkpoints/distill/epoch_0009"], "is not a run nor in one"),
        (["evaluate", "{run}/train.log"], "not a readable file of tensors"),
        (["evaluate", "{run}", "--network", "techer"], "unknown network 'techer'; did you mean 'teacher'?"),
        (["evaluate", "{run}/student.pt", "--network", "teacher"], "does not hold the weights of 'teacher'"),
        (["export", "{run}", "--output", "{run}"], "cannot save weights"),
        (["export", "{run}"], "--output"),
        (["resume", "/nowhere/at/all"], "is not a run nor in one"),
        (["resume", "."], "is not a run nor in one"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_place_that_is_no_run_is_told_without_a_traceback(arguments, says, distill, finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = distill(*(argument.format(run=finished) for argument in arguments))
    assert code in (1, 2) and says in err and "Traceback" not in err, err


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", "", "seed: {}", "runtime: 3"])
def test_a_stored_config_that_is_damaged_is_told_without_a_traceback(text, distill, copied):
    (copied / "config_resolved.yaml").write_text(text)
    code, _, err = distill("evaluate", str(copied))
    assert code in (1, 2) and err.startswith(("error: ", "the configuration cannot run:")) and "Traceback" not in err


def test_a_finished_run_is_left_as_it_is_by_resume(distill, finished):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    code, out, _ = distill("resume", str(finished))
    assert code == 0 and f"{finished} is finished; its summary is" in out
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before


def test_an_interrupted_run_is_resumed_and_its_command_stays(distill, copied):
    command, student = (copied / "command.txt").read_text(), torch.load(copied / "student.pt", weights_only=True)
    for name in ("summary.json", "student.pt"):
        (copied / name).unlink()
    shutil.rmtree(copied / "checkpoints" / "distill" / "epoch_0001")
    (copied / "checkpoints" / "last.mark").write_text("distill/epoch_0000\n")
    (copied / "status.json").write_text('{"state": "failed"}')
    code, _, err = distill("resume", str(copied / "checkpoints"))
    assert code == 0, err
    assert (copied / "command.txt").read_text() == command
    assert (copied / "summary.json").is_file() and student.keys() == torch.load(copied / "student.pt").keys()


def spoil(run: Path, key: str, value) -> None:
    config = OmegaConf.load(run / "config_resolved.yaml")
    OmegaConf.update(config, key, value, force_add=True)
    OmegaConf.save(config, run / "config_resolved.yaml")


@pytest.mark.parametrize(
    ("verb", "key"),
    [
        ("evaluate", "student.net"),
        ("evaluate", "dataset.test"),
        ("export", "student.net"),
        ("resume", "student.net"),
        ("resume", "method.stages.distill.losses.kd.loss"),
    ],
)
def test_a_stored_config_is_not_trusted_with_packages_that_it_allows_itself(verb, key, distill, copied, tmp_path):
    canary = tmp_path / "canary"
    spoil(copied, key, {"_target_": "os.system", "command": f"touch '{canary}'"})
    spoil(copied, "runtime.allow", ["os", "posix"])
    spoil(copied, "method.stages.distill.epochs", 9)  # something is left to build
    spoil(copied, "runtime.max_epochs", None)
    (copied / "status.json").write_text('{"state": "failed"}')
    (copied / "summary.json").unlink()
    more = ["--output", str(tmp_path / "out.pt")] if verb == "export" else []
    code, _, err = distill(verb, str(copied), *more)
    assert code == 2 and "'os.system' is outside what may be built" in err and "--allow os" in err
    assert not canary.exists() and "Traceback" not in err


def test_a_stored_config_runs_no_hubconf_unless_it_is_trusted(distill, copied, tmp_path):
    canary = tmp_path / "canary"
    net = "from torchvision.models import resnet18\ndef small():\n    return resnet18(num_classes=10)\n"
    (copied / "hubconf.py").write_text(f"import pathlib\npathlib.Path({str(canary)!r}).touch()\n{net}")
    spoil(copied, "student.net", {"_target_": "torch.hub.load", "repo_or_dir": str(copied), "model": "small"})
    spoil(copied, "student.net.source", "local")
    code, _, err = distill("evaluate", str(copied))
    assert code == 2 and "--allow torch.hub.load" in err and not canary.exists()
    distill("evaluate", str(copied), "--allow", "torch.hub.load")
    assert canary.exists()


def test_a_bug_keeps_its_traceback_and_an_error_for_the_user_has_none():
    assert explain(ValueError("a bug of the program's own"))[0] is None
    for error in (SettingError("a"), CacheError("a"), NonFiniteLoss("a"), UsageError("a"), OSError("a")):
        assert explain(error)[0] == "error: a"
    assert [explain(error)[1] for error in (UsageError("a"), DataError("a"), NonFiniteLoss("a"))] == [2, 2, 1]

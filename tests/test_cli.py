"""The command line: exit codes, messages without tracebacks, and what is imported."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import distill_app
from distill_app.errors import CacheError, DataError, NonFiniteLoss, SettingError, UsageError, explain
from distill_app.verbs import VERBS

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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "shows"),
    [
        (["--help"], ["distill method=at model@student=mobilenet_v3_small", "distill list", "--cfg job", *VERBS]),
        (["list", "models"], ["resnet18", "mobilenet_v2"]),
        (["completion", "words", "--", "stage.opt"], ["stage.optimizer."]),
        (["--cfg", "job", "method=at", "stage.lr=0.3"], ["name: at", "lr: 0.3", "_target_: torchvision.datasets"]),
        (["--cfg", "job", "--resolve"], ["_target_: distill_app.models"]),
        (["--version"], [f"distill-app {distill_app.__version__} (torch 2.", "hydra-core 1.3."]),
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


@pytest.mark.slow
def test_help_is_one_screen(distill):
    lines = distill("--help")[1].splitlines()
    assert len(lines) <= 40 and max(map(len, lines)) <= 80


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_traceback_is_shown_on_demand(distill, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for wrong in (["sede=3"], ["dataset=cifar10", "dataset.root=/nowhere"]):
        code, _, err = distill(*wrong, "dry_run=true", full=True)
        assert code != 0 and "Traceback (most recent call last)" in err


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("resum", "distill resume"),
        ("Train", "distill method=kd"),
        ("check", "distill dry_run=true"),
        ("test", "distill evaluate RUN"),
        ("method", "distill methods"),
        ("stage", "distill stages"),
        ("metods", "distill methods"),
        ("xyzzy", None),
    ],
)
def test_an_unknown_verb_gets_what_was_meant(word, meant, distill):
    code, _, err = distill(word)
    assert code == 2 and f"error: unknown verb {word!r}" in err and "overrides have the form key=value" in err
    assert f"did you mean {meant!r}?" in err if meant else "did you mean" not in err


def test_a_bug_keeps_its_traceback_and_an_error_for_the_user_has_none():
    assert explain(ValueError("a bug of the program's own"))[0] is None
    for error in (SettingError("a"), CacheError("a"), NonFiniteLoss("a"), UsageError("a"), OSError("a")):
        assert explain(error)[0] == "error: a"
    assert [explain(error)[1] for error in (UsageError("a"), DataError("a"), NonFiniteLoss("a"))] == [2, 2, 1]

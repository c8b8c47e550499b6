"""The verbs about runs that exist: resume, evaluate and export; what a stored config is not trusted with."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from distill_app.api import run as run_config
from distill_app.config.tree import compose
from distill_app.verbs.stored import stored_config


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny):
    """A finished run: a teacher, and a student of two epochs."""
    folder = tmp_path_factory.mktemp("runs") / "a run=1"
    more = ["debug=one_batch", "runtime.max_eval_batches=null", "runtime.max_epochs=2", "prelude=teacher"]
    run_config(compose([*tiny, *more]), output_dir=str(folder))
    return folder


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of it to spoil."""
    return Path(shutil.copytree(finished, tmp_path / "copy"))


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


@pytest.mark.slow
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


@pytest.mark.slow
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
        (["export", "{run}", "--output", "{run}"], "is the run itself; name a folder in it"),
        (["export", "{run}", "--output", "{run}/student.pt/x"], "cannot write to"),
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.parametrize("verb", ["evaluate", "resume"])
def test_a_stored_config_does_not_read_the_environment(verb, distill, copied, monkeypatch):
    token = "-".join(("5ecret", "t0ken"))  # not as text: a run's git.diff has this very file
    monkeypatch.setenv("A_TOKEN", token)
    spoil(copied, "student.name", "${oc.env:A_TOKEN}")
    (copied / "summary.json").unlink()
    code, out, err = distill(verb, str(copied))
    assert code == 2 and "${oc.env:A_TOKEN}" in err and "resolved" in err and token not in out + err
    assert not any(token.encode() in path.read_bytes() for path in copied.rglob("*") if path.is_file())


@pytest.mark.parametrize("verb", ["evaluate", "resume", "rerun"])
def test_a_stored_config_with_a_flipped_bit_is_refused_until_somebody_says_that_he_meant_it(verb, distill, copied):
    (copied / ".hydra" / "overrides.yaml").unlink(missing_ok=True)
    file = copied / "config_resolved.yaml"
    text = file.read_text()
    assert text.startswith("# sha256 of the lines below: ") and "select: last" in text
    changed = text.replace("select: last", "select: lost")
    file.write_text(changed)
    code, _, err = distill(verb, str(copied))
    assert code == 2 and "it is not as the run wrote it" in err and "take out its first line" in err
    file.write_text(changed.partition("\n")[2].replace("select: lost", "select: best"))
    code, _, err = distill(verb, str(copied), *(["dry_run=true"] if verb == "rerun" else []))
    assert code == 0, err


def test_a_finished_run_whose_summary_is_damaged_gets_it_again(distill, copied):
    rows = json.loads((copied / "summary.json").read_text())["rows"]
    (copied / "summary.json").write_text('{"rows": [')
    code, _, err = distill("resume", str(copied))
    assert code == 0, err
    again = json.loads((copied / "summary.json").read_text())["rows"]
    assert [row["accuracy"] for row in again] == [row["accuracy"] for row in rows]


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


@pytest.mark.parametrize(("runtime", "names"), [({"tensorboard": False}, []), ({}, ["tensorboard"])])
def test_a_run_of_an_earlier_version_keeps_its_tensorboard(copied, runtime, names):
    config = OmegaConf.to_container(OmegaConf.load(copied / "config_resolved.yaml"))
    del config["tracker"]
    config["runtime"] |= runtime
    (copied / "config_resolved.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(config)))
    assert list(stored_config(copied, allow=[]).get("tracker", {})) == names


def test_a_run_without_a_tracker_stays_without(copied):
    assert stored_config(copied, allow=[])["tracker"] == {}

"""Whose a run folder is: the same experiment goes on or is found, any other is refused and nothing touched."""

import json
from pathlib import Path

import pytest

from distill_app.errors import OtherExperiment, UsageError
from distill_app.runs.claim import (
    claim,
    finished_line,
    finished_summary,
    lost_text,
    refuse_other,
    resume_command,
    stored_config,
)
from distill_app.runs.lifecycle import run_folder
from distill_app.runs.status import Status, process_record

CONFIG = {
    "seed": 0,
    "stage": {"lr": 1e-5},
    "runtime": {"num_workers": 0},
    "name": "no",
    "when": "2026-01-01",
    "x": None,
}


def begun(folder: Path, state: str = "done", config: dict = CONFIG) -> Path:
    claim(folder, config)
    Status(folder).set(state)
    return folder


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("state", ["done", "failed", "running", "preempted"])
def test_another_experiment_is_refused_whatever_became_of_the_first(tmp_path, state):
    begun(tmp_path / "run", state)
    before = snapshot(tmp_path)
    with pytest.raises(OtherExperiment) as caught, run_folder(tmp_path / "run", {**CONFIG, "seed": 1}):
        pytest.fail("entered the folder of another experiment")
    assert snapshot(tmp_path) == before
    told = str(caught.value)
    assert f"holds another experiment ({state}); 1 setting differs, there -> here:\n  seed: 0 -> 1\n" in told
    assert "hydra.run.dir=..." in told and f"rm -r {tmp_path}/run" in told
    assert (f"distill resume {tmp_path}/run" in told) == (state != "done")
    assert caught.value.exit_code == 2


def test_the_same_experiment_may_come_back_with_other_workers(tmp_path):
    begun(tmp_path, "failed")
    with run_folder(tmp_path, {**CONFIG, "runtime": {"num_workers": 3}}) as finished:
        assert finished is None
    assert stored_config(tmp_path)["runtime"] == {"num_workers": 3}


def test_a_stored_config_reads_as_it_was_written(tmp_path):
    config = {**CONFIG, "when": "2026-01-01", "word": "1e5", "list": [1, 2.5, None, {"a": "on"}], "text": "a: b\n# c"}
    begun(tmp_path, config=config)
    refuse_other(tmp_path, config)
    assert stored_config(tmp_path)["when"] == "2026-01-01" and stored_config(tmp_path)["list"] == config["list"]


def test_a_folder_in_which_nothing_ran_is_free(tmp_path):
    refuse_other(tmp_path / "new", CONFIG)
    (tmp_path / "notes.txt").write_text("mine")
    claim(tmp_path, CONFIG)  # claimed, and then the launcher failed
    refuse_other(tmp_path, {**CONFIG, "seed": 1})
    Status(tmp_path).set("refused", reason="a wrong key")
    refuse_other(tmp_path, {**CONFIG, "seed": 1})


@pytest.mark.parametrize("trace", ["summary.json", "metrics.jsonl", "job.json", "checkpoints"])
def test_a_folder_without_a_status_is_taken_by_what_a_run_leaves(tmp_path, trace):
    claim(tmp_path, CONFIG)
    (tmp_path / trace).mkdir() if trace == "checkpoints" else (tmp_path / trace).write_text("{}")
    refuse_other(tmp_path, CONFIG)
    with pytest.raises(OtherExperiment, match="seed: 0 -> 1"):
        refuse_other(tmp_path, {**CONFIG, "seed": 1})


@pytest.mark.parametrize("content", [None, "a: [", "[1]", "!!python/object/apply:os.getcwd []"])
def test_a_run_whose_config_cannot_be_read_is_nobodys(tmp_path, content):
    begun(tmp_path)
    (tmp_path / "config_resolved.yaml").unlink()
    if content:
        (tmp_path / "config_resolved.yaml").write_text(content)
    with pytest.raises(OtherExperiment, match="is missing or cannot be read"):
        refuse_other(tmp_path, CONFIG)


def test_a_finished_run_is_found_and_told_in_a_line(tmp_path):
    begun(tmp_path)
    assert finished_summary(tmp_path) is None  # done, and its summary was lost: to be concluded again
    rows = [{"name": "student with kd", "accuracy": 0.8606}, {"name": "teacher", "loss": 0.5}, 3]
    (tmp_path / "summary.json").write_text(json.dumps({"rows": rows}))
    with run_folder(tmp_path, CONFIG) as finished:
        assert finished == {"rows": rows}
    line = finished_line("outputs/f", finished)
    assert line == "finished already: outputs/f: student with kd 86.06%, teacher loss 0.5"


@pytest.mark.parametrize(
    ("lost", "says", "remedy"),
    [
        ("summary.json", "its summary.json cannot be read", "in a new folder: distill rerun"),
        ("status.json", "its status.json cannot be read", "to write it anew: distill resume"),
    ],
)
def test_a_finished_run_that_has_lost_its_records_and_checkpoints_is_not_trained_anew(tmp_path, lost, says, remedy):
    begun(tmp_path)
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    (tmp_path / "summary.json").write_text("{}")
    refuse_other(tmp_path, CONFIG)
    (tmp_path / lost).write_text("{")
    assert lost_text(tmp_path) == says
    with pytest.raises(UsageError, match=f"{says}.*{remedy}"):
        refuse_other(tmp_path, CONFIG)
    (tmp_path / "checkpoints" / "distill" / "epoch_0000").mkdir(parents=True)
    (tmp_path / "checkpoints" / "distill" / "epoch_0000" / "manifest.json").write_text("{}")
    refuse_other(tmp_path, CONFIG)


def test_what_to_type_to_go_on_quotes_and_names_whom_to_trust():
    assert (
        resume_command("a run=1", {"runtime": {"allow": ["timm", "mypkg"]}}) == "distill resume 'a run=1' --allow mypkg"
    )
    assert resume_command("a", {}) == "distill resume a"


def test_going_on_with_a_run_of_another_host_is_told(tmp_path, caplog):
    begun(tmp_path, "running")
    (tmp_path / "status.json").write_text(json.dumps({**process_record(), "state": "running", "host": "far", "pid": 1}))
    with run_folder(tmp_path, CONFIG):
        pass
    assert "its status is running (unknown: other host, far)" in caplog.text

"""What a status means by now: whether its process lives, and that failing to write it hides nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from distill_app.runs.status import Status, process_record, state_of


def ended() -> dict:
    """The record of a process that is gone."""
    code = "import json; from distill_app.runs.status import process_record as r; print(json.dumps(r()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {"state": "running", **json.loads(done.stdout)}


@pytest.fixture(scope="module")
def dead() -> dict:
    return ended()


def test_a_living_process_runs_and_a_dead_one_has_died(tmp_path, dead):
    Status(tmp_path).set("running")
    assert state_of(Status(tmp_path).read()) == "running"
    assert state_of(dead) == "died"


def test_a_number_that_was_given_out_again_is_another_process(dead):
    assert state_of({**dead, "pid": os.getpid()}) == "died"


def test_a_process_that_nobody_waited_for_has_died():
    child = os.fork()
    if child == 0:
        os._exit(0)
    try:
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)  # it has ended, and stays in the table of processes
        assert state_of({**process_record(), "state": "running", "pid": child, "started": None}) == "died"
    finally:
        os.waitpid(child, 0)


@pytest.mark.parametrize(
    ("change", "state"),
    [
        ({"host": "elsewhere"}, "running (unknown: other host, elsewhere)"),
        ({"machine": "another-boot pid:[1]"}, "died"),
        ({"pid": None}, "running (unknown: no process named)"),
        ({"pid": "7"}, "running (unknown: no process named)"),
        ({"state": "failed"}, "failed"),
        ({"state": None}, None),
    ],
)
def test_what_cannot_be_seen_from_here_is_said(dead, change, state):
    assert state_of({**dead, **change}) == state


def test_another_container_of_this_machine_cannot_be_seen(dead):
    boot = dead["machine"].partition(" ")[0]
    assert state_of({**dead, "machine": f"{boot} pid:[1]"}) == "running (unknown: other container)"


def test_records_of_former_versions_are_read(dead):
    old = {key: dead[key] for key in ("state", "host", "pid")}
    assert state_of(old) == "died" and state_of({**old, "pid": os.getpid()}) == "running"


def test_a_status_that_cannot_be_written_is_a_warning_beside_the_error(tmp_path, caplog):
    gone = tmp_path / "gone"
    with pytest.raises(OSError):
        Status(gone).set("failed")
    with pytest.raises(ZeroDivisionError):
        try:
            _ = 1 / 0
        except ZeroDivisionError:
            Status(gone).note("failed", reason="it divided by zero")
            raise
    assert "cannot be written" in caplog.text and "it divided by zero" in caplog.text
    assert not Path(gone).exists()

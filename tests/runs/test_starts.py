"""`weights.json`: the files that networks start from, with their hashes and the runs that they are of."""

import hashlib
import json
from pathlib import Path

from distill_app.runs.claim import claim
from distill_app.runs.settings import fingerprint
from distill_app.runs.starts import write_starts

CONFIG = {"seed": 5, "method": {"name": "kd"}, "stage": {"lr": 0.1}}


def starting(student: Path | str | None, **more) -> dict:
    return {"student": {"checkpoint": None if student is None else str(student)}, "method": {"name": "at"}, **more}


def written(folder: Path) -> dict:
    return json.loads((folder / "weights.json").read_text())


def test_a_file_of_a_run_is_recorded_with_the_run_and_one_of_elsewhere_without(tmp_path):
    claim(tmp_path / "old", CONFIG)
    (tmp_path / "old" / "student.pt").write_bytes(b"weights")
    (tmp_path / "lone.pt").write_bytes(b"others")
    lone = {"extra_models": {"peer": {"checkpoint": f"file://{tmp_path}/lone.pt"}}}
    write_starts(tmp_path, starting(tmp_path / "old" / "student.pt", prelude=lone))
    assert written(tmp_path) == {
        "student.checkpoint": {
            "file": str(tmp_path / "old" / "student.pt"),
            "sha256": hashlib.sha256(b"weights").hexdigest(),
            "run": str(tmp_path / "old"),
            "settings": fingerprint(CONFIG),
            "seed": 5,
            "method": "kd",
        },
        "prelude.extra_models.peer.checkpoint": {
            "file": str(tmp_path / "lone.pt"),
            "sha256": hashlib.sha256(b"others").hexdigest(),
            "run": None,
        },
    }


def test_where_no_file_is_named_or_there_nothing_is_written(tmp_path):
    write_starts(tmp_path, starting(None))
    write_starts(tmp_path, starting(tmp_path / "nowhere.pt", teacher=None, prelude=None))
    assert not (tmp_path / "weights.json").exists()


def test_a_run_that_goes_on_keeps_what_it_began_with(tmp_path):
    file = tmp_path / "a.pt"
    file.write_bytes(b"one")
    write_starts(tmp_path, starting(file))
    before = written(tmp_path)
    file.write_bytes(b"two")
    write_starts(tmp_path, starting(file))
    assert written(tmp_path) == before
    other = tmp_path / "b.pt"
    other.write_bytes(b"three")
    write_starts(tmp_path, starting(other))
    assert written(tmp_path)["student.checkpoint"]["sha256"] == hashlib.sha256(b"three").hexdigest()

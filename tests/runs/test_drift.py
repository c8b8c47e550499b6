"""What is different from when a run was made: told from its records, or that they cannot be read."""

import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from distill_app.runs import drift as module
from distill_app.runs.drift import drift
from distill_app.runs.records import write_records

CONFIG = {"seed": 3, "student": {"checkpoint": None}}
DATA = {"distill": {"dataset": "pets", "train": 5, "classes": ["cat", "dog"], "label_counts": [3, 2]}}
COMMIT = {"of": "package", "commit": "a" * 40, "dirty": False, "changed": [], "diff_truncated": False}


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The records of a run of just now."""
    monkeypatch.setattr(module, "git_state", lambda: (COMMIT, ""))
    write_records(tmp_path, cfg=OmegaConf.create(CONFIG), command=["distill"], data=DATA)
    (tmp_path / "git.json").write_text(json.dumps(COMMIT))
    (tmp_path / "git.diff").unlink(missing_ok=True)
    return tmp_path


def told(folder: Path, *, config: dict | None = None, data: dict | None = None) -> list[str]:
    return list(drift(folder, config=config or CONFIG, data=data or DATA))


def change(folder: Path, name: str, **entries) -> None:
    record = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**record, **entries}))


def test_right_after_a_run_nothing_is_different(folder):
    assert told(folder) == []


def test_another_commit_and_changes_that_are_not_committed_are_told(folder, monkeypatch):
    change(folder, "git.json", commit="b" * 40)
    (folder / "git.diff").write_text("-a\n+b\n")
    assert told(folder) == [
        "code, commit: bbbbbbbbbbbb then, aaaaaaaaaaaa now",
        "code, changes that are not committed: some then, none now (git.diff)",
    ]
    dirty = {**COMMIT, "changed": [" M a.py", "?? new.py", "?? notes.txt"]}
    monkeypatch.setattr(module, "git_state", lambda: (dirty, "-a\n+c\n"))
    change(folder, "git.json", commit="a" * 40)
    assert told(folder) == [
        "code, changes that are not committed: others then than now (git.diff)",
        "code, files that git does not know: none then, new.py now",
    ]


def test_code_that_was_in_no_repository_is_told(folder):
    change(folder, "git.json", commit=None, reason="git is missing")
    assert told(folder) == ["code: which it was then is not recorded (git is missing)"]


def test_packages_python_and_machine_are_told(folder):
    environment = json.loads((folder / "env.json").read_text())
    packages = {**environment["packages"], "torch": "1.0", "pytest": "0.1"}
    determinism = {**environment["determinism"], "deterministic_algorithms": "?"}
    changed = {"python": "3.9.1 (main)", "packages": packages, "gpus": ["H100"], "cpu": "Z80", "threads": 64}
    change(folder, "env.json", **changed, determinism=determinism)
    found = told(folder)
    assert f"Python: 3.9.1 then, {environment['python'].split()[0]} now" in found
    assert f"torch: 1.0 then, {environment['packages']['torch']} now" in found
    assert f"other packages: pytest 0.1 then, {environment['packages']['pytest']} now" in found
    assert "GPUs: H100 then, none now" in found or any(text.startswith("GPUs: H100 then, ") for text in found)
    assert f"processor: Z80 then, {environment['cpu'] or 'none'} now" in found
    assert any(text.startswith("threads: 64 then, ") for text in found)
    assert any(text.startswith("deterministic_algorithms: ? then, ") for text in found)
    assert len(found) == 7


@pytest.mark.parametrize(
    ("now", "says"),
    [
        ({"train": 6}, "data of stage distill, train: 5 then, 6 now"),
        ({"label_counts": [3, 3]}, "data of stage distill, label counts: others at 1"),
        ({"classes": ["cat", "cow"]}, "data of stage distill, classes: dog gone, cow new"),
        ({"classes": ["dog", "cat"]}, "data of stage distill, classes: their order is another"),
        ({"root": "/elsewhere"}, "data of stage distill, root: none then, /elsewhere now"),
    ],
)
def test_other_data_are_told(folder, now, says):
    assert told(folder, data={"distill": {**DATA["distill"], **now}}) == [says]


def test_another_stage_is_told(folder):
    assert told(folder, data={**DATA, "hint": {}}) == ["data of stage hint: recorded now alone"]


def test_a_file_of_weights_that_has_changed_is_told(folder, tmp_path):
    file = tmp_path / "teacher.pt"
    file.write_bytes(b"one")
    config = {**CONFIG, "teacher": {"checkpoint": str(file)}}
    assert told(folder, config=config) == [
        f"teacher.checkpoint: {file}; of then nothing is recorded ({folder / 'weights.json'})"
    ]
    write_records(folder, cfg=OmegaConf.create(config), command=["distill"], data=DATA)
    (folder / "git.json").write_text(json.dumps(COMMIT))
    (folder / "git.diff").unlink(missing_ok=True)
    assert told(folder, config=config) == []
    file.write_bytes(b"two")
    assert told(folder, config=config) == [f"teacher.checkpoint: {file} has other content than then"]


@pytest.mark.parametrize("name", ["git.json", "env.json", "data.json"])
@pytest.mark.parametrize("content", [None, "[1]", "{"])
def test_records_that_are_missing_or_unreadable_are_told(folder, name, content):
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content)
    what = "is missing" if content is None else "cannot be read"
    assert told(folder) == [f"{folder / name} {what}, so what it says of then cannot be compared"]


def test_a_difference_that_cannot_be_read_is_told(folder):
    (folder / "git.diff").write_bytes(b"\xff\xfe")
    assert told(folder) == [
        f"code: {folder / 'git.diff'} cannot be read, so changes that were not committed cannot be compared"
    ]

"""Checkpoints: atomic, verified, pruned, and harmless to load."""

import errno
import os
import pickle
import re
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from distill_app.errors import CheckpointError
from distill_app.runs import statefile
from distill_app.runs.checkpoint import Checkpoints
from distill_app.runs.files import remove_leftovers
from distill_app.runs.statefile import load_file, plain, save_weights


def _state(value: float) -> dict:
    return {"epoch": int(value), "model": {"weight": torch.full((100,), float(value))}}


def _filled(folder: Path, *, count: int = 2, keep: int = 1) -> Checkpoints:
    checkpoints = Checkpoints(folder, keep=keep)
    for epoch in range(count):
        name = f"distill/epoch_{epoch:04d}"
        checkpoints.save(_state(epoch), name=name, mark=("last", "distill/last"))
    return checkpoints


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def _delete(path: Path) -> None:
    path.unlink()


def _flip_manifest(path: Path) -> None:
    path.with_name("manifest.json").write_text('{"sha256": ')


def _temporaries(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.startswith(".")]


def test_saved_state_comes_back_bit_for_bit(tmp_path):
    state = {"a": torch.randn(3, 4), "n": 3, "lr": 0.1, "none": None, "list": [1, (2.5, "x")], 7: True}
    size = Checkpoints(tmp_path / "c").save(state, name="distill/epoch_0001")
    folder = tmp_path / "c/distill/epoch_0001"
    assert sorted(p.name for p in folder.iterdir()) == ["manifest.json", "state.pt"]
    assert size == (folder / "state.pt").stat().st_size
    loaded = Checkpoints(tmp_path / "c").load("last")
    assert torch.equal(loaded.pop("a"), state.pop("a"))
    assert loaded == state


@pytest.mark.parametrize("damage", [_truncate, _empty, _flip_a_bit, _delete, _flip_manifest])
def test_damaged_checkpoint_is_detected_and_the_previous_one_used(tmp_path, damage, caplog):
    checkpoints = _filled(tmp_path)
    damage(tmp_path / "distill/epoch_0001/state.pt")
    assert checkpoints.load("last")["epoch"] == 0
    assert re.search(r"epoch_0001.*using distill/epoch_0000 instead", caplog.text)


def test_error_when_no_checkpoint_is_valid(tmp_path):
    checkpoints = _filled(tmp_path)
    for file in tmp_path.rglob("state.pt"):
        _flip_a_bit(file)
    with pytest.raises(CheckpointError, match=r"no valid checkpoint.*epoch_0001.*sha256.*epoch_0000"):
        checkpoints.load("last")


def test_fallback_prefers_the_stage_that_was_asked_for(tmp_path, caplog):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(_state(1), name="hint/epoch_0001", mark=("hint/last",))
    checkpoints.save(_state(2), name="hint/epoch_0002", mark=("hint/best",))
    checkpoints.save(_state(3), name="distill/epoch_0001", mark=("last",))
    _flip_a_bit(tmp_path / "hint/epoch_0002/state.pt")
    assert checkpoints.load("hint/best")["epoch"] == 1
    assert "using hint/epoch_0001" in caplog.text


@pytest.mark.parametrize("content", ["", "../../elsewhere", "distill/epoch_9999"])
def test_damaged_mark_falls_back_to_the_newest(tmp_path, content, caplog):
    checkpoints = _filled(tmp_path)
    (tmp_path / "last.mark").write_text(content)
    assert checkpoints.load("last")["epoch"] == 1
    assert "using distill/epoch_0001" in caplog.text


def test_unknown_mark_is_an_error_that_lists_what_there_is(tmp_path):
    with pytest.raises(CheckpointError, match=r"no checkpoint 'best'.*there are: distill/last, last, distill/ep"):
        _filled(tmp_path).load("best")
    assert not Checkpoints(tmp_path / "nothing").has("last")


@pytest.mark.parametrize("name", ["../x", "/x", "", ".hidden", "a/../../b", "a\nb"])
def test_names_cannot_leave_the_folder(tmp_path, name):
    with pytest.raises(ValueError, match="no checkpoint name"):
        Checkpoints(tmp_path / "c").save(_state(0), name=name)


def _no_space(*_args, **_kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("where", ["torch.save", "os.fsync", "tempfile.mkdtemp", "os.rename", "os.replace"])
def test_full_disk_leaves_the_old_checkpoint_and_no_temporary(tmp_path, monkeypatch, where):
    checkpoints = _filled(tmp_path)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    with monkeypatch.context() as patch:
        patch.setattr(where, _no_space)
        with pytest.raises(CheckpointError, match=r"epoch_0001.*No space left.*MB free.*intact"):
            checkpoints.save(_state(5), name="distill/epoch_0001")
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before
    assert _temporaries(tmp_path) == []
    assert checkpoints.load("last")["epoch"] == 1


def test_write_that_fails_halfway_names_the_cause(tmp_path, monkeypatch):
    class _Full(statefile._HashingFile):
        def write(self, data):
            if self.file.tell() > 1000:
                self.error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                raise self.error
            return super().write(data)

    checkpoints = _filled(tmp_path)
    monkeypatch.setattr(statefile, "_HashingFile", _Full)
    with pytest.raises(CheckpointError, match="No space left"):
        checkpoints.save({"w": torch.zeros(100_000)}, name="distill/epoch_0002")
    assert _temporaries(tmp_path) == []
    assert checkpoints.load("last")["epoch"] == 1


class _Canary:
    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return (os.mkdir, (self.path,))


def test_pickle_with_code_is_refused_and_not_executed(tmp_path, caplog):
    checkpoints, canary = _filled(tmp_path / "c"), tmp_path / "executed"
    target = tmp_path / "c/distill/epoch_0001"
    with open(target / "state.pt", "wb") as file:
        torch.save({"model": _Canary(canary)}, file)
    content = (target / "state.pt").read_bytes()
    import hashlib
    import json

    record = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "counter": 9}
    (target / "manifest.json").write_text(json.dumps(record))
    assert checkpoints.load("last")["epoch"] == 0
    assert "not a readable file of tensors and plain types" in caplog.text
    assert "weights_only" not in caplog.text and "likely succeed" not in caplog.text, "as torch advises"
    plain_pickle = tmp_path / "student.pt"
    plain_pickle.write_bytes(pickle.dumps({"model": _Canary(canary)}))
    for file in (target / "state.pt", plain_pickle):
        with pytest.raises(CheckpointError, match="cannot load"):
            load_file(file)
    assert not canary.exists()


def test_pruning_keeps_marked_and_newest_per_stage(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.save(_state(0), name="hint/epoch_0000", mark=("hint/last", "last"))
    for epoch in range(6):
        mark = ("last", "distill/last", "distill/best") if epoch == 1 else ("last", "distill/last")
        checkpoints.save(_state(epoch), name=f"distill/epoch_{epoch:04d}", mark=mark)
    kept = ["hint/epoch_0000", *(f"distill/epoch_000{i}" for i in (1, 3, 4, 5))]
    assert checkpoints.names() == kept
    assert checkpoints.resolve("distill/best") == "distill/epoch_0001"
    assert checkpoints.load("distill/best")["epoch"] == 1


def test_saving_a_name_again_replaces_it(tmp_path, caplog):
    checkpoints = _filled(tmp_path)
    checkpoints.save(_state(7), name="distill/epoch_0001")
    assert checkpoints.load("last")["epoch"] == 7
    assert caplog.text == ""
    assert len(checkpoints.names()) == 2


def test_leftovers_of_a_killed_process_are_ignored_and_removed(tmp_path):
    checkpoints = _filled(tmp_path)
    leftover = tmp_path / ".tmp-killed"
    leftover.mkdir()
    (leftover / "manifest.json").write_text('{"counter": 99}')
    assert len(checkpoints.names()) == 2
    checkpoints.save(_state(3), name="distill/epoch_0003")
    assert not leftover.exists()


def test_plain_converts_what_training_code_carries_along():
    state = {
        "best": np.float64(0.5),
        "n": np.int64(3),
        "path": Path("a/b"),
        "cfg": OmegaConf.create({"a": [1, "${b}"], "b": 2}),
        "shape": torch.Size([1, 2]),
        "p": nn.Parameter(torch.ones(2)),
    }
    got = plain(state)
    assert got["best"] == 0.5 and type(got["best"]) is float
    assert type(got["n"]) is int and got["path"] == "a/b"
    assert got["cfg"] == {"a": [1, 2], "b": 2} and type(got["cfg"]) is dict
    assert type(got["shape"]) is tuple and not got["p"].requires_grad


@pytest.mark.parametrize("value", [np.zeros(2), {1, 2}, nn.ReLU(), print, np.datetime64("2020-01-01")])
def test_other_types_are_refused_with_their_path(tmp_path, value):
    with pytest.raises(TypeError, match=r"state\.stages\[1\]\.x is a "):
        Checkpoints(tmp_path).save({"stages": [1, {"x": value}]}, name="distill/epoch_0000")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_weights_are_clean_and_load_into_the_bare_architecture(tmp_path):
    def build() -> nn.Module:
        return nn.Sequential(OrderedDict(module=nn.Linear(3, 2), bn=nn.BatchNorm1d(2)))

    bare = build()
    path = tmp_path / "student.pt"
    for wrapped in (bare, nn.DataParallel(bare), torch.compile(bare), torch.compile(nn.DataParallel(bare))):
        save_weights(wrapped, path)
        state = load_file(path)
        assert list(state) == list(bare.state_dict())
        fresh = build()
        fresh.load_state_dict(state, strict=True)
        assert torch.equal(fresh.module.weight, bare.module.weight)
    assert state._metadata["bn"] == {"version": 2}
    partly = build()
    partly.bn = torch.compile(partly.bn)
    save_weights(partly, path)
    assert list(load_file(path)) == list(bare.state_dict())


def test_failed_weight_export_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "student.pt"
    save_weights(nn.Linear(2, 2), path)
    before = path.read_bytes()
    monkeypatch.setattr("torch.save", _no_space)
    with pytest.raises(CheckpointError, match="No space left"):
        save_weights(nn.Linear(2, 2), path)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["student.pt"]


def test_load_file_reports_missing_empty_and_wrong_content(tmp_path):
    (tmp_path / "empty.pt").touch()
    torch.save([1, 2], tmp_path / "list.pt")
    for name, message in (("no.pt", "No such file"), ("empty.pt", "is empty"), ("list.pt", "holds a list")):
        with pytest.raises(CheckpointError, match=message):
            load_file(tmp_path / name)


def test_a_mark_with_a_flipped_bit_names_no_other_checkpoint(tmp_path):
    checkpoints = Checkpoints(tmp_path / "c", keep=3)
    for epoch in range(3):
        checkpoints.save(_state(epoch), name=f"distill/epoch_{epoch:04d}", mark=("distill/best",))
    mark = tmp_path / "c" / "distill" / "best.mark"
    mark.write_text(mark.read_text().replace("0002", "0000"))
    assert checkpoints.resolve("distill/best") is None


def test_what_a_killed_process_leaves_of_weights_and_marks_is_removed(tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("distill_app.runs.statefile.os.replace", _interrupt)
        patch.setattr(Path, "unlink", lambda self, missing_ok=False: None)  # as where nothing comes after the kill
        save_weights(torch.nn.Linear(2, 2), tmp_path / "run" / "student.pt")
    assert len(_temporaries(tmp_path)) == 1
    remove_leftovers(tmp_path / "run")
    assert _temporaries(tmp_path) == []


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt

"""Files of a run that came from elsewhere: no fifo hangs, no link leads outside, no giant is read whole."""

import hashlib
import json
import os
import pickle
import zipfile
from io import BytesIO
from pathlib import Path

import pytest
import torch

from distill_app.config.schema import ModelConf
from distill_app.errors import CheckpointError, IrregularFile, OtherExperiment, UsageError, WeightsError
from distill_app.networks.weights import load_weights
from distill_app.runs import untrusted
from distill_app.runs.checkpoint import Checkpoints
from distill_app.runs.claim import refuse_other, stored_config
from distill_app.runs.collect import collect
from distill_app.runs.files import read_object, write_json
from distill_app.runs.journal import Journal
from distill_app.runs.lifecycle import run_folder
from distill_app.runs.statefile import load_file, save_weights
from distill_app.runs.untrusted import MOST_BYTES, NAMES, open_regular, read_text
from distill_app.verbs import call


def spoil(path: Path, kind: str) -> None:
    """Puts something else in the place of a file; the link leads to a file with what it had."""
    content = path.read_bytes() if path.is_file() else b"{}"
    path.unlink(missing_ok=True)
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        outside = path.parent.parent / "outside"
        outside.write_bytes(content)
        path.symlink_to(outside)


KINDS = ("fifo", "link", "device", "folder")


@pytest.mark.parametrize(("kind", "says"), [("fifo", "a fifo"), ("link", "a symbolic link"), ("folder", "a folder")])
def test_what_is_no_regular_file_is_refused_by_name(tmp_path, kind, says):
    path = tmp_path / "in" / "summary.json"
    path.parent.mkdir()
    spoil(path, kind)
    with pytest.raises(IrregularFile, match=rf"summary\.json is {says}"):
        open_regular(path)


def test_a_link_is_followed_where_the_user_named_it_and_a_device_never(tmp_path):
    (tmp_path / "file").write_text("content")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "zero").symlink_to("/dev/zero")
    with open_regular(tmp_path / "link", links=True) as file:
        assert file.read() == b"content"
    with pytest.raises(IrregularFile, match="is a device"):
        open_regular(tmp_path / "zero", links=True)


def test_a_giant_of_holes_is_not_read(tmp_path):
    for name in ("summary.json", "config_resolved.yaml", "metrics.jsonl"):
        (tmp_path / name).touch()
        os.truncate(tmp_path / name, 50 * 10**9)
    with pytest.raises(IrregularFile, match=r"50\.0 GB; at most 16\.8 MB"):
        read_text(tmp_path / "summary.json")
    assert read_object(tmp_path / "summary.json") is None and stored_config(tmp_path) is None
    with pytest.raises(IrregularFile, match="GB"):
        Journal.read(tmp_path / "metrics.jsonl")
    (tmp_path / "summary.json").write_text(json.dumps({"a": "x" * (MOST_BYTES - 20)}))
    assert read_object(tmp_path / "summary.json") is not None, "what is not too large is read"


@pytest.mark.parametrize("kind", KINDS)
def test_reports_pass_over_what_stands_in_the_place_of_files(tmp_path, kind, capsys):
    for name in ("summary.json", "config_resolved.yaml", ".hydra/overrides.yaml", "metrics.jsonl"):
        folder = tmp_path / name.replace("/", "-") / "run"
        (folder / ".hydra").mkdir(parents=True)
        write_json(folder / "status.json", {"state": "done"})
        write_json(folder / "summary.json", {"seed": 7, "rows": [{"name": "secret", "accuracy": 0.5}]})
        spoil(folder / name, kind)
    assert len(collect(tmp_path)) == 4
    assert [run["seed"] for run in collect(tmp_path / "summary.json")] == [None], "nothing is read from outside"
    assert call("report", [str(tmp_path)]) == 0
    assert call("report", [str(tmp_path / "metrics.jsonl" / "run")]) in (0, 1)


@pytest.mark.parametrize("name", [*NAMES, ".hydra/overrides.yaml", "checkpoints/last.mark"])
def test_a_run_is_not_gone_on_with_where_a_link_would_be_written_to(tmp_path, name):
    run = tmp_path / "run"
    (run / name).parent.mkdir(parents=True)
    outside = tmp_path / "outside"
    outside.write_text("precious")
    (run / name).symlink_to(outside)
    with pytest.raises(IrregularFile, match="is a symbolic link"), run_folder(run, {"seed": 0}):
        pass
    assert outside.read_text() == "precious"


def test_a_run_on_another_disk_is_gone_on_with(tmp_path):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "run")
    with pytest.raises(OtherExperiment, match="is missing or cannot be read"):
        refuse_other(tmp_path / "link", {"seed": 0})
    (tmp_path / "run" / "checkpoints").rmdir()
    refuse_other(tmp_path / "link", {"seed": 0})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["distill/b/state.pt", "distill/b/manifest.json", "last.mark"])
def test_a_checkpoint_that_is_no_file_is_passed_over(tmp_path, name, kind, caplog):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    for number, each in enumerate(("distill/a", "distill/b")):
        checkpoints.save({"epoch": number}, name=each)
    spoil(tmp_path / "checkpoints" / name, kind)
    if kind == "link" or name != "last.mark":
        assert checkpoints.load("distill/b" if name == "last.mark" else "last")["epoch"] == int(name == "last.mark")
    assert checkpoints.resolve("last") == ("distill/b" if name != "last.mark" else None)
    checkpoints.save({"epoch": 2}, name="distill/c", mark=())
    if name.endswith("state.pt"):
        with pytest.raises(CheckpointError, match="cannot load"):
            load_file(tmp_path / "checkpoints" / name)


@pytest.mark.parametrize("name", ["../../secret", "/etc/passwd", "distill/../../../secret", "..", "a\\b", "a\0b"])
def test_a_mark_leads_nowhere_outside(tmp_path, name):
    folder = tmp_path / "run" / "checkpoints"
    checkpoints = Checkpoints(folder)
    checkpoints.save({"epoch": 0}, name="distill/a")
    Checkpoints(tmp_path / "secret").save({"epoch": 9}, name="x", mark=())
    (folder / "last.mark").write_text(name)
    assert checkpoints.resolve("last") is None
    assert checkpoints.load("last")["epoch"] == 0
    with pytest.raises(ValueError, match="is no checkpoint name"):
        checkpoints.load(name)


class Canary:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("name", ["last.mark", "distill/a/manifest.json", "distill/a/state.pt"])
def test_a_pickle_in_the_place_of_a_file_of_a_checkpoint_is_not_run(tmp_path, name, caplog):
    checkpoints, canary = Checkpoints(tmp_path / "checkpoints"), tmp_path / "executed"
    checkpoints.save({"epoch": 0}, name="distill/a")
    (tmp_path / "checkpoints" / name).write_bytes(pickle.dumps(Canary(canary)))
    if name == "last.mark":
        assert checkpoints.load("last")["epoch"] == 0 and "the mark last is unreadable" in caplog.text
    else:
        with pytest.raises(CheckpointError, match="no valid checkpoint"):
            checkpoints.load("last")
    assert not canary.exists()
    pickle.loads(pickle.dumps(Canary(canary)))
    assert canary.exists(), "which it would have made"


def test_a_folder_of_torchs_distributed_checkpoints_is_not_opened(tmp_path):
    canary, folder = tmp_path / "executed", tmp_path / "dcp"
    folder.mkdir()
    (folder / ".metadata").write_bytes(pickle.dumps(Canary(canary)))
    with pytest.raises(CheckpointError, match=r"cannot load .*dcp is a folder"):
        load_file(folder)
    with pytest.raises(WeightsError, match="is a folder; name the file of weights in it"):
        load_weights(torch.nn.Linear(1, 1), ModelConf(checkpoint=str(folder)), key="student")
    assert not canary.exists()


def test_a_checkpoint_whose_folder_is_a_link_is_passed_over(tmp_path, caplog):
    checkpoints = Checkpoints(tmp_path / "run" / "checkpoints")
    checkpoints.save({"epoch": 0}, name="distill/a")
    Checkpoints(tmp_path / "secret").save({"epoch": 9}, name="x", mark=())
    (tmp_path / "run" / "checkpoints" / "distill" / "b").symlink_to(tmp_path / "secret" / "x")
    (tmp_path / "run" / "checkpoints" / "last.mark").write_text("distill/b")
    assert checkpoints.load("last")["epoch"] == 0 and "is a symbolic link" in caplog.text


def test_what_a_manifest_names_is_not_opened(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    for number, name in enumerate(("a", "b")):
        checkpoints.save({"epoch": number}, name=f"distill/{name}")
    manifest = tmp_path / "checkpoints" / "distill" / "b" / "manifest.json"
    write_json(manifest, {**json.loads(manifest.read_text()), "name": "/etc/passwd", "path": "../a/state.pt"})
    assert checkpoints.load("last")["epoch"] == 1


@pytest.mark.parametrize("manifest", ['{"size": 1e999}', "[1]", "[" * 100_000, '{"counter": 1e999}', "\xff"])
def test_a_manifest_that_says_nonsense_makes_its_checkpoint_unusable(tmp_path, manifest, caplog):
    checkpoints = Checkpoints(tmp_path)
    for number, name in enumerate(("a", "b")):
        checkpoints.save({"epoch": number}, name=f"distill/{name}")
    (tmp_path / "distill" / "b" / "manifest.json").write_bytes(manifest.encode("latin-1"))
    assert checkpoints.load("last")["epoch"] == 0
    assert "no readable manifest" in caplog.text


def deflated(state: dict) -> bytes:
    """A file of torch.save whose archive is compressed afterwards, as torch reads it and never writes it."""
    plain, packed = BytesIO(), BytesIO()
    torch.save(state, plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for member in source.infolist():
            target.writestr(member.filename, source.read(member))
    return packed.getvalue()


def test_a_small_checkpoint_of_many_bytes_is_not_unpacked(tmp_path, monkeypatch):
    content = deflated({"weight": torch.zeros(2**18)})
    assert len(content) < 10_000
    assert torch.load(BytesIO(content), weights_only=True)["weight"].numel() == 2**18, "torch would unpack it"
    monkeypatch.setattr(untrusted, "_COMPRESSED", 2**19)
    (tmp_path / "state.pt").write_bytes(content)
    record = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest(), "counter": 0}
    write_json(tmp_path / "manifest.json", record)
    with pytest.raises(CheckpointError, match="is a compressed archive"):
        load_file(tmp_path / "state.pt")


def test_exported_weights_with_a_flipped_bit_are_refused_though_torch_loads_them(tmp_path):
    path, net = tmp_path / "student.pt", torch.nn.Linear(64, 64)
    save_weights(net, path)
    content = bytearray(path.read_bytes())
    content[content.index(net.weight.detach().numpy().tobytes()) + 100] ^= 64
    path.write_bytes(content)
    assert not torch.load(path, weights_only=True)["weight"].equal(net.weight)
    with pytest.raises(CheckpointError, match=r"is damaged: archive/data/\d+ does not match its checksum"):
        load_file(path)


@pytest.mark.parametrize("verb", ["resume", "evaluate", "rerun"])
@pytest.mark.parametrize("kind", KINDS)
def test_verbs_refuse_a_config_that_is_no_file(verb, kind, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    spoil(run / "config_resolved.yaml", kind)
    with pytest.raises(UsageError, match=r"is a symbolic link|is not a run nor in one"):
        call(verb, [str(run)])


@pytest.mark.parametrize("verb", ["resume", "evaluate", "rerun"])
def test_a_config_of_aliases_is_refused_before_it_swells(verb, tmp_path):
    lines = ["a0: &a0 [x, x]", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 60))]
    (tmp_path / "config_resolved.yaml").write_text("\n".join(lines))
    with pytest.raises(UsageError, match="has YAML aliases"):
        call(verb, [str(tmp_path)])


def test_a_run_whose_checkpoints_lie_behind_a_link_is_refused_and_nothing_there_is_touched(tmp_path):
    theirs = tmp_path / "theirs" / "a"
    theirs.mkdir(parents=True)
    (theirs / "manifest.json").write_text("{}")
    (tmp_path / "run").mkdir()
    for name in ("checkpoints", "tensorboard"):
        (tmp_path / "run" / name).symlink_to(tmp_path / "theirs")
        with pytest.raises(IrregularFile, match="symbolic link"):
            untrusted.refuse_irregular(tmp_path / "run")
        (tmp_path / "run" / name).unlink()
    assert (theirs / "manifest.json").is_file()

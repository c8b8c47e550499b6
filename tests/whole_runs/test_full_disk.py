"""A full disk, by the run or by somebody else: earlier checkpoints stay, status is true, the run goes on."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_fixtures import run

from distill_app.errors import CheckpointError
from distill_app.runs.checkpoint import Checkpoints
from distill_app.runs.status import Status
from scripts.stress.outcome import differences

pytestmark = pytest.mark.slow
# Its state is 1 MB: the disk below takes one of them and not two.
LARGE = ("model@student=plain_32_64_128", "method=kd", "tracker=tensorboard", "stage.epochs=4")


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1800k", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("no file system may be mounted here")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_a_disk_that_is_full_in_the_midst_of_saving_leaves_the_earlier_checkpoint(small_disk, tmp_path):
    folder = small_disk / "run"
    with pytest.raises(CheckpointError) as caught:
        run(folder, *LARGE)
    told = str(caught.value)
    assert "cannot save checkpoint distill/epoch_0002" in told and "o space left on device" in told
    assert "earlier checkpoints are intact" in told
    status = Status(folder).read()
    assert status["state"] == "failed" and "cannot save checkpoint" in status["reason"]
    checkpoints = Checkpoints(folder / "checkpoints")
    assert checkpoints.names()[-1] == "distill/epoch_0001" and checkpoints.load("last")["progress"]["epoch"] == 2
    assert not [file for file in folder.rglob(".*") if file.name != ".lock"]
    subprocess.run(["mount", "-o", "remount,size=20m", small_disk], check=True)
    run(folder, *LARGE)
    run(tmp_path / "reference", *LARGE)
    assert differences(folder, tmp_path / "reference") == []


def test_a_disk_that_somebody_else_fills_ends_in_words_and_a_true_status(small_disk, tmp_path, monkeypatch):
    from distill_app.training.runner import StageRunner

    subprocess.run(["mount", "-o", "remount,size=8m", small_disk], check=True)
    folder, take_steps = small_disk / "run", StageRunner.take_steps

    def filling(self, stage, training):
        if self.progress.epoch == 2:
            self.saver.finish()
            with pytest.raises(OSError, match="No space"), open(small_disk / "theirs", "wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
        return take_steps(self, stage, training)

    with monkeypatch.context() as patch, pytest.raises((OSError, CheckpointError)) as caught:
        patch.setattr(StageRunner, "take_steps", filling)
        run(folder, *LARGE)
    assert "no space left on device" in str(caught.value).lower()
    (small_disk / "theirs").unlink()
    run(folder, *LARGE)
    run(tmp_path / "reference", *LARGE)
    assert differences(folder, tmp_path / "reference") == []
    assert Status(folder).read()["state"] == "done"

"""Saving beside the training: what is saved is the state of that moment, and an error reaches the training."""

from collections import OrderedDict
from contextlib import closing

import pytest
import torch

from distill_app.errors import CheckpointError
from distill_app.runs.checkpoint import Checkpoints
from distill_app.runs.saver import Saver, copied


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def saver(tmp_path, notes):
    made = Saver(Checkpoints(tmp_path / "checkpoints"), note=notes.append)
    yield made
    made.close()


def test_steps_taken_meanwhile_are_not_in_the_checkpoint(saver, notes):
    weights = torch.zeros(100_000)
    saver.save({"weights": weights, "shared": [weights]}, name="s/epoch_0000", mark=("last",))
    weights += 1
    saver.finish()
    state = saver.checkpoints.load("last")
    assert not state["weights"].any() and not state["shared"][0].any()
    (note,) = notes
    assert note.startswith("saved s/epoch_0000: 0.8 MB") and "written in" in note


def test_one_that_cannot_be_written_is_an_error_of_the_next_one(saver, notes, tmp_path):
    (tmp_path / "checkpoints").touch()  # a file where the folder goes
    saver.save({"a": 1}, name="s/epoch_0000", mark=("last",))
    with pytest.raises(CheckpointError, match="cannot save checkpoint s/epoch_0000"):
        saver.save({"a": 2}, name="s/epoch_0001", mark=("last",))
    assert notes == []


def test_waiting_for_it_raises_at_once(saver, tmp_path):
    (tmp_path / "checkpoints").touch()
    with pytest.raises(CheckpointError):
        saver.save({"a": 1}, name="s/epoch_0000", mark=("last",), wait=True)


def test_closing_waits_and_hides_no_other_error(tmp_path, notes, caplog):
    saver = Saver(Checkpoints(tmp_path / "checkpoints"), note=notes.append)
    saver.save({"a": torch.zeros(1000)}, name="s/epoch_0000", mark=("last",))
    saver.close()
    assert saver.checkpoints.load("last")["a"].shape == (1000,) and len(notes) == 1
    (tmp_path / "file").touch()
    failing = Saver(Checkpoints(tmp_path / "file"), note=notes.append)
    with pytest.raises(ZeroDivisionError), closing(failing):
        failing.save({"a": 1}, name="s/epoch_0000", mark=("last",))
        raise ZeroDivisionError
    assert "cannot save checkpoint" in caplog.text


def test_a_copy_keeps_layouts_types_and_what_a_state_dict_carries_along():
    inner = OrderedDict(weight=torch.zeros(2, 3, 4, 4).to(memory_format=torch.channels_last))
    inner._metadata = {"": {"version": 2}}
    state = {"module": inner, "pair": (torch.ones(2, dtype=torch.int8), None), "n": 3}
    found = copied(state)
    assert found["module"]._metadata == inner._metadata and type(found["module"]) is OrderedDict
    assert found["module"]["weight"].is_contiguous(memory_format=torch.channels_last)
    assert found["pair"][0].dtype == torch.int8 and found["pair"][0] is not state["pair"][0]
    assert found["pair"][1] is None and found["n"] == 3

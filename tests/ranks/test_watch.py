"""When ranks are compared, who watches whom, and whose fault an error is: without other processes."""

import time
from datetime import timedelta
from types import SimpleNamespace

import pytest
import torch.distributed as dist
from engine_fixtures import runner

from distill_app.errors import CheckpointError, RankFailed
from distill_app.machine import lookout as watching
from distill_app.machine.lookout import ELSEWHERE, STEPPING, Lookout
from distill_app.training import loop
from distill_app.training import runner as running
from distill_app.training.stage import Stage
from distill_app.world import World


@pytest.fixture
def rank():
    """Makes lookouts of two ranks at one store."""
    store = dist.TCPStore("127.0.0.1", 0, None, True, timedelta(seconds=30), wait_for_workers=False)
    return lambda number, **more: Lookout(World(number, 2, number, 2), "127.0.0.1", store.port, **more)


def test_a_first_rank_that_stands_still_as_a_whole_is_noticed_by_the_second(rank, monkeypatch):
    monkeypatch.setattr(watching, "SILENT", 0.5)
    monkeypatch.setattr(watching, "BEAT", 0.1)
    first, second = rank(0), rank(1)
    first._store.set("beat/0", "7 5 takes a step")  # its last one
    second.start()
    assert "rank 0 (process" in (cause := second._told(patience=10)) and "does not answer" in cause
    second.close()


def test_a_first_rank_that_has_left_is_not_missed(rank, monkeypatch):
    monkeypatch.setattr(watching, "SILENT", 0.3)
    monkeypatch.setattr(watching, "BEAT", 0.1)
    first, second = rank(0), rank(1)
    first._store.set("beat/0", "7 5 takes a step")
    first._store.set("left/0", "1")
    second.start()
    time.sleep(1)
    assert second._told() is None
    second.close()


def test_processes_that_are_started_again_do_not_end_of_what_ended_them_before(rank):
    rank(0)._tell("rank 0: ValueError: a")
    assert rank(1)._told() == "rank 0: ValueError: a"
    again = rank(1, attempt="attempt_1")
    assert again._told() is None
    again._tell("another")
    assert rank(0, attempt="attempt_1")._told() == "another" and rank(0)._told() == "rank 0: ValueError: a"


def test_nobody_takes_a_rank_for_hanging_that_saves_within_an_epoch(tmp_path, monkeypatch):
    now: list[str] = []
    recorder = SimpleNamespace(at=now.append)
    monkeypatch.setattr(loop, "lookout", lambda: recorder)
    monkeypatch.setattr(running, "lookout", lambda: recorder)
    saved: list[str] = []
    steps = (
        "checkpoint.every_steps=1",
        "stage.batch_size=16",
        "runtime.max_steps_per_epoch=4",
        "runtime.max_epochs=1",
        "prelude=none",
    )
    with runner(tmp_path, *steps, "teacher.allow_random=true") as made:
        save = made.saver.save
        monkeypatch.setattr(made.saver, "save", lambda *args, **more: (saved.append(now[-1]), save(*args, **more)))
        made.run_plans(made.plans, None)
    assert len(saved) == 4 and set(saved) == {ELSEWHERE} and STEPPING in now


def test_ranks_are_compared_every_so_many_batches_however_short_epochs_are():
    seen: list[str] = []
    parallel = SimpleNamespace(refuse_divergence=lambda where: seen.append(where))
    stage = SimpleNamespace(
        _compare_every=3, _compared=0, steps_taken=0, plan=SimpleNamespace(name="a"), parallel=parallel
    )
    for taken in (2, 4, 6, 7, 8, 12):  # boundaries of optimiser steps
        stage.steps_taken = taken
        Stage.compare_ranks(stage)
    assert seen == [f"by batch {number} of stage 'a'" for number in (4, 7, 12)]
    stage._compare_every = None
    stage.steps_taken = 100
    Stage.compare_ranks(stage)
    assert len(seen) == 3


@pytest.mark.parametrize(
    ("error", "own"),
    [
        (CheckpointError("cannot save /gloo/store: restore it, peer"), True),
        (RankFailed("the ranks do not have the same weights any more, first store.bias"), True),
        (ValueError("connection reset by peer"), True),
        (RuntimeError("no such socket in the feature store"), True),
        (RuntimeError("[.../third_party/gloo/gloo/transport/tcp/pair.cc:545] Read error: Connection reset"), False),
        (RuntimeError("Connection closed by peer [127.0.0.1]:35753"), False),
    ],
)
def test_an_error_of_ones_own_is_not_put_down_to_the_others(error, own):
    told: list[str] = []
    watch = SimpleNamespace(
        world=SimpleNamespace(rank=1), _tell=told.append, _told=lambda patience: "rank 0: its fault"
    )
    found = Lookout.cause_of(watch, error)
    assert (found is None) == own
    assert told == ([f"rank 1: {type(error).__name__}: {error}"] if own else [])

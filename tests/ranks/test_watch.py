"""When ranks are compared, and whose fault an error is: without other processes."""

from types import SimpleNamespace

import pytest

from distill_app.errors import CheckpointError, RankFailed
from distill_app.machine.lookout import Lookout
from distill_app.training.stage import Stage


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

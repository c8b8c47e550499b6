"""The order of samples is a function of (seed, stage, epoch), and ranks share it out."""

import subprocess
import sys

import numpy as np
import pytest

from distill_app.data import EpochOrder
from distill_app.errors import DataError
from distill_app.seeds import permutation, stable_hash
from distill_app.world import World, share_sizes

# Old runs resume only as long as these stay.
HASH = 15328909306374931213
PERMUTATION = [0, 5, 2, 3, 6, 1, 4, 7]


def make_order(num_samples=103, **changes):
    arguments = {"batch_size": 8, "seed": 0, "stage": "distill", "shuffle": True}
    return EpochOrder(num_samples, **(arguments | changes))


def positions(order):
    return [position for batch in order for position, _ in batch]


@pytest.mark.slow
def test_hash_is_the_same_in_another_process():
    code = "from distill_app.seeds import stable_hash; print(stable_hash('distill', 3, -1))"
    there = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "7"}
    )
    assert int(there.stdout) == HASH


def test_hash_is_pinned():
    assert stable_hash("distill", 3, -1) == HASH
    assert stable_hash(np.int64(3)) == stable_hash(3) != stable_hash("3")
    assert stable_hash("a", "b") != stable_hash("ab") != stable_hash("a\nb")
    with pytest.raises(TypeError):
        stable_hash(0.5)


def test_permutation_is_pinned():
    assert permutation(8, "a", 1).tolist() == PERMUTATION


def test_order_depends_on_seed_stage_and_epoch_only():
    first, same = make_order(), make_order(batch_size=5)
    assert positions(first) == positions(same) == positions(first)
    assert sorted(positions(first)) == list(range(103))
    others = [make_order(seed=1), make_order(stage="hint"), make_order()]
    others[2].set_epoch(1)
    assert len({tuple(positions(order)) for order in [first, *others]}) == 4


def test_views_follow_the_epoch_and_repeat_when_limited():
    order = make_order(views=3)
    fresh = make_order()
    for epoch in range(7):
        order.set_epoch(epoch)
        fresh.set_epoch(epoch)
        assert {view for batch in order for _, view in batch} == {epoch % 3}
        assert {view for batch in fresh for _, view in batch} == {epoch}


def test_starting_in_the_middle_gives_the_rest_and_the_next_epoch_is_whole():
    order = make_order()
    batches = list(order)
    order.set_position(5)
    assert list(order) == batches[5:]
    assert len(order) == len(batches) == 13
    order.set_epoch(1)
    assert len(list(order)) == 13
    with pytest.raises(ValueError, match="batch 14"):
        order.set_position(14)


def test_last_batch_is_short_or_dropped():
    assert [len(batch) for batch in make_order()][-1] == 7
    dropped = make_order(drop_last=True)
    assert [len(batch) for batch in dropped] == [8] * len(dropped) == [8] * 12


@pytest.mark.parametrize("num_samples", [15, 16, 17 + 2, 103])
@pytest.mark.parametrize("world_size", [2, 3])
def test_training_ranks_share_every_batch_of_one_rank(num_samples, world_size):
    ranks = [make_order(num_samples, batch_size=8, world=World(rank, world_size)) for rank in range(world_size)]
    one = make_order(num_samples, batch_size=8)
    shares = [list(order) for order in ranks]
    for number, whole in enumerate(one):
        pieces = [share[number] for share in shares]
        assert [key for piece in pieces for key in piece] == whole
        assert [len(piece) for piece in pieces] == share_sizes(len(whole), world_size)
        assert max(map(len, pieces)) - min(map(len, pieces)) <= 1
    assert all(order.sizes == one.sizes and len(order) == len(one) for order in ranks)


def test_a_batch_with_fewer_samples_than_ranks_is_refused_and_what_helps_is_said():
    with pytest.raises(DataError, match=r"a batch has 1 samples, too few for 2 processes; set stage.drop_last=true"):
        make_order(17, world=World(0, 2))
    assert make_order(17, world=World(0, 2), drop_last=True).sizes == [8, 8]


@pytest.mark.parametrize("num_samples", [1, 10, 64, 103])
@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_evaluation_ranks_cover_every_sample_exactly_once(num_samples, world_size):
    ranks = [make_order(num_samples, shuffle=False, world=World(rank, world_size)) for rank in range(world_size)]
    assert sorted(p for order in ranks for p in positions(order)) == list(range(num_samples))
    assert all(len(list(order)) == len(order) for order in ranks)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_samples": 0}, "no samples"),
        ({"batch_size": 0}, "stage.batch_size"),
        ({"views": 0}, "views"),
        ({"drop_last": True, "num_samples": 7}, "stage.drop_last: 7 samples"),
        ({"drop_last": True, "shuffle": False}, "every sample"),
    ],
)
def test_impossible_orders_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        make_order(**changes)


def test_batches_are_of_one_group_as_far_as_groups_fill_them():
    groups = np.arange(50) % 3
    made = [EpochOrder(50, batch_size=8, seed=0, stage="x", shuffle=True, groups=groups) for _ in range(2)]
    epochs = []
    for epoch in range(2):
        for order in made:
            order.set_epoch(epoch)
        batches = [[position for position, _ in keys] for keys in made[0]]
        assert batches == [[position for position, _ in keys] for keys in made[1]], "a function of seed and epoch"
        assert sorted(position for batch in batches for position in batch) == list(range(50))
        assert [len(batch) for batch in batches] == made[0].sizes
        # 17, 17 and 16 positions: six full batches of one group, and what is left of two.
        assert sum(len({int(groups[position]) for position in batch}) == 1 for batch in batches) >= 6
        epochs.append(batches)
    assert epochs[0] != epochs[1]
    begun_with = [int(groups[batch[0]]) for batch in epochs[0]]
    assert begun_with != sorted(begun_with), "groups do not come one after the other"


def test_ranks_share_batches_of_groups_and_evaluations_are_not_grouped():
    groups = np.arange(32) % 2
    whole = EpochOrder(32, batch_size=8, seed=0, stage="x", shuffle=True, groups=groups)
    parts = [
        EpochOrder(32, batch_size=8, seed=0, stage="x", shuffle=True, groups=groups, world=World(rank=rank, size=2))
        for rank in range(2)
    ]
    for together, *shares in zip(whole, *parts, strict=True):
        assert together == [key for share in shares for key in share]
        assert len({int(groups[position]) for position, _ in together}) == 1
    judged = EpochOrder(5, batch_size=2, seed=0, stage="x", shuffle=False, groups=np.arange(5) % 2)
    assert [position for keys in judged for position, _ in keys] == list(range(5))

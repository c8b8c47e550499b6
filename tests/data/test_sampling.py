"""Samplers, batch samplers and collate functions of the config: what an epoch and a batch consist of."""

import random

import numpy as np
import pytest
import torch
from engine_fixtures import metrics, refusal, run, stage, train
from sampling_fixtures import Drawn, halved

from distill_app.data.loading import Collate, make_loader
from distill_app.data.order import EpochOrder
from distill_app.data.sampling import BatchOrder
from distill_app.errors import DataError
from distill_app.world import World

HERE = "runtime.allow=[sampling_fixtures]"
SMALL = ("stage.batch_size=16", "dataset.student_labels_per_class=4")


def epochs(order, count: int) -> list[list[list[int]]]:
    found = []
    for epoch in range(count):
        order.set_epoch(epoch)
        found.append([[position for position, _ in keys] for keys in order])
    return found


@pytest.mark.slow
def test_weighted_sampling_of_torch_shows_what_has_weight(tmp_path):
    weights = ",".join("1" if i in (3, 8) else "0" for i in range(40))
    sampler = "dataset.sampler={_target_: torch.utils.data.WeightedRandomSampler, weights: [" + weights + "]}"
    with stage(tmp_path, sampler, *SMALL) as built:
        first, second = epochs(built.data.order, 2)
        assert {position for batch in first for position in batch} == {3, 8}
        assert [len(batch) for batch in first] == [16, 16, 8] == built.batch_sizes and first != second
        shown = set(torch.cat([batch["index"] for batch in built.data.train]).tolist())
        assert shown == set(built.data.indices[[3, 8]].tolist())
        assert train(built)["total"] > 0
    with stage(tmp_path, sampler, *SMALL) as again:
        assert epochs(again.data.order, 2) == [first, second]


def test_a_sampler_of_one_s_own_gets_what_it_has_parameters_for_and_a_seed_per_epoch(tmp_path):
    with stage(tmp_path, HERE, "dataset.sampler={_target_: sampling_fixtures.Drawn}", *SMALL) as built:
        first, second, third = epochs(built.data.order, 3)
        torch.manual_seed(5), np.random.seed(5), random.seed(5)
        before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
        assert epochs(built.data.order, 3) == [first, second, third] and first != second != third
        after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
        assert before[:2] == after[:2] and before[2].equal(after[2])
        assert [len(batch) for batch in first] == [16, 8]
        last = [entry for entry in Drawn.built if entry["epoch"] == 2][-1]
        assert last["num_samples"] == 40 and last["labels"].tolist() == built.data.labels.tolist()
        assert len({entry["seed"] for entry in Drawn.built}) == 3


@pytest.mark.slow
def test_another_seed_is_another_order(tmp_path):
    orders = []
    for seed in (0, 1):
        with stage(
            tmp_path, HERE, "dataset.sampler={_target_: sampling_fixtures.Drawn}", f"seed={seed}", *SMALL
        ) as built:
            orders.append(epochs(built.data.order, 1))
    assert orders[0] != orders[1]


def test_batches_of_several_sizes_are_trained_as_they_come(tmp_path):
    sampler = "dataset.batch_sampler={_target_: sampling_fixtures.ByLength}"
    overrides = (HERE, sampler, "dataset.student_labels_per_class=10", "stage.accumulation_steps=2")
    with stage(tmp_path, *overrides, "method.stages.distill.freeze=['student:torch.nn.BatchNorm2d']") as built:
        first, second = epochs(built.data.order, 2)
        assert [len(batch) for batch in first] == list(range(1, 13)) == built.batch_sizes
        assert first != second and len({position for batch in first for position in batch}) == 78
        assert train(built)["total"] > 0


def test_torchs_batch_sampler_gets_the_sampler_of_the_config(tmp_path):
    overrides = (
        "dataset.sampler={_target_: torch.utils.data.SequentialSampler}",
        "dataset.batch_sampler={_target_: torch.utils.data.BatchSampler, batch_size: 9, drop_last: true}",
    )
    with stage(tmp_path, *overrides, *SMALL) as built:
        assert epochs(built.data.order, 1) == [[list(range(start, start + 9)) for start in range(0, 36, 9)]]
        assert built.data.order.num_samples == 36


@pytest.mark.slow
def test_images_on_the_device_are_those_of_the_sampler(tmp_path):
    sampler = "dataset.sampler={_target_: sampling_fixtures.Drawn}"
    batches = []
    for resident in ("true", "false"):
        with stage(tmp_path, HERE, sampler, f"dataset.resident={resident}", *SMALL) as built:
            built.data.order.set_epoch(1)
            batches.append(list(built.data.train))
    for a, b in zip(*batches, strict=True):
        assert a["input"].equal(b["input"]) and a["index"].equal(b["index"])


@pytest.mark.slow
def test_a_cache_is_filled_and_read_in_the_order_of_the_sampler(tmp_path):
    own = (HERE, "dataset.sampler={_target_: sampling_fixtures.Drawn}", "dataset.train_transform=[]", *SMALL)
    run(tmp_path / "a", *own)
    for name in ("b", "c"):  # b fills the cache, c reads it
        run(tmp_path / name, *own, "cache.enabled=true", f"cache.folder={tmp_path}/cache")
    assert metrics(tmp_path / "b") == metrics(tmp_path / "c")
    for one, other in zip(metrics(tmp_path / "a"), metrics(tmp_path / "b"), strict=True):
        assert one.get("losses", {}) == pytest.approx(other.get("losses", {}), rel=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("value", "told"),
    [("40", "from 0 to 39"), ("-1", "from 0 to 39"), ("0.5", "whole numbers"), ("cat", "whole numbers"), ("[1]", "0")],
)
def test_what_is_no_position_is_refused(tmp_path, value, told):
    text = refusal(
        tmp_path, HERE, "dataset.sampler={_target_: sampling_fixtures.Strange, value: " + value + "}", *SMALL
    )
    assert text.startswith("dataset.sampler: ") and told in text and "40 training samples" in text


def test_epochs_of_several_lengths_are_refused(tmp_path):
    with stage(tmp_path, HERE, "dataset.sampler={_target_: sampling_fixtures.Shrinking}", *SMALL) as built:
        built.data.order.set_epoch(1)
        with pytest.raises(DataError, match=r"dataset\.sampler: gives 20 in epoch 0 and 19 in epoch 1"):
            list(built.data.order)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("dataset.sampler={_target_: torch.utils.data.WeightedRandomSampler}", "dataset.sampler.weights"),
        ("dataset.sampler={_target_: torch.utils.data.WeightedRandomSampler, weight: [1]}", "did you mean 'weights'"),
        ("dataset.sampler={_target_: torch.utils.data.DistributedSampler}", "the program does that by itself"),
        ("dataset.batch_sampler={_target_: torch.utils.data.BatchSampler, size: 3}", "dataset.batch_sampler.size"),
        ("dataset.sampler={weights: [1]}", "dataset.sampler: needs a _target_"),
        ("dataset.collate={_target_: sampling_fixtures.halved, divider: 3}", "did you mean 'divisor'"),
        ("dataset.collate={_target_: sampling_fixtures.Shift}", "dataset.collate.by"),
        ("dataset.collate={_target_: sampling_fixtures.Strange, value: 1}", "cannot be called with a list of samples"),
        ("dataset.eval_batch_size=0", "dataset.eval_batch_size: must be at least 1, got 0"),
    ],
)
def test_the_check_binds_them(errors_of, tiny, override, told):
    errors = errors_of(*tiny, HERE, override)
    assert any(told in error for error in errors), errors


@pytest.mark.slow
@pytest.mark.parametrize("target", ["halved, divisor: 2", "Shift, by: 3"])
def test_a_collate_function_makes_batches_of_training_and_evaluation(tmp_path, target):
    with stage(tmp_path, HERE, "dataset.collate={_target_: sampling_fixtures." + target + "}", *SMALL) as built:
        assert "a collate function of its own" in built.data.train.how
        for loader in (built.data.train, built.data.judge):
            raw = next(iter(loader))
            assert raw["input"].max() <= (127 if "halved" in target else 255) and "index" in raw
            assert ("shift" in raw) == ("Shift" in target)
        assert train(built)["total"] > 0 and "validation_accuracy" in built.judge()


def test_images_on_the_device_and_a_collate_function_exclude_each_other(tmp_path):
    text = refusal(tmp_path, HERE, "dataset.collate={_target_: sampling_fixtures.halved}", "dataset.resident=true")
    assert "dataset.resident: true was given, but a collate function of its own" in text


def test_a_batch_that_is_no_dict_is_refused():
    collate = Collate(lambda samples: ([], []), key="dataset.collate")
    with pytest.raises(DataError, match=r"dataset\.collate: a batch is a dict .* it returned tuple"):
        collate([{"index": 0}])


@pytest.mark.slow
def test_evaluations_use_batches_of_the_size_in_the_config(tmp_path):
    with stage(tmp_path, "dataset.eval_batch_size=50") as built:
        sizes = [len(batch["target"]) for batch in built.data.judge]
        assert sizes == [50, 50, 20]
        small = built.judge()
    with stage(tmp_path) as built:
        assert built.judge() == pytest.approx(small)


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_share_the_batches_of_a_sampler_and_of_a_batch_sampler(world_size):
    def batches(epoch: int) -> list[np.ndarray]:
        return [np.arange(start, start + 6) + epoch for start in (0, 10, 20)]

    def positions(epoch: int) -> np.ndarray:
        return np.concatenate(batches(epoch))

    ranks = range(world_size)
    own = [BatchOrder(batches, key="k", views=None, world=World(rank, world_size)) for rank in ranks]
    plain = [
        EpochOrder(
            18,
            batch_size=6,
            seed=0,
            stage="a",
            shuffle=True,
            world=World(rank, world_size),
            sampler=positions,
        )
        for rank in ranks
    ]
    for orders in (own, plain):
        for order in orders:
            order.set_epoch(2)
        parts = list(zip(*orders, strict=True))
        assert [[position for part in step for position, _ in part] for step in parts] == [
            batch.tolist() for batch in batches(2)
        ]


def test_an_epoch_goes_on_where_it_was_left():
    order = BatchOrder(lambda epoch: [np.array([0, 1]), np.array([2])], key="k", views=2)
    order.set_epoch(3)
    order.set_position(1)
    assert list(order) == [[(2, 1)]] and len(order) == 2 and order.num_samples == 3


def test_loading_in_processes_changes_nothing():
    class Numbers(torch.utils.data.Dataset):
        def __getitems__(self, keys):
            return [{"input": torch.tensor([key[0]]), "target": 0, "index": key[0]} for key in keys]

        def __len__(self):
            return 6

    order = BatchOrder(lambda epoch: [np.array([5, 1]), np.array([2, 2])], key="k", views=None)
    collate = Collate(halved, key="k")
    loaders = [
        make_loader(Numbers(), order=order, num_workers=workers, device=torch.device("cpu"), collate=collate)
        for workers in (0, 1)
    ]
    alone, apart = ([batch["index"].tolist() for batch in loader] for loader in loaders)
    loaders[1].close()
    assert alone == apart == [[5, 1], [2, 2]]

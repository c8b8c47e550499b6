"""The teacher cache: a loss is the same with it and without, nothing wrong is ever read, and it is used again."""

import errno
import logging
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from engine_fixtures import (
    DIGITS,
    QUIET,
    count_calls,
    equal,
    metrics,
    mostly_slow,
    network,
    refusal,
    resolved,
    run,
    runner,
    stage,
    train,
)
from PIL import Image

from distill_app.cache import layout as layout_module
from distill_app.cache import store as cache_module
from distill_app.cache.checksum import Checksum
from distill_app.cache.codec import Codec, codec_of
from distill_app.cache.layout import Layout, layout_of, room_of
from distill_app.cache.leaves import leaves, nested, nesting, refuse_varying
from distill_app.cache.store import TapStore, differences, digest, read_meta
from distill_app.check.quick import check
from distill_app.config.tree import compose
from distill_app.data import BundledImages
from distill_app.errors import CacheError, ConfigError, UsageError
from distill_app.models import PlainCNN
from distill_app.runs.statefile import load_file, save_weights, weights_hash
from distill_app.training.describe import stage_text
from distill_app.training.optimize import Optimization
from distill_app.training.preflight import refuse_what_does_not_fit
from distill_app.training.stage import Stage
from distill_app.verbs import call
from distill_app.words import size_text

MIXUP = "+dataset.wrappers.mix={_target_: distill_app.data.Mixup, alpha: 0.4}"
CUTMIX = "+dataset.wrappers.mix={_target_: distill_app.data.CutMix}"
LONG = ("stage.epochs=8",)  # as many as a schedule has steps for
PLAIN = ("dataset.train_transform=[]",)


class Interrupted(Exception):
    """What stops a run in these tests."""


def cached(folder: Path, *overrides: str) -> tuple[str, ...]:
    return ("cache.enabled=true", f"cache.folder={folder / 'cache'}", *overrides)


def losses_of(folder: Path, *overrides: str, epochs: int = 4, live: bool = False, number: int = 0) -> list[dict]:
    """The mean losses of each epoch, and how often the teacher ran in it; `live` runs it in spite of the cache."""
    results = []
    with stage(folder, *LONG, *overrides, number=number) as built:
        if live:
            built.frozen.activations = built.frozen.run
        calls = count_calls(network(built, "teacher"))
        for epoch in range(epochs):
            before = calls.total()
            results.append({**train(built, first=epoch), "ran": calls.total() > before})
    return results


def assert_close(mine: list[dict], theirs: list[dict]) -> None:
    for epoch, (a, b) in enumerate(zip(mine, theirs, strict=True)):
        for name in a.keys() - {"ran"}:
            assert a[name] == pytest.approx(b[name], rel=2e-3, abs=1e-4), (epoch, name)


def one(folder: Path, pattern: str = "cache/*/*/") -> Path:
    (found,) = folder.glob(pattern)
    return found


# The loss with the cache and without


def test_without_augmentation_losses_are_those_of_a_run_without_cache(tmp_path):
    plain = losses_of(tmp_path, *PLAIN)
    replayed = losses_of(tmp_path, *PLAIN, *cached(tmp_path))
    assert_close(replayed, plain)
    assert [epoch["ran"] for epoch in replayed] == [True, False, False, False]


@pytest.mark.parametrize("extra", [(), (MIXUP,), (CUTMIX,)], ids=["augmented", "mixup", "cutmix"])
@pytest.mark.slow
def test_augmented_losses_are_those_of_a_teacher_that_sees_the_same_views(tmp_path, extra):
    overrides = cached(tmp_path, "cache.views=2", *extra)
    live = losses_of(tmp_path, *overrides, live=True)
    replayed = losses_of(tmp_path, *overrides)
    assert_close(replayed, live)
    assert [epoch["ran"] for epoch in replayed] == [True, True, False, False]
    assert all(epoch["ran"] for epoch in live)


@pytest.mark.slow
def test_a_network_with_an_input_of_its_own_is_replayed_and_other_inputs_are_another_cache(tmp_path):
    own = ("teacher.input={size: 16, mean: [0.5,0.5,0.5], std: [0.2,0.2,0.2]}",)
    plain = losses_of(tmp_path, *PLAIN, *own)
    replayed = losses_of(tmp_path, *PLAIN, *own, *cached(tmp_path))
    assert_close(replayed, plain)
    assert [epoch["ran"] for epoch in replayed] == [True, False, False, False]
    other = losses_of(tmp_path, *PLAIN, *own, "teacher.input.size=24", *cached(tmp_path), epochs=1)
    assert other[0]["ran"] and len(list(tmp_path.glob("cache/*/"))) == 2


@pytest.mark.slow
def test_every_batch_of_a_replayed_epoch_gets_what_the_teacher_says_of_its_images(tmp_path):
    with stage(tmp_path, *cached(tmp_path, "cache.views=2", MIXUP)) as built:
        train(built, epochs=2)
        for epoch in (2, 3, 4):
            built.begin_epoch(epoch)
            for raw in built.data.train:
                batch = built.task.prepare(raw, device=built.device)
                live = built.frozen.run(batch)["teacher"]["logits"]
                read = built.frozen.activations(batch)["teacher"]["logits"]
                assert read.dtype == torch.float32
                torch.testing.assert_close(read, live, rtol=2**-10, atol=1e-4)


@pytest.mark.slow
def test_several_images_a_sample_and_several_stages_are_replayed(tmp_path):
    overrides = cached(tmp_path, "method=sskd", "cache.views=1", "method.stages.pretext.epochs=2")
    for number, taps in ((0, ["pooled"]), (1, ["logits", "pooled"])):
        with stage_after_others(tmp_path, *overrides, number=number) as built:
            calls = count_calls(network(built, "teacher"))
            first, second = train(built), calls.total()
            assert second > 0 and np.isfinite(first["total"])
            train(built, first=1)
            assert calls.total() == second
            raw = next(iter(built.data.train))
            batch = built.task.prepare(raw, device=built.device)
            live = built.frozen.run(batch)["teacher"]
            read = built.frozen.activations(batch)["teacher"]
            assert sorted(read) == taps and len(read["pooled"]) == 4 * len(raw["index"])
            for tap in taps:
                torch.testing.assert_close(read[tap], live[tap], rtol=2**-10, atol=1e-4)
    assert len(list(tmp_path.glob("cache/*/"))) == 1, "one fingerprint for both stages"
    assert len(list(tmp_path.glob("cache/*/*/"))) == 2, "and pooled is stored once"


@contextmanager
def stage_after_others(folder: Path, *overrides: str, number: int) -> Iterator[Stage]:
    """A stage that finds the adapters of those before it, untrained."""
    with runner(folder, *overrides) as made:
        for plan in made.plans[:number]:
            Stage(plan, made.experiment).close()
        built = Stage(made.plans[number], made.experiment)
        built.tracker = made.tracker  # type: ignore[attr-defined]
        try:
            yield built
        finally:
            built.close()


def test_filling_uses_what_reading_will_give(tmp_path):
    with stage(tmp_path, *cached(tmp_path, *PLAIN)) as built:
        built.begin_epoch(0)
        raw = next(iter(built.data.train))
        batch = built.task.prepare(raw, device=built.device)
        calls = count_calls(network(built, "teacher"))
        filled, ran = built.frozen.activations(batch)["teacher"]["logits"], calls.total()
        read = built.frozen.activations(batch)["teacher"]["logits"]
    assert filled.equal(read) and calls.total() == ran > 0


@pytest.mark.slow
def test_images_that_cannot_be_read_leave_the_rows_of_others_right(tmp_path, monkeypatch):
    original = BundledImages.__getitem__

    def broken(self, index):
        if index % 7 == 3 and len(self) == 1200:
            raise OSError("damaged")
        return original(self, index)

    monkeypatch.setattr(BundledImages, "__getitem__", broken)
    overrides = cached(tmp_path, "cache.views=2", "runtime.corrupt_images=skip", "runtime.max_skipped=500", MIXUP)
    assert_close(losses_of(tmp_path, *overrides), losses_of(tmp_path, *overrides, live=True))


def test_views_come_back_after_as_many_epochs_and_not_before(tmp_path):
    def images(built, epoch):
        built.begin_epoch(epoch)
        return {int(i): x for raw in built.data.train for i, x in zip(raw["index"], raw["input"], strict=True)}

    with stage(tmp_path, *cached(tmp_path, "cache.views=3")) as built:
        epochs = [images(built, epoch) for epoch in range(4)]
    assert all(epochs[0][index].equal(epochs[3][index]) for index in epochs[0])
    assert not all(epochs[0][index].equal(epochs[1][index]) for index in epochs[0])


def test_a_network_with_a_tap_that_is_not_to_be_cached_runs_as_without(tmp_path):
    overrides = ("method=at", *PLAIN, *cached(tmp_path, "cache.taps=[teacher.logits]"))
    assert all(epoch["ran"] for epoch in losses_of(tmp_path, *overrides, epochs=2))
    assert not (tmp_path / "cache").exists()


# Used again


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> str:
    """A checkpoint of the teacher: from seed to seed the same network."""
    folder = tmp_path_factory.mktemp("teacher")
    with stage(folder, *PLAIN) as built:
        save_weights(network(built, "teacher"), folder / "teacher.pt")
    return f"teacher.checkpoint={folder / 'teacher.pt'}"


@pytest.mark.slow
def test_a_second_run_with_another_seed_runs_no_teacher(tmp_path, teacher):
    overrides = cached(tmp_path, teacher, "cache.views=2")
    losses_of(tmp_path, *overrides, epochs=2)
    again = losses_of(tmp_path, *overrides, "seed=7", "stage.batch_size=50", epochs=2)
    assert not any(epoch["ran"] for epoch in again)


CHANGES = {
    "network.weights": "seed=5",
    "transform.train_transform": "dataset.train_transform=[{_target_: torchvision.transforms.v2.CenterCrop, size: 8}]",
    "transform.mean": "dataset.normalize.mean=[0.1,0.1,0.1]",
    "transform.wrappers": MIXUP,
    "augmentation.seed": "cache.seed=1",
    "augmentation.views": "cache.views=3",
    "data.train": "dataset.image_size=16",
    "precision": "runtime.precision=bf16",
}


@pytest.mark.slow
@pytest.mark.parametrize("part", mostly_slow(CHANGES, "network.weights", "transform.mean", "augmentation.views"))
def test_what_changes_a_row_is_another_cache_and_refused_for_reuse_with_the_reason(tmp_path, part):
    overrides = cached(tmp_path, "cache.views=2")
    with stage(tmp_path, *overrides) as built:
        built.frozen.cache.open()
    first = one(tmp_path, "cache/*/")
    with stage(tmp_path, *overrides, CHANGES[part]) as built:
        notes = built.frozen.cache.open()
    assert len(list(tmp_path.glob("cache/*/"))) == 2
    assert f"a new one, since {first}" in notes[0]
    with (
        stage(tmp_path, *overrides, CHANGES[part], f"cache.reuse={first}") as built,
        pytest.raises(CacheError, match=f"cache.reuse: .* filled from something else: .*{part}"),
    ):
        built.frozen.cache.open()


@pytest.mark.parametrize("change", ["stage.batch_size=20", "stage.epochs=9", "dataset.student_labels_per_class=5"])
@pytest.mark.slow
def test_what_changes_no_row_is_the_same_cache(tmp_path, change):
    for extra in ((), (change,)):
        with stage(tmp_path, *cached(tmp_path, "cache.views=2", *extra)) as built:
            built.frozen.cache.open()
    assert len(list(tmp_path.glob("cache/*/"))) == 1


@pytest.mark.slow
def test_another_order_of_the_data_is_another_cache(tmp_path, monkeypatch):
    with stage(tmp_path, *cached(tmp_path, *PLAIN)) as built:
        built.frozen.cache.open()
    original = BundledImages.__init__

    def reversed_order(self, *args, **kwargs):
        original(self, *args, **kwargs)
        self.images, self.targets = self.images.flip(0), self.targets[::-1]

    monkeypatch.setattr(BundledImages, "__init__", reversed_order)
    with stage(tmp_path, *cached(tmp_path, *PLAIN)) as built:
        notes = built.frozen.cache.open()
    assert "data.labels" in notes[0] and "data.three_images" in notes[0]


@pytest.mark.slow
def test_the_same_data_in_another_place_find_the_same_cache(tmp_path, monkeypatch):
    for number in range(12):
        place = tmp_path / "first" / ("train" if number % 3 else "val") / f"class{number % 2}"
        place.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (20 * number, 0, 0)).save(place / f"{number}.png")
    shutil.copytree(tmp_path / "first", tmp_path / "second")
    monkeypatch.chdir(tmp_path)
    folders = ("dataset=imagenet", "dataset.image_size=16", "dataset.num_classes=2", "dataset.eval_transform=[]")
    for root in ("first", str(tmp_path / "first"), "second"):
        overrides = cached(tmp_path, *folders, f"dataset.root={root}", *PLAIN)
        with stage(tmp_path, *overrides) as built:
            built.frozen.cache.open()
    found = one(tmp_path, "cache/*/")
    for file in (tmp_path / "second" / "train").rglob("*.png"):
        Image.new("RGB", (16, 16), (250, 0, 0)).save(file)
    with stage(tmp_path, *overrides) as built:
        assert f"a new one, since {found} is of something else: data.three_images" in built.frozen.cache.open()[0]


@pytest.mark.slow
def test_a_cache_that_was_moved_is_reused_where_it_lies_now(tmp_path):
    losses_of(tmp_path, *cached(tmp_path, *PLAIN), epochs=1)
    one(tmp_path, "cache/*/").rename(tmp_path / "moved")
    again = losses_of(tmp_path, *cached(tmp_path, *PLAIN, f"cache.reuse={tmp_path / 'moved'}"), epochs=1)
    assert not again[0]["ran"]


def test_weights_hash_knows_names_and_bytes_and_not_the_memory_layout():
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    before = weights_hash(net)
    assert weights_hash(net.to(memory_format=torch.channels_last)) == before
    net[1].running_mean[2] += 1e-6
    assert weights_hash(net) != before


# Damage


def damaged_byte(path: Path, *, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 0x10
    path.write_bytes(content)


@pytest.mark.slow
@pytest.mark.parametrize("file", ["values.npy", "checks.npy"])
def test_a_damaged_row_is_computed_again_and_never_used(tmp_path, caplog, file):
    overrides = cached(tmp_path, *PLAIN)
    expected = losses_of(tmp_path, *overrides, epochs=1)
    folder = one(tmp_path)
    row = int(np.flatnonzero(np.load(folder / "checks.npy")[0])[5])
    damaged_byte(folder / file, at=128 + row * (20 if file == "values.npy" else 4) + 1)
    assert call("cache", ["verify", str(tmp_path / "cache")]) == 1
    with caplog.at_level(logging.WARNING):
        again = losses_of(tmp_path, *overrides, epochs=1)
    assert again[0]["ran"] and "1 damaged rows" in caplog.text
    assert again[0]["total"] == expected[0]["total"]
    assert call("cache", ["verify", str(tmp_path / "cache")]) == 0


@pytest.mark.slow
def test_a_file_that_was_cut_off_is_filled_again(tmp_path):
    overrides = cached(tmp_path, *PLAIN)
    expected = losses_of(tmp_path, *overrides, epochs=1)
    os.truncate(one(tmp_path) / "values.npy", 5000)
    again = losses_of(tmp_path, *overrides, epochs=1)
    assert again[0]["ran"] and again[0]["total"] == expected[0]["total"]
    assert not losses_of(tmp_path, *overrides, epochs=1)[0]["ran"]


@pytest.mark.slow
def test_a_file_of_another_kind_is_refused(tmp_path):
    losses_of(tmp_path, *cached(tmp_path, *PLAIN), epochs=1)
    np.save(one(tmp_path) / "values.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with stage(tmp_path, *cached(tmp_path, *PLAIN)) as built, pytest.raises(CacheError, match="distill cache clear"):
        built.frozen.cache.open()


LAYOUT = Layout(2, 6, {"values": ("<f2", (1, 3))})


def store(folder: Path, *, salt: str = "s", layout: Layout = LAYOUT, **choices) -> TapStore:
    return TapStore(folder / "print" / "tap", layout=layout, salt=salt, about={}, **choices)


def rows_of(*numbers: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    rows = np.array(numbers)
    return rows, {"values": (rows[:, None, None] + np.arange(3) / 4).astype(np.float16)}


@pytest.mark.parametrize("kind", ["fifo", "link", "device"])
@pytest.mark.parametrize("writable", [True, False])
def test_an_array_that_is_no_file_is_refused_and_nothing_outside_is_written(tmp_path, kind, writable):
    made, outside = store(tmp_path), tmp_path / "outside"
    path = made.folder / "values.npy"
    path.rename(outside)
    os.truncate(outside, 130)  # what a cache would fill up with zeros
    if kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to(outside if kind == "link" else "/dev/zero")
    with pytest.raises(CacheError, match=r"values\.npy is (a fifo|a symbolic link).*distill cache clear"):
        store(tmp_path, writable=writable)
    assert outside.stat().st_size == 130


@pytest.mark.parametrize("kind", ["fifo", "link", "giant", "nested"])
def test_a_meta_file_that_is_none_is_no_cache(tmp_path, kind):
    made = store(tmp_path)
    path, outside = made.folder / "meta.json", tmp_path / "outside"
    path.rename(outside)
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to(outside)
    else:
        path.write_text("[" * 100_000 if kind == "nested" else "")
        os.truncate(path, 50 * 10**9 if kind == "giant" else 100_000)
    assert read_meta(made.folder) is None


CLAIMS = {"rows": [2**40], "more than a number": [2**40, 2**40], "no number": [float("inf")]}


@pytest.mark.parametrize("shape", CLAIMS.values(), ids=CLAIMS)
def test_a_meta_file_that_claims_giants_is_refused(shape):
    with pytest.raises(CacheError, match=r"meta\.json (claims|is damaged)"):
        layout_of({"views": 1, "samples": 1, "arrays": {"values": ["<f2", shape]}})


def test_a_cache_array_with_code_is_refused_and_not_run(tmp_path):
    made, canary = store(tmp_path), tmp_path / "executed"
    np.save(made.folder / "values.npy", np.array([Canary(canary)], dtype=object), allow_pickle=True)
    for writable in (True, False):
        with pytest.raises(CacheError, match=r"values\.npy: holds object"):
            store(tmp_path, writable=writable)
    (made.folder / "checks.npy").write_bytes(pickle.dumps(Canary(canary)))
    with pytest.raises(CacheError, match="distill cache clear"):
        store(tmp_path)
    assert not canary.exists()


class Canary:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_room_is_taken_where_rows_are_written_and_nowhere_else(tmp_path, monkeypatch):
    monkeypatch.setattr(layout_module, "ALLOCATED", 0)
    layout = Layout(1, 500, {"values": ("<f2", (50_000,))})  # rows of more than a block, 50 MB
    made = store(tmp_path, layout=layout)
    file = made.folder / "values.npy"
    size = file.stat().st_size
    rows = np.array([3, 499])
    made.write(0, rows, {"values": np.ones((2, 50_000), np.float16)})
    taken = file.stat().st_blocks * 512
    assert 2 * 100_000 <= taken <= 2 * 100_000 + 8 * layout_module.BLOCK
    assert file.stat().st_size == size, "the end of the file stays where it is"
    assert store(tmp_path, layout=layout).read(0, rows).good.all()


@pytest.mark.parametrize("share", [0.01, 0.1, 0.7])
def test_what_rows_that_lie_apart_take_is_known_before(tmp_path, monkeypatch, share):
    monkeypatch.setattr(layout_module, "ALLOCATED", 2**18)
    layout = Layout(2, 20_000, {"values": ("<f2", (1000,))})
    rows = np.random.default_rng(0).permutation(20_000)[: round(share * 20_000)]
    made = store(tmp_path, layout=layout, sparse=share < 0.5)
    for view in (0, 1):
        made.write(view, rows, {"values": np.ones((len(rows), 1000), np.float16)})
    taken = sum(file.stat().st_blocks * 512 for file in made.folder.glob("*.npy"))
    assert room_of(layout, rows, sparse=share < 0.5) == pytest.approx(taken, rel=0.05)
    assert taken < 5 * layout.views * len(rows) * layout.row_bytes, "no more than the blocks of the file system"


@pytest.mark.parametrize("allocated", [0, 2**20], ids=["holes", "allocated"])
def test_rows_are_read_as_written_and_by_their_view(tmp_path, monkeypatch, allocated):
    monkeypatch.setattr(layout_module, "ALLOCATED", allocated)
    rows, arrays = rows_of(4, 1, 3)
    made = store(tmp_path)
    made.write(1, rows, arrays)
    assert np.array_equal(store(tmp_path).read(1, rows[::-1]).arrays["values"], arrays["values"][::-1])
    assert made.read(0, rows).arrays is None
    assert made.damaged() == 0, "also of a view without a row"
    found = made.read(1, np.array([4, 0]))
    assert found.arrays is None and found.good.tolist() == [True, False]
    assert made.filled() == 3 and made.filled(np.array([4, 5])) == 1


def test_a_row_is_known_only_in_its_place_and_in_its_cache(tmp_path):
    rows, arrays = rows_of(2, 3)
    store(tmp_path).write(0, rows, arrays)
    folder = tmp_path / "print" / "tap"
    assert store(tmp_path, salt="another fingerprint").read(0, rows).damaged == 2
    for name in ("values", "checks"):
        content = np.load(folder / f"{name}.npy")
        content[0, 4] = content[0, 2]
        np.save(folder / f"{name}.npy", content)
    assert store(tmp_path).read(0, np.array([4])).damaged == 1


@pytest.mark.parametrize("size", [2, 8, 20, 2000, 2002])
def test_a_checksum_sees_every_bit_and_the_place(size):
    checksum, rows = Checksum("salt", {"values": size}), np.arange(4)
    content = np.random.default_rng(0).integers(0, 256, (4, size), dtype=np.uint8)
    before = checksum(rows, {"values": content})
    assert (checksum(rows + 1, {"values": content}) != before).all()
    assert (Checksum("pepper", {"values": size})(rows, {"values": content}) != before).all()
    for bit in range(0, 8 * size, 1 if size < 100 else 37):
        flipped = content.copy()
        flipped[:, bit // 8] ^= 1 << bit % 8
        assert (checksum(rows, {"values": flipped}) != before).all()
    assert np.array_equal(checksum(rows[2:], {"values": content[2:]}), before[2:])


def test_a_process_that_dies_within_a_row_leaves_no_row(tmp_path, monkeypatch):
    rows, arrays = rows_of(2, 3)
    for name, survives in (("checks", 0), ("values", 0)):
        made = store(tmp_path / name)
        original = made._write_rows

        def dying(file, *args, name=name, original=original):
            if file == name:
                raise Interrupted
            original(file, *args)

        monkeypatch.setattr(made, "_write_rows", dying)
        with pytest.raises(Interrupted):
            made.write(0, rows, arrays)
        assert store(tmp_path / name).filled() == survives
    made = store(tmp_path / "order lost by a crash of the machine")
    made._write_rows("checks", 0, rows, made._checksum(rows, arrays))
    assert made.read(0, rows).damaged == 2


def test_many_may_make_and_fill_a_store_at_once(tmp_path):
    def fill(number: int) -> None:
        made = store(tmp_path)
        for view in (0, 1):
            made.write(view, *rows_of(*range(6)))
        made.close()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(fill, range(16)))
    made = store(tmp_path)
    assert made.filled() == 12 and made.damaged() == 0
    assert [path.name for path in (tmp_path / "print").iterdir()] == ["tap"], "nothing unfinished is left"


FILL = """
import sys
from pathlib import Path
import numpy as np
from distill_app.cache.layout import Layout
from distill_app.cache.store import TapStore
from distill_app.data.order import EpochOrder
from distill_app.world import World
folder, rank = Path(sys.argv[1]), int(sys.argv[2])
made = TapStore(folder, layout=Layout(3, 1001, {"values": ("<f2", (1, 200))}), salt="s", about={})
order = EpochOrder(1001, batch_size=14, seed=0, stage="a", shuffle=True, world=World(rank, 2), views=3)
for epoch in range(3):
    order.set_epoch(epoch)
    for batch in order:
        rows = np.array([position for position, _ in batch])
        made.write(order.view, rows, {"values": np.repeat(rows[:, None, None], 200, 2).astype(np.float16)})
"""


@pytest.mark.slow
def test_two_ranks_fill_one_cache_with_the_rows_that_each_of_them_sees(tmp_path):
    ranks = [subprocess.Popen([sys.executable, "-c", FILL, str(tmp_path / "tap"), str(rank)]) for rank in range(2)]
    assert [rank.wait(timeout=120) for rank in ranks] == [0, 0]
    layout = Layout(3, 1001, {"values": ("<f2", (1, 200))})
    made = TapStore(tmp_path / "tap", layout=layout, salt="s", about={}, writable=False)
    assert made.filled() == 3 * 1001 and made.damaged() == 0
    for view in range(3):
        values = made.read(view, np.arange(1001)).arrays["values"]
        assert (values[:, 0, 100] == np.arange(1001).astype(np.float16)).all()


@pytest.mark.slow
def test_a_full_disk_ends_the_filling_and_not_the_run(tmp_path, monkeypatch, caplog):
    expected = losses_of(tmp_path, *cached(tmp_path / "other", *PLAIN), epochs=2)

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(layout_module, "ALLOCATED", 0)
    monkeypatch.setattr(cache_module.os, "posix_fallocate", full)
    with caplog.at_level(logging.WARNING):
        results = losses_of(tmp_path, *cached(tmp_path, *PLAIN), epochs=2)
    assert [epoch["total"] for epoch in results] == [epoch["total"] for epoch in expected]
    assert caplog.text.count("nothing more is written") == 1


# Interrupted


@pytest.mark.slow
def test_a_run_interrupted_while_filling_ends_as_if_it_had_not_been(tmp_path, monkeypatch):
    monkeypatch.setattr("distill_app.training.outcome.final_plot", lambda folder: folder)
    overrides = ("stage.epochs=4", "stage.batch_size=20", "cache.views=2", "cache.enabled=true")
    run(tmp_path / "whole", *overrides, f"cache.folder={tmp_path / 'a'}")
    again = (*overrides, f"cache.folder={tmp_path / 'b'}")
    for step in (8, 3):  # in the second epoch, and there again
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted):
            stop_at_step(patch, step)
            run(tmp_path / "resumed", *again)
    run(tmp_path / "resumed", *again)
    assert equal(load_file(tmp_path / "resumed" / "student.pt"), load_file(tmp_path / "whole" / "student.pt"))
    assert metrics(tmp_path / "resumed") == metrics(tmp_path / "whole")


def stop_at_step(patch: pytest.MonkeyPatch, number: int) -> None:
    original, count = Optimization.step, iter(range(1, 10_000))

    def step(self):
        if next(count) == number:
            raise Interrupted
        original(self)

    patch.setattr(Optimization, "step", step)


@pytest.mark.slow
def test_a_process_killed_while_filling_goes_on_and_ends_the_same(tmp_path):
    words = [*DIGITS, *QUIET, "stage.epochs=40", "stage.batch_size=10", "cache.enabled=true", "cache.views=30"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    program = [sys.executable, "-m", "distill_app"]

    def places(name: str) -> list[str]:
        return [f"hydra.run.dir={tmp_path / name}", f"cache.folder={tmp_path / name / 'cache'}"]

    subprocess.run([*program, *words, *places("whole")], env=environment, check=True, capture_output=True)
    killed = subprocess.Popen(
        [*program, *words, *places("killed")], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    log, until = tmp_path / "killed" / "metrics.jsonl", time.monotonic() + 120
    while not (log.exists() and '"epoch": 5' in log.read_text()):
        assert killed.poll() is None, "ended before it could be killed"
        assert time.monotonic() < until
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert call("cache", ["verify", str(tmp_path / "killed" / "cache")]) == 0
    subprocess.run([*program, "resume", str(tmp_path / "killed")], env=environment, check=True, capture_output=True)
    assert equal(load_file(tmp_path / "killed" / "student.pt"), load_file(tmp_path / "whole" / "student.pt"))
    assert metrics(tmp_path / "killed") == metrics(tmp_path / "whole")


# How rows are stored


def test_logits_of_a_thousand_classes_take_two_bytes_each():
    layout = Layout(1, 1_281_167, Codec(1, (1000,)).arrays)
    assert layout.row_bytes <= 2010
    assert size_text(layout.samples * layout.row_bytes) == "2.6 GB"
    assert Layout(8, 1, Codec(1, (1000,), 16).arrays).row_bytes == 16 * 4 + 2 + 4


def test_float16_is_clamped_to_its_range_and_rounds_within_it():
    codec = Codec(1, (4,))
    value = torch.tensor([[1e6, -1e6, 3.14159, 65504.0]])
    back = codec.decode(codec.encode(value))
    assert back.dtype == torch.float32
    assert back[0, [0, 1, 3]].tolist() == [65504.0, -65504.0, 65504.0]
    assert back[0, 2].item() == pytest.approx(3.14159, rel=2**-11)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float64])
def test_activations_of_any_precision_come_back_as_float32(kind):
    codec = Codec(2, (3, 2, 2))
    value = torch.randn(8, 3, 2, 2).to(kind)
    torch.testing.assert_close(codec.decode(codec.encode(value)), value.float(), rtol=2**-10, atol=1e-6)
    assert codec.encode(value)["values"].shape == (4, 2, 3, 2, 2)


@pytest.mark.parametrize("classes", [50, 70_000])
def test_top_k_keeps_the_probabilities_of_the_largest_and_spreads_the_rest_evenly(classes):
    torch.manual_seed(0)
    codec, value = Codec(1, (classes,), 5), 4 * torch.randn(6, classes)
    assert codec.arrays["indices"][0] == ("<u2" if classes == 50 else "<u4")
    back = codec.decode(codec.encode(value))
    true, mine = value.softmax(1), back.softmax(1)
    top = value.topk(5, dim=1).indices
    torch.testing.assert_close(mine.gather(1, top), true.gather(1, top), rtol=0.02, atol=1e-5)
    rest = mine.scatter(1, top, 0)
    torch.testing.assert_close(rest.sum(1), true.scatter(1, top, 0).sum(1), rtol=0.02, atol=1e-5)
    for row, largest in zip(back, top, strict=True):
        others = row[~torch.isin(torch.arange(classes), largest)]
        assert others.unique().numel() == 1


def test_top_k_keeps_the_probabilities_at_the_temperature_of_the_terms():
    torch.manual_seed(0)
    value = 3 * torch.randn(6, 1000)
    top = value.topk(16, dim=1).indices
    true = (value / 4).softmax(1).gather(1, top)
    right, wrong = (
        (codec.decode(codec.encode(value)) / 4).softmax(1).gather(1, top)
        for codec in (Codec(1, (1000,), 16, 4.0), Codec(1, (1000,), 16))
    )
    torch.testing.assert_close(right, true, rtol=0.02, atol=1e-5)
    assert (wrong < 0.8 * true).all(), "which is what another temperature does"


@pytest.mark.slow
def test_terms_that_read_the_largest_logits_at_another_temperature_are_named(tmp_path):
    inputs = {"input": "student.logits", "target": "teacher.logits"}
    second = {"losses": {"mse": {"loss": {"_target_": "torch.nn.MSELoss"}, "inputs": inputs}}}
    overrides = cached(tmp_path, *PLAIN, "cache.top_k=4")
    with stage(tmp_path, *overrides) as built:
        assert "cache.top_k" not in stage_text(built)
        built.frozen.cache.open()
        assert read_meta(one(tmp_path))["temperature"] == 4.0
    with stage(tmp_path, *overrides, distill=second) as built:
        text = "teacher.logits has the right probabilities at temperature 4; term mse reads it otherwise"
        assert f"cache.top_k: {text}" in stage_text(built)
    with stage(tmp_path, *overrides, "method.stages.distill.losses.kd.loss.temperature=2") as built:
        built.frozen.cache.open()
    assert len(list(tmp_path.glob("cache/*/*/"))) == 2, "another temperature is another store"


def test_adapters_that_read_the_largest_logits_are_named(tmp_path):
    module = {"_target_": "torch.nn.Linear", "in_features": 10, "out_features": 10}
    own = {
        "adapters": {"own": {"module": module, "source": "teacher.logits"}},
        "losses": {
            "mse": {
                "loss": {"_target_": "torch.nn.MSELoss"},
                "inputs": {"input": "student.logits", "target": "adapters.own"},
            }
        },
    }
    with stage(tmp_path, *PLAIN, *cached(tmp_path, "cache.top_k=3"), distill=own) as built:
        assert "at temperature 4; adapter own reads it otherwise" in stage_text(built)


@pytest.mark.slow
def test_a_folder_that_is_meant_for_reading_is_read(tmp_path, monkeypatch):
    overrides = cached(tmp_path, *PLAIN)
    losses_of(tmp_path, *overrides, epochs=1)
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK and mode != 3 and allowed(path, mode))
    assert not list(check(compose([*DIGITS, *overrides])))
    assert not losses_of(tmp_path, *overrides, epochs=1)[0]["ran"]


@pytest.mark.slow
def test_a_network_that_starts_from_another_one_is_reused_as_what_it_will_be(tmp_path, teacher):
    copies = "+method.stages.distill.init_from={teacher: student}"
    overrides = ("model@teacher=plain_8_16", "stage.epochs=1", *PLAIN, *cached(tmp_path, copies))
    run(tmp_path / "first", *overrides)
    calls = run(tmp_path / "again", *overrides, f"cache.reuse={one(tmp_path, 'cache/*/')}")
    assert calls["rows"]


def test_what_a_finished_stage_would_need_is_not_asked_for_again(tmp_path):
    overrides = ("method=sskd", "cache.views=1", *cached(tmp_path))
    with runner(tmp_path, *overrides) as made:
        made.experiment.app.cache.max_gb = 1e-12
        refuse_what_does_not_fit(made.experiment, [])
        with pytest.raises(ConfigError, match="stage 'distill'"):
            refuse_what_does_not_fit(made.experiment, made.plans[1:])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "note"),
    [
        (("method=at", "cache.taps=[teacher.logits]"), "cache: teacher runs in every epoch, since cache.taps leaves"),
        (("cache.taps=[]",), "cache: teacher runs in every epoch, since cache.taps leaves out logits of it"),
        (("method=l2", "cache.top_k=3"), "cache.top_k: does nothing here, since no class logits are read"),
    ],
)
def test_settings_that_do_nothing_are_told(tmp_path, overrides, note):
    with stage(tmp_path, *PLAIN, *cached(tmp_path, *overrides)) as built:
        assert note in stage_text(built)


@pytest.mark.slow
def test_top_k_trains_without_the_teacher_and_reads_what_it_wrote(tmp_path):
    overrides = cached(tmp_path, *PLAIN, "cache.top_k=4")
    first = losses_of(tmp_path, *overrides, epochs=2)
    assert [epoch["ran"] for epoch in first] == [True, False]
    assert losses_of(tmp_path, *overrides, epochs=2)[0]["total"] == first[0]["total"]
    plain = losses_of(tmp_path, *PLAIN, epochs=2)
    assert first[0]["kd"] == pytest.approx(plain[0]["kd"], rel=0.2), "an approximation, and a close one"
    assert read_meta(one(tmp_path))["arrays"]["values"] == ["<f2", [1, 5]]


def test_top_k_leaves_other_taps_whole():
    features = codec_of("teacher.pooled", torch.zeros(2, 10), count=2, classes=None, top_k=3)
    logits = codec_of("teacher.logits", torch.zeros(2, 10), count=2, classes=10, top_k=3)
    assert (features.top_k, logits.top_k) == (None, 3)


@pytest.mark.parametrize("example", [[torch.zeros(2, 3)], torch.zeros(2, dtype=torch.long), torch.zeros(3, 4)])
def test_a_tap_that_has_no_rows_of_floats_is_refused(example):
    with pytest.raises(CacheError, match=r"cache.taps: teacher.boxes cannot be cached"):
        codec_of("teacher.boxes", example, count=2, classes=10, top_k=None)


# Taps of several tensors

LIST = ("+teacher.taps.calls=fc:all", "method.stages.distill.losses.kd.inputs.teacher=teacher.calls.0")


def test_a_tap_of_several_tensors_is_stored_tensor_by_tensor_and_comes_back_as_it_was():
    tap = {"0": torch.ones(2, 3), "1": [torch.zeros(2), (torch.ones(2),)]}
    assert list(leaves("fpn", tap)) == ["fpn.0", "fpn.1.0", "fpn.1.1.0"] and list(leaves("p2", tap["0"])) == ["p2"]
    again = nested(nesting("fpn", tap), leaves("fpn", tap))
    assert list(again) == ["0", "1"] and again["0"] is tap["0"] and again["1"][1][0] is tap["1"][1][0]
    assert nested(nesting("p2", tap["0"]), {"p2": tap["0"]}) is tap["0"]


def test_a_list_is_replayed_without_the_teacher_and_what_reads_it_sees_the_same(tmp_path):
    plain = losses_of(tmp_path, *PLAIN, epochs=2)
    replayed = losses_of(tmp_path, *PLAIN, *LIST, *cached(tmp_path), epochs=2)
    assert_close(replayed, plain)
    assert [epoch["ran"] for epoch in replayed] == [True, False]
    assert one(tmp_path).name.startswith("calls.0-") and read_meta(one(tmp_path))["tap"] == "calls.0"


@pytest.mark.parametrize(
    ("one", "told"),
    [
        ({"a": torch.zeros(3, 4)}, "(3, 4) for one sample, (2, 4) for each of several"),
        ({"a": torch.zeros(2, 4), "b": torch.zeros(1)}, "calls.b cannot be cached: its rows are not those of samples"),
        ({}, "nothing for one sample"),
    ],
)
def test_rows_that_go_by_something_else_than_the_samples_are_refused(one, told):
    shapes = {"teacher": {"calls.a": (2, 4)}}
    with pytest.raises(CacheError) as caught:
        refuse_varying({"teacher": {"calls": one}}, nestings={"teacher": {"calls": {"a": "calls.a"}}}, shapes=shapes)
    assert told in str(caught.value)


class PerCall(PlainCNN):
    """Has a module whose output has as many rows whatever the batch is."""

    def __init__(self, widths: list[int], *, num_classes: int):
        super().__init__(widths, num_classes=num_classes)
        self.regions = torch.nn.Identity()

    def forward(self, images):
        self.regions(images.new_ones(4, 3))
        return super().forward(images)


def test_a_tap_whose_rows_are_not_those_of_samples_is_refused_before_the_first_batch(tmp_path):
    own = (f"teacher.net._target_={__name__}.PerCall", f"runtime.allow=[{__name__}]")
    read = ("+teacher.taps.regions=regions", "method.stages.distill.losses.kd.inputs.teacher=teacher.regions")
    same = ("method.stages.distill.losses.kd.inputs.student=teacher.regions",)
    text = refusal(tmp_path, *cached(tmp_path, *PLAIN, *own, *read, *same))
    assert "teacher.regions cannot be cached: its rows are not those of samples ((4, 3) for one sample" in text


# Limits and config


@pytest.mark.slow
def test_no_stage_trains_before_the_caches_of_all_are_known_to_fit(tmp_path):
    overrides = ("prelude=comparison", "stage.epochs=1", *cached(tmp_path, "cache.views=2"))
    with stage(tmp_path, "prelude=none", *cached(tmp_path, "cache.views=2", "seed=3")) as built:
        built.frozen.cache.open()
    other = one(tmp_path, "cache/*/")
    with runner(tmp_path, *overrides) as made, pytest.raises(ConfigError, match="stage 'distill' would fill") as caught:
        made.experiment.app.cache.max_gb = 1e-9
        made.run()
    assert "cache.max_gb" in str(caught.value)
    assert not (tmp_path / "metrics.jsonl").read_text() and not list(tmp_path.glob("checkpoints/*"))
    with runner(tmp_path, *overrides, f"cache.reuse={other}") as made:
        refuse_what_does_not_fit(made.experiment, made.plans)  # its weights are not known before the teacher is trained
    with (
        runner(tmp_path, *overrides, f"cache.reuse={other}", "cache.views=4") as made,
        pytest.raises(ConfigError, match=r"cache.reuse: .*augmentation.views: there is 2, needed is 4"),
    ):
        refuse_what_does_not_fit(made.experiment, made.plans)


def test_what_would_be_too_large_is_refused_before_anything_is_written(tmp_path):
    text = refusal(tmp_path, *cached(tmp_path, "cache.views=8", "cache.max_gb=0.00001"))
    assert text.startswith("cache.max_gb: stage 'distill' would fill 0.2 MB, allowed are 1e-05 GB")
    for key in ("cache.views", "cache.top_k", "cache.taps", "100 samples x 8 views x 24 bytes"):
        assert key in text
    assert not (tmp_path / "cache").exists()


def test_a_disk_with_too_little_room_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(layout_module, "ALLOCATED", 0)  # files of this size had their room when they were made
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("distill_app.cache.replay.shutil.disk_usage", lambda path: usage)
    with (
        stage(tmp_path, *cached(tmp_path, *PLAIN)) as built,
        pytest.raises(CacheError, match=r"cache.folder: .* 1.0 kB"),
    ):
        built.frozen.cache.open()


def test_the_plan_says_what_the_cache_takes(tmp_path):
    with stage(tmp_path, *cached(tmp_path, "cache.views=8")) as built:
        text = "100 samples x 8 views x 24 bytes = 19.2 kB (0.2 MB on the disk, with the room between them)"
        assert f"cache teacher.logits: {text}" in stage_text(built)
    assert not (tmp_path / "cache").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ((), "cache.views: dataset.train_transform may show other images in every epoch"),
        (("dataset.train_transform=[]", MIXUP), "cache.views: dataset.wrappers.mix may show"),
        (("cache.views=0",), "cache.views: must be at least 1"),
        (("cache.views=1", "cache.top_k=10"), "cache.top_k: must be below the 10 classes of digits, got 10"),
        (("cache.views=1", "cache.max_gb=0"), "cache.max_gb: must be above 0"),
        (("cache.views=1", "cache.taps=[teacher.logit]"), "unknown tap 'logit'; did you mean 'logits'?"),
        (("cache.views=1", "cache.taps=[tutor.logits]"), "unknown network 'tutor'"),
        (("cache.views=1", "cache.taps=[logits]"), "cache.taps: 'logits' is no address"),
        (("cache.views=1", "cache.reuse=elsewhere"), "cache.reuse: elsewhere is no cache"),
        (("cache.views=1", "cache.folder=/dev/null/x"), "cache.folder: /dev/null is no folder"),
    ],
)
def test_what_is_wrong_with_the_cache_is_found_before_anything_runs(errors_of, overrides, words):
    errors = errors_of(*DIGITS, "cache.enabled=true", *overrides)
    assert len(errors) == 1 and words in errors[0]


@pytest.mark.slow
def test_stages_that_read_no_frozen_network_are_left_as_they_are(errors_of, tmp_path):
    assert errors_of(*DIGITS, "method=ce", "cache.enabled=true") == []
    losses = []
    for extra in ((), cached(tmp_path, "cache.views=2")):
        with stage(tmp_path, *LONG, "method=ce", *extra) as built:
            losses.append([train(built, first=epoch)["total"] for epoch in range(3)])
            assert built.data.order.views is None
    assert losses[0] == losses[1] and not (tmp_path / "cache").exists()


@pytest.mark.slow
def test_off_by_default_and_then_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert resolved()["cache"]["enabled"] is False
    losses_of(tmp_path, epochs=1)
    assert not (tmp_path / "outputs").exists()


# The verbs


def test_list_says_whose_rows_and_how_many(tmp_path, capsys):
    losses_of(tmp_path, *cached(tmp_path, "cache.views=2"), epochs=1)
    assert call("cache", ["list", str(tmp_path / "cache")]) == 0
    out = capsys.readouterr().out
    assert "teacher (PlainCNN) on digits, 1,200 images" in out
    assert "100 of 2,400 rows (2 views)" in out and "1 caches" in out


def test_clear_takes_away_caches_and_nothing_else(tmp_path, capsys):
    losses_of(tmp_path, *cached(tmp_path, *PLAIN), epochs=1)
    folder = one(tmp_path, "cache/*/")
    (tmp_path / "cache" / "mine").mkdir()
    (tmp_path / "cache" / "mine" / "values.npy").write_text("not a cache")
    (folder / "notes.txt").write_text("mine too")
    assert call("cache", ["clear", str(tmp_path / "cache")]) == 0
    assert "kept, since there is more in it" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()) == [
        "notes.txt",
        "values.npy",
    ]
    with pytest.raises(UsageError, match="is no cache"):
        call("cache", ["clear", str(tmp_path / "cache")])


@pytest.mark.slow
def test_the_verbs_import_no_torch(tmp_path):
    losses_of(tmp_path, *cached(tmp_path, *PLAIN), epochs=1)
    program = (
        "import sys; from distill_app.cli import main\n"
        f"try: main(['cache', 'list', {str(tmp_path / 'cache')!r}])\n"
        "except SystemExit as end: print(end.code, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("0 False\n")


@pytest.mark.parametrize("parts", ["[]", '"x"', '{"network": 3, "data": {"samples": "x"}}', '{"network": {"net": []}}'])
def test_a_cache_whose_description_is_odd_is_listed_with_the_others(tmp_path, capsys, parts):
    for name, content in (("a", parts), ("b", "{}")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "meta.json").write_text(f'{{"kind": "{cache_module.KIND}", "parts": {content}}}')
    assert call("cache", ["list", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "2 caches" in out and "? images" in out


@pytest.mark.slow
def test_a_claim_that_no_cache_makes_is_refused(tmp_path, capsys):
    losses_of(tmp_path, *cached(tmp_path, *PLAIN), epochs=1)
    meta = one(tmp_path) / "meta.json"
    meta.write_text(meta.read_text().replace('"values"', '"../../secret"'))
    assert call("cache", ["verify", str(tmp_path / "cache")]) == 1
    assert "claims arrays that no cache has" in capsys.readouterr().out


def test_differences_name_the_parts():
    assert differences({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}) == ["a.c: there is 3, needed is 2"]
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1}) != digest({"a": 1, "b": [3]})


def test_a_closed_store_writes_no_more_and_reads_on(tmp_path):
    made = store(tmp_path)
    made.write(0, *rows_of(1))
    made.close()
    assert not made.writable and made.read(0, np.array([1])).arrays is not None

"""Samples: seeded augmentation, corrupt images, extra keys; the same with and without workers."""

import functools
import os
import signal
import subprocess
import time

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from distill_app.data import (
    BundledImages,
    EpochOrder,
    ImageFolder,
    Samples,
    SampleWrapper,
    make_loader,
)
from distill_app.errors import CorruptImageError
from distill_app.world import World

CPU = torch.device("cpu")
CROP = [v2.RandomCrop(8, padding=2), v2.ColorJitter(0.4), v2.RandomHorizontalFlip()]


@functools.cache
def digits():
    return BundledImages("digits", "train", image_size=8)


def make_samples(dataset=None, **changes):
    arguments = {"transforms": CROP, "seed": 0, "stage": "distill"}
    return Samples(digits() if dataset is None else dataset, **(arguments | changes))


def make_order(samples, **changes):
    arguments = {"batch_size": 16, "seed": 0, "stage": "distill", "shuffle": True}
    return EpochOrder(len(samples), **(arguments | changes))


def epochs(loader, order, count=2):
    batches = []
    for epoch in range(count):
        order.set_epoch(epoch)
        batches += list(loader)
    return batches


def assert_same(left, right):
    assert len(left) == len(right) > 0
    for one, other in zip(left, right, strict=True):
        assert one.keys() == other.keys()
        assert all(np.array_equal(np.asarray(one[key]), np.asarray(other[key])) for key in one)


class Noisy(SampleWrapper):
    def extend(self, sample):
        return sample | {"noise": torch.rand(3), "twice": sample["index"] * 2}


def test_batches_are_the_same_with_no_and_two_workers_bit_for_bit():
    results = []
    for num_workers in (0, 2):
        samples = Noisy(make_samples(indices=np.arange(100, 180)))
        order = make_order(samples)
        results.append(epochs(make_loader(samples, order=order, num_workers=num_workers, device=CPU), order))
    assert_same(*results)
    first = results[0][0]
    assert first["input"].shape == (16, 3, 8, 8) and first["input"].dtype == torch.uint8
    assert first["target"].dtype == first["index"].dtype == torch.int64
    assert first["target"].tolist() == [digits().targets[i] for i in first["index"]]
    assert all(100 <= i < 180 for batch in results[0] for i in batch["index"])


def test_two_ranks_see_the_images_of_one():
    samples = make_samples(indices=range(64))
    whole = list(make_loader(samples, order=make_order(samples), num_workers=0, device=CPU))
    halves = [
        list(
            make_loader(
                make_samples(indices=range(64)),
                order=make_order(samples, batch_size=16, world=World(rank, 2)),
                num_workers=0,
                device=CPU,
            )
        )
        for rank in range(2)
    ]
    keys = ("input", "target", "index")
    joined = [{k: torch.cat([a[k], b[k]]) for k in keys} for a, b in zip(*halves, strict=True)]
    assert_same([{k: batch[k] for k in keys} for batch in whole], joined)


def test_image_depends_on_seed_stage_view_and_index_only():
    samples = make_samples()
    alone = samples[(7, 3)]["input"]
    in_company = samples.__getitems__([(1, 0), (7, 3), (2, 5)])[1]["input"]
    elsewhere = make_samples(indices=[9, 7])[(1, 3)]["input"]
    assert torch.equal(alone, in_company) and torch.equal(alone, elsewhere)
    others = [samples[(7, 4)], make_samples(seed=1)[(7, 3)], make_samples(stage="hint")[(7, 3)]]
    assert not any(torch.equal(alone, other["input"]) for other in others)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_loading_leaves_the_callers_generators_alone(num_workers):
    samples = Noisy(make_samples(indices=range(40)))
    order = make_order(samples)
    torch.manual_seed(5)
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    epochs(make_loader(samples, order=order, num_workers=num_workers, device=CPU), order)
    assert torch.equal(state, torch.get_rng_state())
    assert np.array_equal(numpy_state, np.random.get_state()[1])


def test_generator_is_given_back_after_an_error_too():
    def explode(image):
        torch.rand(1)
        raise KeyError("a fault of the transform")

    state = torch.get_rng_state()
    with pytest.raises(KeyError, match="fault"):
        make_samples(transforms=[explode])[(0, 0)]
    assert torch.equal(state, torch.get_rng_state())


def test_resumed_epoch_gives_the_remaining_batches():
    samples = make_samples(indices=range(100))
    order = make_order(samples)
    loader = make_loader(samples, order=order, num_workers=2, device=CPU)
    order.set_epoch(3)
    whole = list(loader)
    order.set_epoch(3)
    order.set_position(4)
    assert_same(list(loader), whole[4:])


def test_wrappers_stack_and_draw_from_the_samples_own_stream():
    wrapped = Noisy(make_samples())
    assert torch.equal(wrapped[(4, 1)]["noise"], wrapped[(4, 1)]["noise"])
    assert not torch.equal(wrapped[(4, 1)]["noise"], wrapped[(4, 2)]["noise"])
    assert torch.equal(wrapped[(4, 1)]["input"], make_samples()[(4, 1)]["input"])
    assert len(wrapped) == len(digits()) and wrapped.skipped == []
    assert Noisy(SampleWrapper(make_samples()))[(4, 1)].keys() == {
        "input",
        "target",
        "index",
        "noise",
        "twice",
    }


def test_items_may_be_dicts_and_keep_their_keys():
    items = [{"input": torch.zeros(3, 2, 2), "target": 1, "mask": torch.ones(2, 2)}]
    sample = make_samples(items, transforms=[])[(0, 0)]
    assert sample["index"] == 0 and sample["mask"].sum() == 4 and sample["input"].dtype == torch.float32
    assert "index" not in items[0]


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ((1, 2, 3), "tuple of 3"),
        (5, "is a int"),
        ({"image": 1}, r"keys \['image'\]"),
        (("text", 1), "PILToTensor"),
    ],
)
def test_other_items_say_what_is_needed(item, message):
    with pytest.raises(ValueError, match=message):
        make_samples([item], transforms=[])[(0, 0)]


def test_pil_image_becomes_rgb_uint8():
    sample = make_samples([(Image.new("L", (5, 4), 9), 0)], transforms=[])[(0, 0)]
    assert sample["input"].shape == (3, 4, 5) and sample["input"].dtype == torch.uint8
    assert (sample["input"] == 9).all()


@pytest.fixture
def folder(tmp_path):
    """Two classes of five images; the second and third of class a are damaged."""
    for label in "ab":
        (tmp_path / label).mkdir()
        for number in range(5):
            Image.new("RGB", (8, 8), (number * 20, 0, 100)).save(tmp_path / label / f"{number}.png")
    (tmp_path / "a" / "1.png").write_bytes((tmp_path / "a" / "1.png").read_bytes()[:40])
    (tmp_path / "a" / "2.png").write_bytes(b"this is no image")
    return ImageFolder(str(tmp_path))


def test_corrupt_image_is_an_error_with_index_and_file(folder):
    with pytest.raises(CorruptImageError, match=r"image 2 \(.*a/2\.png\).*corrupt_images=skip"):
        make_samples(folder)[(2, 0)]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_corrupt_images_are_replaced_by_the_next_and_counted_once(folder, num_workers):
    samples = make_samples(folder, corrupt="skip", max_skipped=2)
    order = make_order(samples, batch_size=2, shuffle=False)
    loader = make_loader(samples, order=order, num_workers=num_workers, device=CPU)
    for batches in (list(loader), list(loader)):
        assert torch.cat([batch["index"] for batch in batches]).tolist() == [0, 3, 3, 3, 4, 5, 6, 7, 8, 9]
    assert samples.skipped == [1, 2]


def test_too_many_corrupt_images_stop_the_run(folder):
    samples = make_samples(folder, corrupt="skip", max_skipped=1)
    with pytest.raises(CorruptImageError, match=r"makes 2, and runtime\.max_skipped is 1"):
        samples.__getitems__([(position, 0) for position in range(10)])


def test_error_in_a_worker_reaches_the_user(folder):
    samples = make_samples(folder)
    loader = make_loader(samples, order=make_order(samples), num_workers=1, device=CPU)
    with pytest.raises(CorruptImageError, match=r"image [12] \(.*png\)"):
        list(loader)


def test_unknown_policy_lists_the_policies():
    with pytest.raises(ValueError, match=r"runtime\.corrupt_images: 'ignore'.*raise, skip"):
        make_samples(corrupt="ignore")


class Dying(SampleWrapper):
    def extend(self, sample):
        if sample["index"] == 20:
            os.kill(os.getpid(), signal.SIGKILL)
        return sample


def test_killed_worker_is_a_clear_error_and_no_hang():
    samples = Dying(make_samples(indices=range(40)))
    loader = make_loader(samples, order=make_order(samples, shuffle=False), num_workers=2, device=CPU)
    with pytest.raises(RuntimeError, match=r"runtime\.num_workers=2: a data loading worker died.*out of memory"):
        list(loader)


def test_signals_to_the_process_group_do_not_disturb_a_running_step():
    samples = make_samples(indices=range(64))
    loader = make_loader(samples, order=make_order(samples, batch_size=4), num_workers=1, device=CPU)
    batches = iter(loader)
    next(batches)
    worker = loader._iterator._workers[0]
    for number in (signal.SIGINT, signal.SIGUSR2):
        os.kill(worker.pid, number)
    assert len(list(batches)) == 15 and worker.is_alive()
    # From a stranger, as a scheduler's comes: torch's own handler lets only the parent end a worker quietly.
    subprocess.run(["sh", "-c", f"kill -TERM {worker.pid}"], check=True)
    deadline = time.monotonic() + 10
    while worker.is_alive() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert worker.exitcode == 0

"""Data sets held on the device: the same batches as sample by sample, bit for bit, or the reason why not."""

import functools
import logging
import struct

import numpy as np
import pytest
import torch
from engine_fixtures import equal, metrics, refusal, run, stage, train
from PIL import Image
from torchvision.transforms import v2

from distill_app.data import (
    BundledImages,
    EpochOrder,
    FakeImages,
    Loader,
    RotatedViews,
    Samples,
    draws,
    make_loader,
    resident,
)
from distill_app.data.resident import Images, Mismatch, NotResident, ResidentLoader, held_transforms
from distill_app.runs.statefile import load_file
from distill_app.verbs import call
from distill_app.world import World

CPU = torch.device("cpu")
FLIP = v2.RandomHorizontalFlip()
MIXUP = "+dataset.wrappers.mix={_target_: distill_app.data.Mixup, alpha: 0.4}"


class Pictures:
    """As torchvision keeps CIFAR (mode RGB) and MNIST (mode L): an array, of which items are made as PIL images."""

    def __init__(self, count=50, *, mode="RGB", size=(12, 12)):
        shape = (count, *size, 3) if mode == "RGB" else (count, *size)
        self.data = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        self.targets = [index % 10 for index in range(count)]
        self.opened = 0

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        self.opened += 1
        return Image.fromarray(self.data[index]), self.targets[index]


class Given:
    """Items as they are given, with an array of that many images."""

    def __init__(self, *items):
        self.items, self.data = items, np.zeros(len(items))

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


@functools.cache
def bundled(name, size):
    return BundledImages(name, "train", image_size=size)


def make_samples(dataset, transforms=(), **changes):
    return Samples(dataset, transforms=transforms, **({"seed": 0, "stage": "distill"} | changes))


def make_order(samples, **changes):
    return EpochOrder(len(samples), **({"batch_size": 16, "seed": 0, "stage": "distill", "shuffle": True} | changes))


def make_resident(samples, order, limit=None):
    transforms = held_transforms(samples)
    images = Images.read(samples.dataset, transforms, device=CPU, limit=limit)
    return ResidentLoader(samples, images, order=order)


def both(dataset, transforms=(), *, order=None, **changes):
    """The loaders of either kind, over one order."""
    samples = make_samples(dataset, transforms, **changes)
    order = make_order(samples, **(order or {}))
    return make_loader(samples, order=order, num_workers=0, device=CPU), make_resident(samples, order), order


def assert_same(theirs, mine):
    assert len(theirs) == len(mine) > 0
    for one, other in zip(theirs, mine, strict=True):
        assert list(one) == list(other) == ["input", "target", "index", "view", "rows"]
        assert one["view"] == other["view"] and np.array_equal(one["rows"], other["rows"])
        assert np.array_equal(one["rows"], one["index"].numpy())
        for key in ("input", "target", "index"):
            value = one[key]
            assert value.dtype == other[key].dtype and value.stride() == other[key].stride()
            assert torch.equal(value, other[key]), key


# The same batches


CASES = {
    "fashion_mini": (lambda: bundled("fashion_mini", 32), [v2.RandomCrop(32, padding=2), FLIP]),
    "digits": (lambda: bundled("digits", 8), [v2.RandomCrop(8, padding=1)]),
    "no transform": (lambda: bundled("digits", 8), []),
    "cifar": (Pictures, [v2.PILToTensor(), v2.RandomCrop(12, padding=4), FLIP]),
    "without PILToTensor": (Pictures, [v2.RandomCrop(12, padding=4), FLIP]),
    "mnist": (
        lambda: Pictures(mode="L"),
        [v2.PILToTensor(), v2.CenterCrop(16), v2.RandomCrop(16, padding=2), FLIP, v2.RGB()],
    ),
    "grey of one channel": (lambda: Pictures(mode="L"), [v2.ToImage(), FLIP]),
    "resized": (Pictures, [v2.PILToTensor(), v2.Resize(9), FLIP]),
    "crop without padding": (Pictures, [v2.RandomCrop((5, 12))]),
    "crop without choice": (Pictures, [v2.RandomCrop(12), FLIP]),
    "one side padded": (lambda: Pictures(size=(6, 11)), [v2.RandomCrop((7, 10), padding=(0, 1, 3, 2)), FLIP]),
    "crops and flips": (
        Pictures,
        [v2.RandomHorizontalFlip(0.3), v2.RandomCrop(10, padding=2), FLIP, v2.RandomCrop(11, padding=3)],
    ),
    "always and never": (Pictures, [v2.RandomHorizontalFlip(1.0), v2.RandomHorizontalFlip(0.0), FLIP]),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_batches_of_several_epochs_are_those_made_one_by_one_bit_for_bit(name):
    make, transforms = CASES[name]
    loader, mine, order = both(make(), transforms, indices=np.arange(7, 50))
    assert len(loader) == len(mine) == 3
    for epoch in range(3):
        order.set_epoch(epoch)
        batches = list(mine)
        assert_same(list(loader), batches)
        assert [len(batch["index"]) for batch in batches] == [16, 16, 11]


def test_the_last_grey_image_may_be_followed_by_one_in_colour(monkeypatch):
    monkeypatch.setattr(resident, "CHUNK", 10)
    pictures = Pictures(35)
    pictures.data[:30] = pictures.data[:30, :, :, :1]
    loader, mine, _ = both(pictures, [v2.RandomCrop(12, padding=1), FLIP])
    assert_same(list(loader), list(mine))
    assert mine.images.planes == 3


def test_grey_images_are_held_once_and_not_three_times():
    _, mine, _ = both(bundled("digits", 8))
    assert mine.images.pixels.numel() == 1200 * 9 * 9
    assert mine.how == "resident on cpu, 97.2 kB"


def test_a_seed_a_stage_and_a_view_are_other_images():
    arguments = {"transforms": [v2.RandomCrop(12, padding=4), FLIP], "order": {"shuffle": False}}

    def images(epoch=0, **changes):
        loader, mine, order = both(Pictures(), **arguments, **changes)
        order.set_epoch(epoch)
        batches = list(mine)
        assert_same(list(loader), batches)
        return batches[0]["input"]

    first = images()
    assert torch.equal(first, images())
    for other in (images(seed=1), images(stage="hint"), images(epoch=1)):
        assert not torch.equal(first, other)


def test_limited_views_come_again():
    order = {"views": 2, "shuffle": False}
    loader, mine, order = both(Pictures(), [v2.RandomCrop(12, padding=4)], order=order)
    epochs = []
    for epoch in range(4):
        order.set_epoch(epoch)
        epochs.append(list(mine))
        assert_same(list(loader), epochs[-1])
    assert_same(epochs[0], epochs[2])
    assert_same(epochs[1], epochs[3])
    assert not torch.equal(epochs[0][0]["input"], epochs[1][0]["input"])


def test_an_epoch_goes_on_at_a_position_and_with_the_next_one_from_its_start():
    loader, mine, order = both(Pictures(), [v2.RandomCrop(12, padding=4), FLIP])
    order.set_epoch(3)
    whole = list(loader)
    order.set_position(2)
    assert_same(whole[2:], list(mine))
    order.set_epoch(4)
    assert len(list(mine)) == len(mine) == 4


@pytest.mark.parametrize("block", [1, 20, 32])
def test_how_many_samples_are_prepared_together_changes_nothing(block, monkeypatch):
    loader, mine, _ = both(Pictures(), [v2.RandomCrop(12, padding=4), FLIP])
    monkeypatch.setattr(resident, "BLOCK", block)
    assert_same(list(loader), list(mine))


def test_two_ranks_see_their_shares():
    for rank in range(2):
        loader, mine, _ = both(Pictures(), [FLIP], order={"world": World(rank, 2), "batch_size": 16})
        assert_same(list(loader), list(mine))


def test_indices_of_more_than_31_bits_gather_the_same():
    loader, mine, _ = both(Pictures(), [v2.RandomCrop(12, padding=4)])
    half, whole = mine.images.row_starts, lambda *given: half(*given).astype(np.int64)
    object.__setattr__(mine.images, "row_starts", whole)
    assert_same(list(loader), list(mine))


def test_batches_leave_the_callers_generators_alone():
    torch.manual_seed(5)
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    _, mine, _ = both(Pictures(), [v2.RandomCrop(12, padding=4), FLIP])
    list(mine)
    assert torch.equal(state, torch.get_rng_state())
    assert np.array_equal(numpy_state, np.random.get_state()[1])


def test_every_image_is_opened_once_and_a_few_to_compare():
    pictures = Pictures(300)
    _, mine, order = both(pictures, [FLIP])
    for epoch in range(3):
        order.set_epoch(epoch)
        list(mine)
    assert pictures.opened == 300 + resident.COMPARED


def test_a_batch_that_is_changed_in_place_leaves_the_images_alone():
    loader, mine, _ = both(bundled("digits", 8), indices=range(20))
    for batch in mine:
        for key in ("input", "target", "index"):
            batch[key].zero_()
    assert_same(list(loader), list(mine))


# Random numbers


def test_draws_are_those_of_torch():
    seeds = np.random.default_rng(0).integers(0, 2**64, 300, dtype=np.uint64)
    words = draws.first_words(seeds, 5)
    for place, seed in enumerate(seeds.tolist()):
        torch.default_generator.manual_seed(seed)
        drawn = [int(torch.randint(0, 9, ())), float(torch.rand(1)), int(torch.randint(0, 5, size=()))]
        drawn += [float(torch.rand(())), int(torch.randint(0, 100_000, (1,)))]
        here = words[:, place : place + 1]
        mine = [draws.below(here[0], 9), draws.uniform(here[1]), draws.below(here[2], 5)]
        mine += [draws.uniform(here[3]), draws.below(here[4], 100_000)]
        assert [value.item() for value in mine] == drawn


def test_seeds_of_many_samples_are_those_of_each():
    samples = make_samples(bundled("digits", 8))
    views, indices = np.array([0, 3, 3, 2**40], np.uint64), np.array([5, 0, 1199, 7], np.uint64)
    many = samples.seed_of(views, indices)
    assert many.dtype == np.uint64
    assert many.tolist() == [samples.seed_of(*key) for key in zip(views.tolist(), indices.tolist(), strict=True)]


# What cannot be held


class WithTransform(Pictures):
    transform = v2.PILToTensor()


class Other(Samples):
    pass


REFUSED = {
    "wrapper": (lambda: RotatedViews(make_samples(Pictures())), "the wrapper RotatedViews works on single samples"),
    "own samples": (lambda: Other(Pictures(), seed=0, stage="a"), "Other works on single samples"),
    "skip": (lambda: make_samples(Pictures(), corrupt="skip"), "runtime.corrupt_images=skip"),
    "transform": (lambda: make_samples(Pictures(), [v2.ColorJitter(0.4)]), r"ColorJitter\(.* is none of RandomCrop, "),
    "order": (lambda: make_samples(Pictures(), [FLIP, v2.CenterCrop(8)]), "CenterCrop.* comes after a random one"),
    "fill": (lambda: make_samples(Pictures(), [v2.RandomCrop(12, padding=1, fill=9)]), "constant padding 0"),
    "mode": (
        lambda: make_samples(Pictures(), [v2.RandomCrop(12, padding=1, padding_mode="reflect")]),
        "constant padding 0",
    ),
    "if needed": (lambda: make_samples(Pictures(), [v2.RandomCrop(14, pad_if_needed=True)]), "without pad_if_needed"),
    "large crop": (lambda: make_samples(Pictures(), [v2.RandomCrop(14)]), "a crop of 14 pixels is larger"),
    "no memory": (lambda: make_samples(FakeImages(9, image_size=8, num_classes=3)), "FakeImages does not have all"),
    "list": (lambda: make_samples([(torch.zeros(3, 8, 8, dtype=torch.uint8), 1)]), "list does not have all images"),
    "own transform": (lambda: make_samples(WithTransform()), "WithTransform has a transform of its own"),
    "sizes": (
        lambda: make_samples(Given((Image.new("RGB", (8, 8)), 0), (Image.new("RGB", (9, 8)), 1))),
        "the images are of different sizes",
    ),
    "floats": (lambda: make_samples(Given((torch.zeros(3, 8, 8), 0))), r"torch.float32 \(3, 8, 8\), not uint8"),
    "keys": (
        lambda: make_samples(Given({"input": Image.new("RGB", (8, 8)), "target": 1, "mask": 0})),
        "more than image and label: mask",
    ),
    "labels": (lambda: make_samples(Given((Image.new("RGB", (8, 8)), 0.5))), "labels are not one whole number"),
    "size": (lambda: make_samples(Pictures(200)), "the images would take 0.1 MB, more than 50.0 kB"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_held_says_why(name):
    make, reason = REFUSED[name]
    samples = make()
    with pytest.raises(NotResident, match=reason):
        make_resident(samples, make_order(samples), limit=50_000)


def test_images_whose_size_changes_late_are_refused(monkeypatch):
    monkeypatch.setattr(resident, "CHUNK", 2)
    samples = make_samples(Given(*[(Image.new("RGB", (8, size)), 0) for size in (8, 8, 9, 9)]))
    with pytest.raises(NotResident, match="different sizes"):
        make_resident(samples, make_order(samples))


def other_draws(words, bound):
    return (words.astype(np.int64) + 1) % bound


def test_a_torch_that_draws_otherwise_is_noticed(monkeypatch):
    monkeypatch.setattr(draws, "below", other_draws)
    with pytest.raises(Mismatch, match=f"`input` differs .*, with torch {torch.__version__.split('+')[0]}"):
        both(Pictures(), [v2.RandomCrop(12, padding=4)])


def test_a_data_set_that_augments_its_images_itself_is_noticed():
    class Shaky(Pictures):
        def __getitem__(self, index):
            image, label = super().__getitem__(index)
            return v2.functional.rotate(image, 90 * int(torch.randint(4, ()))), label

    with pytest.raises(Mismatch, match="`input` differs"):
        both(Shaky())


# In a stage


def assert_epochs_are_equal(folder, *overrides, epochs=2):
    """Trains with and without, and returns how the images of the second were loaded."""
    results = []
    for mode in ("false", "auto"):
        with stage(folder, *overrides, f"dataset.resident={mode}") as built:
            results.append([(train(built, first=epoch), built.judge()) for epoch in range(epochs)])
            how = built.data.train.how
            assert isinstance(built.data.train, Loader) == (mode == "false")
    assert results[0] == results[1]
    return how


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["true", "false"])
def test_losses_and_metrics_of_a_stage_are_those_of_single_samples(tmp_path, layout):
    assert assert_epochs_are_equal(tmp_path, f"runtime.channels_last={layout}") == "resident on cpu, 97.2 kB"


@pytest.mark.slow
def test_workers_are_for_what_is_loaded_sample_by_sample(tmp_path):
    with stage(tmp_path, "runtime.num_workers=2") as built:
        assert isinstance(built.data.train, ResidentLoader)
    with stage(tmp_path, "runtime.num_workers=2", "dataset.resident=false") as built:
        assert built.data.train.num_workers == 2


@pytest.mark.slow
def test_a_run_with_a_teacher_cache_ends_the_same_and_reads_what_the_other_wrote(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("distill_app.training.outcome.final_plot", lambda folder: folder)
    overrides = ("stage.epochs=3", "stage.batch_size=32", "cache.views=2", "cache.enabled=true")
    for name, mode in (("alone", "false"), ("held", "auto")):
        for folder, cache in ((name, name), (f"{name}_again", "alone")):
            run(tmp_path / folder, *overrides, f"cache.folder={tmp_path / 'cache' / cache}", f"dataset.resident={mode}")
    weights = load_file(tmp_path / "alone" / "student.pt")
    for name in ("alone_again", "held", "held_again"):
        assert equal(load_file(tmp_path / name / "student.pt"), weights)
        assert metrics(tmp_path / name) == metrics(tmp_path / "alone")
    (one,), (other,) = ([place.name for place in (tmp_path / "cache" / name).iterdir()] for name in ("alone", "held"))
    assert one == other, "the fingerprint is the same"
    assert call("cache", ["list", str(tmp_path / "cache" / "held")]) == 0
    assert "200 of 2,400 rows (2 views)" in capsys.readouterr().out


def test_the_splits_of_a_data_set_share_one_tensor(tmp_path):
    with stage(tmp_path) as built:
        assert isinstance(built.data.judge, ResidentLoader) and isinstance(built.data.train, ResidentLoader)
        assert built.data.train.images is built.data.judge.images
        assert built.data.judged_on == "validation"


def test_samples_with_a_wrapper_are_loaded_one_by_one_and_judged_from_the_device(tmp_path, caplog):
    with caplog.at_level(logging.WARNING), stage(tmp_path, MIXUP) as built:
        assert built.data.train.how == "sample by sample, since the wrapper Mixup works on single samples"
        assert isinstance(built.data.judge, ResidentLoader)
    assert not [record for record in caplog.records if "resident" in record.getMessage()]


@pytest.mark.slow
def test_a_torch_that_draws_otherwise_loads_sample_by_sample_with_a_warning(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(draws, "below", other_draws)
    with caplog.at_level(logging.WARNING), stage(tmp_path) as built:
        assert isinstance(built.data.train, Loader) and isinstance(built.data.judge, ResidentLoader)
        assert "`input` differs" in built.data.train.how
    assert "dataset.resident: images are loaded sample by sample, which is slower: `input` differs" in caplog.text
    assert "dataset.resident: true was given, but `input` differs" in refusal(tmp_path, "dataset.resident=true")


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        ((MIXUP,), "the wrapper Mixup"),
        (("runtime.corrupt_images=skip",), "runtime.corrupt_images=skip"),
        (("dataset.train_transform=[{_target_: torchvision.transforms.v2.ColorJitter}]",), "the transform ColorJitter"),
        (("dataset.eval_transform=[{_target_: torchvision.transforms.v2.ColorJitter}]",), "the transform ColorJitter"),
        (("dataset=fake",), "FakeImages does not have all images in memory"),
    ],
)
@pytest.mark.slow
def test_true_names_the_key_and_the_reason_where_it_cannot_be(tmp_path, overrides, reason):
    text = refusal(tmp_path, *overrides, "dataset.resident=true")
    assert text.startswith(f"dataset.resident: true was given, but {reason}")
    assert "set dataset.resident=auto" in text
    with stage(tmp_path, *overrides) as built:
        assert Loader in (type(built.data.train), type(built.data.judge))


def test_auto_takes_no_more_than_its_limit_and_true_takes_more(tmp_path, monkeypatch):
    monkeypatch.setattr("distill_app.data.source.LIMIT", 50_000)
    with stage(tmp_path) as built:
        assert built.data.train.how == "sample by sample, since the images would take 97.2 kB, more than 50.0 kB"
    with stage(tmp_path, "dataset.resident=true") as built:
        assert isinstance(built.data.train, ResidentLoader)


@pytest.mark.parametrize(("value", "kind"), [("auto", ResidentLoader), ("true", ResidentLoader), ("false", Loader)])
@pytest.mark.slow
def test_every_choice_works_on_the_command_line_and_in_a_file(tmp_path, errors_of, value, kind):
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "mine.yaml").write_text(f"defaults: [digits, _self_]\nresident: {value}\n")
    small = ("stage=digits", "model@teacher=plain_32_64_128", "model@student=plain_8_16")
    assert errors_of(*small, "dataset=mine", config_dirs=[str(tmp_path)]) == []
    assert errors_of(*small, "dataset=digits", f"dataset.resident={value}") == []
    with stage(tmp_path, f"dataset.resident={value}") as built:
        assert type(built.data.train) is type(built.data.judge) is kind


@pytest.mark.slow
@pytest.mark.parametrize("value", ["ture", "null", "1", "{a: 1}"])
def test_other_choices_are_refused_by_the_check(tiny, errors_of, value):
    (error,) = errors_of(*tiny, f"dataset.resident={value}")
    assert error.startswith("dataset.resident: unknown choice") and error.endswith("(there are: auto, true, false)")


@pytest.mark.slow
def test_a_data_set_of_torchvision_on_disk_trains_the_same(tmp_path):
    raw = tmp_path / "fashion" / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for split, count in (("train", 100), ("t10k", 40)):
        images = generator.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = np.arange(count, dtype=np.uint8) % 10
        (raw / f"{split}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 2051, *images.shape) + images.tobytes())
        (raw / f"{split}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, count) + labels.tobytes())
    how = assert_epochs_are_equal(tmp_path, "dataset=fashion_mnist", f"dataset.root={tmp_path / 'fashion'}", epochs=1)
    assert how == "resident on cpu, 0.1 MB", "100 x 33 x 33 bytes"

"""Grey images: what networks of one channel get."""

import pytest
import torch
from engine_fixtures import run, stage

from distill_app.check.quick import check
from distill_app.config.tree import compose

GREY = ("dataset.channels=1",)
TINY = ("dataset=digits", "stage=digits", "model@teacher=plain_32_64_128", "model@student=plain_8_16", "prelude=none")


@pytest.mark.slow
@pytest.mark.parametrize("resident", ["auto", "false"])
def test_images_have_one_channel_and_networks_follow(tmp_path, resident):
    with stage(tmp_path, *GREY, f"dataset.resident={resident}") as built:
        batch = built.prepare(next(iter(built.data.train)))
        assert batch["input"].shape[1:] == (1, 8, 8)
        assert built.networks["student"].module.features[0][0].in_channels == 1


@pytest.mark.slow
def test_both_ways_of_loading_give_the_same_grey(tmp_path):
    batches = []
    for resident in ("true", "false"):
        with stage(tmp_path / resident, *GREY, f"dataset.resident={resident}") as built:
            batches.append(built.prepare(next(iter(built.data.train)))["input"])
    assert torch.equal(*batches)


@pytest.mark.slow
def test_a_run_on_grey_images_ends_with_a_table(tmp_path):
    summary = run(tmp_path, *GREY, "stage.epochs=1")
    assert summary["rows"][0]["accuracy"] is not None


@pytest.mark.slow
@pytest.mark.parametrize("overrides", [("student.net._target_=net_fixtures.OneChannel", "~student.net.widths")])
def test_a_network_of_ones_own_takes_them(overrides):
    cfg = compose([*TINY, *GREY, *overrides, "runtime.allow=[net_fixtures]", "teacher.allow_random=true"])
    assert list(check(cfg)) == []


def test_timm_gets_the_number_of_channels():
    cfg = compose([*TINY, *GREY, "model@student=timm", "teacher.allow_random=true", "dataset.image_size=8"])
    assert cfg.student.net.in_chans == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("dataset.channels=2", "dataset.channels: must be 1 or 3, got 2"),
        ("dataset.normalize.mean=[0.1,0.2]", "dataset.normalize.mean: 2 values for images of 3 channels"),
    ],
)
def test_what_cannot_be_is_told(override, told):
    assert told in list(check(compose([*TINY, override])))

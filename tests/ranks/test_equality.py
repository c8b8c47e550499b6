"""Two ranks on half batches are one process on whole ones: every method, and what changes the shape of a step."""

from typing import Any

import pytest
import torch
from engine_fixtures import resolved
from method_fixtures import ALL, PAIR, TOKENS, base
from ranks_fixtures import gap, outcomes

from distill_app.runs.checkpoint import Checkpoints

pytestmark = pytest.mark.slow

# 55 training images in batches of 16: the last one has 7, four for one rank and three for the other.
SIZES = ("dataset.train.size=55", "dataset.validation_fraction=0", "stage.lr=0.02")
METHODS = ("ce", *ALL)


def frozen(config: dict[str, Any]) -> dict[str, Any]:
    """The config with the batch norms of trained networks in eval mode, which know nothing of the batch."""
    if config["method"]["name"] in TOKENS:  # which have none
        return config
    for stage in config["method"]["stages"].values():
        trained = [name for name in stage["train"] or ["student"] if not name.startswith("adapters")]
        stage["freeze"] = [*(stage["freeze"] or []), *(f"{name}:torch.nn.BatchNorm2d" for name in trained)]
    return config


@pytest.fixture(scope="module")
def with_frozen_norms(tmp_path_factory) -> list[dict[str, Any]]:
    """In double precision: what differs is then a mistake, and no processor's order of summing float32."""
    cases = {method: frozen(resolved(f"method={method}", *SIZES, SYNC, base=base(method))) for method in METHODS}
    folder = tmp_path_factory.mktemp("frozen")
    return [outcomes(folder, cases, ranks=ranks, dtype="float64") for ranks in (1, 2)]


SYNC = "runtime.sync_batch_norm=true"  # adapters have norms, too


def first_totals(outcome: dict[str, Any]) -> list[float]:
    return [record["total"] for record in outcome["records"] if record["kind"] == "step" and record["step"] == 0]


@pytest.mark.parametrize("method", METHODS)
def test_two_ranks_are_one_process(with_frozen_norms, method):
    one, two = (found[method] for found in with_frozen_norms)
    assert first_totals(two) == pytest.approx(first_totals(one), rel=1e-12)
    assert len(one["gradients"]) == len(two["gradients"]) > 0
    for ours, theirs in zip(two["gradients"], one["gradients"], strict=True):
        assert {gradient.dtype for gradient in ours} == {torch.float64}
        assert gap(flat(ours), flat(theirs)) <= 1e-12
    for name, weights in one["weights"].items():
        assert gap(flat(two["weights"][name].values()), flat(weights.values())) <= 1e-12
    sizes = [record["batch_size"] for record in two["records"] if record["kind"] == "step"]
    assert sizes == [record["batch_size"] for record in one["records"] if record["kind"] == "step"]
    assert sizes[3] == 7, "there is an odd tail"


def flat(tensors: Any) -> Any:
    return torch.cat([each.flatten().double() for each in tensors])


# What is not the method's: the norms, the optimiser step, the data, the judging of epochs.
SETTINGS: dict[str, tuple[str, ...]] = {
    "sync": (SYNC,),
    "accumulation-clip": (SYNC, "stage.accumulation_steps=2", "stage.clip_grad_norm=0.1"),
    "cache": (SYNC, "cache.enabled=true", "cache.views=1", "stage.epochs=3"),
    "workers": (SYNC, "runtime.num_workers=2"),
    "best-ema": (SYNC, "stage.select=best", "stage.ema.decay=0.5", "stage.epochs=3", "dataset.validation_fraction=0.2"),
    "unfused": (SYNC, "optimizer@stage.optimizer=adam", "+stage.optimizer.foreach=false", "stage.lr=0.0001"),
    "gradient-norms": (SYNC, "runtime.gradient_norms_every=1"),
    "schedule": (SYNC, "stage.epochs=2", "scheduler@stage.scheduler=onecycle"),
    "drop-last": (SYNC, "stage.drop_last=true"),
    "own-input": (SYNC, "teacher.input={size: 16, mean: [0.5,0.5,0.5], std: [0.2,0.2,0.2]}", "student.input.size=12"),
}


@pytest.fixture(scope="module")
def with_settings(tmp_path_factory) -> list[dict[str, Any]]:
    folder, pair = tmp_path_factory.mktemp("settings"), (*PAIR, "model@student=plain_8_16")
    found = []
    for ranks in (1, 2):
        place = f"cache.folder={folder}/cache_{ranks}"
        cases = {name: resolved("method=kd", *SIZES, *more, place, base=pair) for name, more in SETTINGS.items()}
        found.append(outcomes(folder, cases, ranks=ranks))
    return found


@pytest.mark.parametrize("setting", SETTINGS)
def test_settings_are_those_of_one_process(with_settings, setting):
    one, two = (found[setting] for found in with_settings)
    for name, weights in one["weights"].items():
        # Adam makes a step of what is zero but for rounding: the bias in front of a norm.
        assert gap(flat(two["weights"][name].values()), flat(weights.values())) <= (
            1e-4 if setting == "unfused" else 1e-5
        )
    ours, theirs = two["records"], one["records"]
    assert [each["kind"] for each in ours] == [each["kind"] for each in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        if mine["kind"] == "step":
            assert mine["losses"] == pytest.approx(other["losses"], rel=1e-4)
            assert mine.get("gradient_norms", {}) == pytest.approx(other.get("gradient_norms", {}), rel=1e-3)
            assert (mine["lr"], mine["batch_size"]) == (other["lr"], other["batch_size"])
        elif mine["kind"] == "epoch":
            assert mine["metrics"] == pytest.approx(other["metrics"], rel=1e-4, abs=1e-6)
        else:
            assert mine["accuracy"] == pytest.approx(other["accuracy"])


def test_norms_of_each_rank_are_another_experiment_and_their_statistics_are_averaged(tmp_path):
    pair = (*PAIR, "model@student=plain_8_16")
    cases = {"local": resolved("method=kd", *SIZES, base=pair)}
    one, two = (outcomes(tmp_path, cases, ranks=ranks)["local"] for ranks in (1, 2))
    assert gap(flat(two["gradients"][0]), flat(one["gradients"][0])) > 1e-3
    # The mean of the means of both halves is that of the whole, but for what the weights have become.
    name = next(name for name in one["weights"]["student.pt"] if name.endswith("running_mean"))
    assert gap(two["weights"]["student.pt"][name], one["weights"]["student.pt"][name]) < 0.15


def test_a_frozen_network_in_parts_says_the_same_and_no_part_gets_into_a_checkpoint(tmp_path):
    shape = (*PAIR, "model@student=plain_8_16", "model@teacher=resnet18_small", "dataset.image_size=32")
    cases = {
        how: resolved("method=fitnet", *SIZES, f"runtime.parallel={how}", "checkpoint.every_steps=1", base=shape)
        for how in ("ddp", "fsdp")
    }
    found = outcomes(tmp_path, cases, ranks=2)
    here, whole = zip(*found["fsdp"]["held"], strict=True)
    assert len(here) == 2 and all(0.45 < own / of < 0.55 for own, of in zip(here, whole, strict=True))
    assert found["ddp"]["held"] == []
    for ours, theirs in zip(found["fsdp"]["gradients"], found["ddp"]["gradients"], strict=True):
        assert gap(flat(ours), flat(theirs)) <= 1e-6
    weights = [flat(found[how]["weights"]["student.pt"].values()) for how in ("fsdp", "ddp")]
    assert gap(*weights) <= 1e-6
    state = Checkpoints(tmp_path / "runs" / "fsdp_2" / "checkpoints").load("last")
    assert "student" in state["parts"]["networks"] and "teacher" in state["parts"]["frozen"]

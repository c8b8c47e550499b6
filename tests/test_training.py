"""The innermost loop: what it asks of the device, and what it does with a loss that is not finite."""

import time

import pytest
import torch
from engine_fixtures import mostly_slow, network, stage
from test_method_configs import PAPER, base
from torch.utils._python_dispatch import TorchDispatchMode

from distill_app.training import EpochTraining, NonFiniteLoss

# What makes the host wait for a GPU: values that become numbers, and sizes that depend on values.
WAITING = {"aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::unique", "aten::equal"}


class CountWaits(TorchDispatchMode):
    """Counts operations that wait for the device."""

    def __init__(self):
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.name().split(".")[0]
        by_mask = name == "aten::index" and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        if name in WAITING or by_mask:
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


class Quiet:
    """A tracker that is told nothing."""

    def advance(self):
        pass

    def step(self, **values):
        self.last = values


class Loaded(list):
    """Batches that are there already."""

    def close(self):
        pass


def loaded(built) -> None:
    """Puts the epoch's batches in the loader's place: reading a sample on the host is no wait for the device."""
    built.begin_epoch(0)
    built.data.train = Loaded(built.data.train)


QUICK = ("kd", "crd")
METHODS = [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in PAPER]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("precision", mostly_slow(["fp32", "bf16", "fp16"], "fp32", "fp16"))
def test_no_step_between_log_points_waits_for_the_device(tmp_path, method, precision):
    overrides = (f"method={method}", f"runtime.precision={precision}", "stage.clip_grad_norm=1.0")
    with stage(tmp_path, *overrides, "dataset.train.size=96", base=base(method)) as built:
        loaded(built)
        steps = EpochTraining(built, 0, tracker=Quiet(), log_every=1000).steps()
        next(steps)
        next(steps)  # losses set themselves up in the first
        with CountWaits() as waits:
            next(steps)
            next(steps)
        assert waits.seen == []


def test_a_log_point_fetches_what_it_shows(tmp_path):
    with stage(tmp_path, "method=kd") as built:
        loaded(built)
        tracker = Quiet()
        with CountWaits() as waits:
            next(EpochTraining(built, 0, tracker=tracker, log_every=1).steps())
        assert len(waits.seen) >= 3
        assert tracker.last["losses"].keys() == {"ce", "kd"} and 0 <= tracker.last["data_wait"] <= 1


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("optimizer", ["nesterov", "adamw"])
@pytest.mark.parametrize("fused", [True, False])
def test_weights_are_those_before_the_first_bad_step_however_late_it_is_seen(tmp_path, optimizer, fused, precision):
    overrides = (f"optimizer@stage.optimizer={optimizer}", f"+stage.optimizer.fused={fused}", "stage.batch_size=16")
    overrides = (*overrides, f"runtime.precision={precision}")
    with stage(tmp_path, "method=ce", *overrides) as built:
        loaded(built)
        built.data.train[2]["input"] = built.data.train[2]["input"].float() * float("nan")
        steps, kept = EpochTraining(built, 0, tracker=Quiet(), log_every=1000).steps(), {}
        with pytest.raises(NonFiniteLoss, match="epoch 1, step 3: ce") as caught:
            for number, _ in enumerate(steps):
                if number == 1:
                    kept = {n: p.detach().clone() for n, p in network(built, "student").named_parameters()}
        assert f"sample indices {built.data.train[2]['index'].tolist()}" in str(caught.value)
        weights = dict(network(built, "student").named_parameters())
        assert len(built.data.train) > 4 and kept
        assert all(weights[name].equal(value) for name, value in kept.items())


def test_waiting_for_data_is_measured_and_told(tmp_path):
    class Slow(list):
        def __iter__(self):
            for batch in super().__iter__():
                time.sleep(0.05)
                yield batch

    def share(built, batches):
        built.data.train = batches
        training = EpochTraining(built, 0, tracker=Quiet(), log_every=1000)
        for _ in training.steps():
            pass
        built.data.train = train
        return training.data_wait

    with stage(tmp_path, "method=ce", "dataset.resident=false") as built:
        train, batches = built.data.train, list(built.data.train)
        assert 0 < share(built, batches) < 0.3 < share(built, Slow(batches)) < 1
        assert built.data_wait_hint(0.1) is None
        assert "runtime.num_workers=2" in built.data_wait_hint(0.5)
    with stage(tmp_path, "method=ce") as built:
        assert built.data_wait_hint(0.5) is None, "no worker would help"

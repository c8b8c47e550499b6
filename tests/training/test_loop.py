"""The innermost loop: what it asks of the device, and what it does with a loss that is not finite."""

import time

import pytest
import torch
from engine_fixtures import network, stage
from method_fixtures import ALL, base
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from distill_app.errors import NonFiniteLoss
from distill_app.training.loop import EpochTraining
from distill_app.training.progress import Progress
from distill_app.training.watch import DataWait, IdleTime

# What makes the host wait for a GPU: values that become numbers, and sizes that depend on values.
WAITING = {
    *("aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::equal", "aten::allclose"),
    *("aten::_unique", "aten::_unique2", "aten::unique_dim", "aten::unique_consecutive", "aten::bincount"),
    *("aten::histc", "aten::argwhere", "aten::is_nonzero"),
}
FETCHING = {"cpu", "numpy", "tolist", "item", "__bool__", "__float__", "__int__", "__index__"}


class _Operators(TorchDispatchMode):
    def __init__(self, seen: list[str]):
        super().__init__()
        self.seen = seen

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name, _, overload = func.name().partition(".")
        by_mask = name in ("aten::index", "aten::index_put", "aten::index_put_") and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        by_counts = name == "aten::repeat_interleave" and overload == "Tensor" and not (kwargs or {}).get("output_size")
        if name in WAITING or by_mask or by_counts:
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


class _Methods(TorchFunctionMode):
    """What no operator shows where the device is the CPU."""

    def __init__(self, seen: list[str], host: set[int]):
        super().__init__()
        self.seen, self.host = seen, host

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = getattr(func, "__name__", "")
        # As a word: a device would be that of the training, which is the CPU here.
        to_host = name == "to" and "cpu" in [
            word for word in (*args[1:], *(kwargs or {}).values()) if type(word) is str
        ]
        if (name in FETCHING or to_host) and args[0].data_ptr() not in self.host:
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


class CountWaits:
    """Counts what waits for the device; `host` are tensors that are on the host wherever the training runs."""

    def __init__(self, *host: torch.Tensor):
        self.seen: list[str] = []
        self._modes = [_Operators(self.seen), _Methods(self.seen, {tensor.data_ptr() for tensor in host})]

    def __enter__(self):
        for mode in self._modes:
            mode.__enter__()
        return self

    def __exit__(self, *exc):
        for mode in reversed(self._modes):
            mode.__exit__(*exc)


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.item(),
        lambda x: bool(x.sum() > 0),
        lambda x: x.tolist(),
        lambda x: x.cpu(),
        lambda x: x.to("cpu", copy=True),
        lambda x: x.numpy(),
        lambda x: x.unique(),
        lambda x: x.unique_consecutive(),
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: x.masked_select(x > 0),
        lambda x: torch.bincount(x.long()),
        lambda x: torch.repeat_interleave(x, x.long()),
        lambda x: torch.allclose(x, x),
        lambda x: torch.equal(x, x),
        lambda x: x.index_put_((x > 0,), x[:1]),
    ],
)
def test_ways_to_wait_are_counted(wait):
    x = torch.ones(1)
    with CountWaits() as waits:
        wait(x)
    assert waits.seen


def test_what_does_not_wait_is_not_counted():
    x, on_host = torch.ones(3), torch.arange(3)
    with CountWaits(on_host) as waits:
        torch.where(x > 0, x, 0).softmax(0).to(torch.float16).masked_fill(x > 0, 1.0).mean()
        on_host.cpu().numpy()
    assert waits.seen == []


class Quiet:
    """A tracker that is told nothing."""

    said = None

    def advance(self):
        pass

    def step(self, **values):
        self.last = values

    def info(self, text):
        self.said = text


class Loaded(list):
    """Batches that are there already."""

    def close(self):
        pass


def loaded(built) -> None:
    """Puts the epoch's batches in the loader's place: reading a sample on the host is no wait for the device."""
    built.begin_epoch(0)
    built.data.train = Loaded(built.data.train)


def on_host(built) -> list[torch.Tensor]:
    """The indices of the samples, which never leave the host."""
    return [batch["index"] for batch in built.data.train]


QUICK = ("kd", "crd")
METHODS = [pytest.param(name, "fp16", marks=[] if name in QUICK else pytest.mark.slow) for name in ALL]


# fp16 is all that the others are, and has a scaler besides.
@pytest.mark.parametrize(("method", "precision"), [*METHODS, ("kd", "fp32"), ("kd", "bf16")])
def test_no_step_between_log_points_waits_for_the_device(tmp_path, monkeypatch, method, precision):
    # Drawn on the host, which has no device to wait for; here both are one.
    for module in ("losses.contrastive", "adapters.generation"):
        monkeypatch.setattr(f"distill_app.{module}.common_number", lambda: 7)
    overrides = (f"method={method}", f"runtime.precision={precision}", "stage.clip_grad_norm=1.0")
    with stage(tmp_path, *overrides, "dataset.train.size=96", base=base(method)) as built:
        loaded(built)
        steps = EpochTraining(built, Progress(built.plan.name, epoch=0), tracker=Quiet(), log_every=1000).steps()
        next(steps)
        next(steps)  # losses set themselves up in the first
        with CountWaits(*on_host(built)) as waits:
            next(steps)
            next(steps)
        assert waits.seen == []


@pytest.mark.slow
@pytest.mark.parametrize("extra", [(), ("cache.top_k=3",)], ids=["whole", "top_k"])
def test_no_step_of_a_replayed_epoch_waits_for_the_device(tmp_path, extra):
    cache = ("cache.enabled=true", f"cache.folder={tmp_path / 'cache'}", "cache.views=1", *extra)
    with stage(tmp_path, "method=kd", "stage.batch_size=20", *cache) as built:
        loaded(built)
        for _ in EpochTraining(built, Progress(built.plan.name, epoch=0), tracker=Quiet(), log_every=1000).steps():
            pass
        loaded(built)
        steps = EpochTraining(built, Progress(built.plan.name, epoch=1), tracker=Quiet(), log_every=1000).steps()
        next(steps)
        with CountWaits(*on_host(built)) as waits:
            next(steps)
            next(steps)
        assert waits.seen == []


def test_a_log_point_fetches_what_it_shows(tmp_path):
    with stage(tmp_path, "method=kd") as built:
        loaded(built)
        tracker = Quiet()
        with CountWaits() as waits:
            next(EpochTraining(built, Progress(built.plan.name, epoch=0), tracker=tracker, log_every=1).steps())
        assert len(waits.seen) >= 3
        assert tracker.last["losses"].keys() == {"ce", "kd"} and 0 <= tracker.last["data_wait"] <= 1


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("optimizer", ["nesterov", "adamw"])
@pytest.mark.parametrize("fused", [True, False])
def test_weights_are_those_before_the_first_bad_step_however_late_it_is_seen(tmp_path, optimizer, fused, precision):
    overrides = (f"optimizer@stage.optimizer={optimizer}", f"+stage.optimizer.fused={fused}", "stage.batch_size=16")
    overrides = (*overrides, f"runtime.precision={precision}")
    with stage(tmp_path, "method=ce", *overrides) as built:
        loaded(built)
        built.data.train[2]["input"] = built.data.train[2]["input"].float() * float("nan")
        steps, kept = (
            EpochTraining(built, Progress(built.plan.name, epoch=0), tracker=Quiet(), log_every=1000).steps(),
            {},
        )
        with pytest.raises(NonFiniteLoss, match="epoch 1, step 3: ce") as caught:
            for number, _ in enumerate(steps):
                if number == 1:
                    kept = {n: p.detach().clone() for n, p in network(built, "student").named_parameters()}
        assert f"sample indices {built.data.train[2]['index'].tolist()}" in str(caught.value)
        weights = dict(network(built, "student").named_parameters())
        assert len(built.data.train) > 4 and kept
        assert all(weights[name].equal(value) for name, value in kept.items())


class Root(torch.nn.Module):
    """Zero, with a gradient that is not a number."""

    def forward(self, student: torch.Tensor) -> torch.Tensor:
        return (student - student.detach()).abs().sum().sqrt()


@pytest.mark.slow
@pytest.mark.parametrize(
    "more", [(), ("stage.clip_grad_norm=1.0",), ("stage.accumulation_steps=2",)], ids=["plain", "clip", "accumulation"]
)
@pytest.mark.parametrize("fused", [True, False])
def test_a_gradient_that_is_not_finite_is_seen_though_the_loss_is(tmp_path, fused, more):
    term = {"loss": {"_target_": f"{__name__}.Root"}, "inputs": {"student": "student.logits"}, "weight": 1.0}
    overrides = (f"+stage.optimizer.fused={fused}", *more, f"runtime.allow=[{__name__}]", "stage.batch_size=16")
    with stage(tmp_path, *overrides, distill={"losses": {"root": term}}) as built:
        loaded(built)
        before = {name: value.clone() for name, value in network(built, "student").named_parameters()}
        steps = EpochTraining(built, Progress(built.plan.name, epoch=0), tracker=Quiet(), log_every=1000).steps()
        with pytest.raises(
            NonFiniteLoss, match=r"the gradient of the loss is not finite.*epoch 1, step [12]: "
        ) as told:
            for _ in steps:
                pass
        assert "the losses themselves are (ce = " in str(told.value) and "root = 0" in str(told.value)
        after = dict(network(built, "student").named_parameters())
        assert all(after[name].equal(value) for name, value in before.items())


@pytest.mark.slow
def test_fp16_that_takes_no_step_any_more_says_so(tmp_path):
    overrides = ("method=ce", "runtime.precision=fp16", "method.stages.train.losses.ce.weight=1e30")
    with stage(tmp_path, *overrides, "stage.batch_size=4") as built:
        loaded(built)
        with pytest.raises(NonFiniteLoss, match=r"precision=fp16: the gradients of the last \d+ steps of stage"):
            for epoch in range(9):
                at = Progress(built.plan.name, epoch=epoch)
                for _ in EpochTraining(built, at, tracker=Quiet(), log_every=10).steps():
                    pass


@pytest.mark.slow
def test_waiting_for_data_is_measured_and_told(tmp_path, monkeypatch):
    tracker = Quiet()

    class Slow(list):
        def __iter__(self):
            for batch in super().__iter__():
                time.sleep(0.05)
                yield batch

    def share(built, batches):
        built.data.train = batches
        training = EpochTraining(built, Progress(built.plan.name, epoch=0), tracker=tracker, log_every=1000)
        for _ in training.steps():
            pass
        built.data.train = train
        return training.data_wait

    with stage(tmp_path, "method=ce", "dataset.resident=false", "stage.epochs=8") as built:
        train, batches = built.data.train, list(built.data.train)
        assert 0 < share(built, batches) < 0.3 and tracker.said is None
        for _ in range(2):
            assert 0.3 < share(built, Slow(batches)) < 1 and tracker.said is None, "too little to speak of"
        monkeypatch.setattr("distill_app.training.watch.WAITED", 0.25)
        assert share(built, Slow(batches)) > 0.3
        assert "runtime.num_workers=2" in tracker.said, "not only of the first epoch, which compiles or fills a cache"
        tracker.said = None
        assert share(built, Slow(batches)) > 0.3 and tracker.said is None, "said once"
        monkeypatch.setattr("distill_app.training.loop.LONG", 0.0)
        built.data.train, built.data_wait = Slow(batches), DataWait("distill", loader=None, workers=0)
        built.data_wait.seconds = 1.0
        told = [
            tracker.said
            for _ in EpochTraining(built, Progress(built.plan.name, epoch=0), tracker=tracker, log_every=1).steps()
        ]
        assert len(told) > 1 and told[0], "while a long epoch goes on"
        built.data.train = train
    with stage(tmp_path, "method=ce") as built:
        assert built.data_wait.hint(9.0, of=10.0) is None, "no worker would help"


def test_a_gpu_counts_by_its_own_clock_how_long_it_had_nothing_to_do(monkeypatch):
    clock = iter([10.0, 10.0, 60.0, 75.0, 80.0, 80.0])  # milliseconds at which it comes past the marks

    class Event:
        def __init__(self, *, enable_timing):
            assert enable_timing

        def record(self):
            self.at = next(clock)

        def elapsed_time(self, end):
            return end.at - self.at

    monkeypatch.setattr(torch.cuda, "Event", Event)
    idle = IdleTime(torch.device("cuda"))
    for _ in range(2):  # it was busy in the first step, and waited for the batch of the second
        idle.begins()
        idle.ends()
    assert idle.seconds() == pytest.approx(0.015) and idle.seconds() == 0
    idle.begins()
    assert idle.seconds() == 0, "the batch is not there"
    idle.ends()
    assert idle.seconds() == 0


def test_the_end_of_an_epoch_is_no_wait():
    idle = IdleTime(torch.device("cpu"))
    idle.begins()
    time.sleep(0.05)
    idle.begins()  # of the next one
    idle.ends()
    assert idle.seconds() < 0.05

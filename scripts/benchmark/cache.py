"""The benchmark's workloads of what is stored: the teacher cache, its files, and the memories of CRD."""

import itertools
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from distill_app.cache.layout import Layout
from distill_app.cache.store import TapStore
from distill_app.losses import ContrastiveRepresentation

from .limit import CachedKD, Loop
from .product import Product
from .rival import FilePerSample, kd_config
from .timing import WARMUP, Contender
from .workloads import FORMS, Plan, images_of, missing, network, result, rival

ROWS = 256  # rows a call


def cache(plan: Plan) -> dict[str, Any]:
    """Whole epochs of KD: with the teacher, with its answers stored on the way, with stored answers, without either."""
    size = replace(plan.size, samples=plan.batches * plan.size.batch)
    images, enabled = images_of(size), ["method=kd", "cache.enabled=true"]
    overrides = {
        "ours_uncached": ["method=kd"],
        # Every epoch shows a view that no epoch before has shown, and so fills the cache all the time.
        "ours_filling": [*enabled, f"cache.views={WARMUP + plan.rounds}"],
        "ours_cached": enabled,
        "ours_alone": ["method=ce"],
    }
    ours = {name: Product(size, more, folder=plan.folder / name) for name, more in overrides.items()}
    contenders = {name: Contender(product.epoch) for name, product in ours.items()}
    student, logits = network(ours["ours_cached"], "student"), torch.randn(size.samples, size.classes).half()
    common: dict[str, Any] = {"images": images, "batch": size.batch, "form": FORMS[""]}
    limits = {"limit_alone": Loop(student, None, **common), "limit_cached": CachedKD(logits, student, **common)}
    contenders |= {name: Contender(several(limit.step, plan.batches)) for name, limit in limits.items()}
    if not (absent := missing("1.1.4")):
        loaders = {"uncached": {}, "cached": {"cache_output": str(plan.folder / "torchdistill")}}
        for name, loader in loaders.items():
            other = rival(ours["ours_cached"], images, config=kd_config(), loader=loader)
            contenders[f"torchdistill_{name}"] = Contender(other.epoch)
    return result(plan.race(contenders), missing=absent)


def several(step: Callable[[], object], count: int) -> Callable[[], None]:
    """Several steps as one."""

    def run() -> None:
        for _ in range(count):
            step()

    return run


def store(plan: Plan) -> dict[str, Any]:
    """Seconds a row of logits, to and from files; rows in random order, `ROWS` a call, files warm."""
    size = plan.size
    layout = Layout(1, size.samples, {"values": ("<f2", (1, size.classes))})
    ours = TapStore(plan.folder / "ours", layout=layout, salt="benchmark", about={})
    raw = np.lib.format.open_memmap(plan.folder / "raw.npy", mode="w+", dtype="<f2", shape=(size.samples, size.classes))
    actions: dict[str, Callable[[np.ndarray, np.ndarray], object]] = {
        "ours_write": lambda rows, values: ours.write(0, rows, {"values": values[:, None]}),
        "ours_read": lambda rows, _: ours.read(0, rows),
        "raw_write": raw.__setitem__,
        "raw_read": lambda rows, _: raw[rows],
    }
    if not (absent := missing("1.1.4")):
        files = FilePerSample(plan.folder / "torchdistill", samples=size.samples, classes=size.classes)
        actions |= {"torchdistill_write": files.write, "torchdistill_read": files.read}
    times: dict[str, list[float]] = {}
    for order, kind in enumerate(("write", "read")):  # all is written before anything is read, in another order
        some = {name: action for name, action in actions.items() if name.endswith(kind)}
        times |= plan.race({name: Contender(calls(action, plan, order=order)) for name, action in some.items()})
    values = {"ours_bytes": sum(file.stat().st_size for file in ours.folder.glob("*.npy")) / size.samples}
    if not absent:
        values |= files.bytes()
    return result(
        {name: [each / plan.rows for each in some] for name, some in times.items()}, values=values, missing=absent
    )


def calls(action: Callable[[np.ndarray, np.ndarray], object], plan: Plan, *, order: int) -> Callable[[], None]:
    """An action on rows that were not there before, `plan.rows` of them each time it is called.

    Args:
        action: Takes indices of rows, and values for them.
        plan: The rows of all rounds are the same in every order.
        order: Its seed.
    """
    rows = np.random.default_rng(0).permutation(plan.size.samples)[: (WARMUP + plan.rounds) * plan.rows]
    rows = np.random.default_rng(order).permutation(rows)
    values = np.random.default_rng(2).standard_normal((ROWS, plan.size.classes)).astype(np.float16)
    left = iter(np.split(rows, range(ROWS, len(rows), ROWS)))

    def run() -> None:
        for some in itertools.islice(left, plan.rows // ROWS):
            action(some, values)

    return run


def crd_setup(plan: Plan) -> dict[str, Any]:
    """CRD's memories for a data set of this size: seconds, and MB at the peak beyond the two banks."""
    size = plan.size
    labels = np.random.default_rng(0).integers(0, size.classes, size.samples)
    shapes = {"student": (size.batch, 128), "teacher": (size.batch, 128)}
    before, seconds, banks = peak_mb(), [], 0.0
    for _ in range(min(plan.rounds, 3)):
        start = time.process_time()
        loss = ContrastiveRepresentation(labels, shapes, negatives=plan.negatives)
        seconds.append(time.process_time() - start)
        banks = 4e-6 * (loss.student_memory.numel() + loss.teacher_memory.numel())
        del loss
    values = {"seconds": statistics.median(seconds), "extra_mb": peak_mb() - before - banks, "banks_mb": banks}
    return result({"ours": seconds}, values=values)


def peak_mb() -> float:
    """The most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6

"""Timing side by side: CPU seconds of this process, implementations in turn, ratios within a round."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

WARMUP = 2  # rounds that are not counted


@dataclass
class Contender:
    """An implementation: what is timed, what has to happen before it, and how often in a round.

    The time of `before` is kept apart, under the name with "_before" behind it.
    """

    run: Callable[[], object]
    before: Callable[[], object] | None = None
    repeat: int = 1


class Spread(NamedTuple):
    """The median of a figure over rounds, and the range of the middle 80 %."""

    median: float
    p10: float
    p90: float


def interleaved(contenders: Mapping[str, Contender], *, rounds: int) -> dict[str, list[float]]:
    """CPU seconds of every contender in every round, of one `run` each.

    A round runs all of them, every second one in reverse order. CPU time does not count what other processes do with
    the machine, and what remains of their influence (frequency, caches) meets all contenders of a round alike.
    """
    times: dict[str, list[float]] = {}
    for number in range(WARMUP + rounds):
        names = list(contenders) if number % 2 == 0 else list(contenders)[::-1]
        for name in names:
            for key, seconds in _timed(name, contenders[name]).items():
                if number >= WARMUP:
                    times.setdefault(key, []).append(seconds)
    return times


def _timed(name: str, contender: Contender) -> dict[str, float]:
    spent = {name: 0.0}
    for _ in range(contender.repeat):
        start = time.process_time()
        if contender.before is not None:
            contender.before()
            spent[f"{name}_before"] = spent.get(f"{name}_before", 0.0) + time.process_time() - start
            start = time.process_time()
        contender.run()
        spent[name] += time.process_time() - start
    return {key: seconds / contender.repeat for key, seconds in spent.items()}


def profiled(contenders: Mapping[str, Contender]) -> None:
    """Prints where the time of every contender goes, by operator."""
    for name, contender in contenders.items():
        for _ in range(WARMUP):
            contender.run()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            for _ in range(contender.repeat):
                contender.run()
        table = profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=20, max_name_column_width=40)
        print(f"{name}\n{table}", flush=True)


def spread(values: Sequence[float]) -> Spread:
    """Median, 10th and 90th percentile."""
    ordered = sorted(values)
    last = len(ordered) - 1
    return Spread(statistics.median(ordered), ordered[round(0.1 * last)], ordered[round(0.9 * last)])


def ratio(first: Sequence[float], second: Sequence[float]) -> Spread:
    """Of the ratios of two contenders, round by round."""
    return spread([a / b for a, b in zip(first, second, strict=True)])

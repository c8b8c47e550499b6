"""What networks cost where they are used: parameters, size, floating-point operations, and time on this machine."""

import logging
import platform
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from typing import Any

import torch
from torch import Tensor

from distill_app.errors import SettingError
from distill_app.networks.answers import Answers
from distill_app.networks.flops import flops
from distill_app.networks.modes import evaluating, untouched
from distill_app.networks.network import Network, parameter_count
from distill_app.runs.records import processor
from distill_app.tasks.base import Batch, Task

BATCHES = (1, 32)
_SECONDS = 1.0  # of measuring, for each network and batch size


@torch.no_grad()
def costs(
    task: Task, networks: Sequence[Network], batch: Batch, *, device: torch.device, seconds: float = _SECONDS
) -> list[dict[str, Any]]:
    """The cost of each of some networks, measured one after the other on the same images.

    Times are medians of `torch.utils.benchmark`, which warms up, waits for the device, and repeats a call until it has
    taken long enough; they are of the forward alone, in eval mode and fp32, with as many threads as torch has here.

    Args:
        task: Says how a network is asked.
        networks: In the order of the result.
        batch: Prepared, of one image at least.
        device: Where they run.
        seconds: How long each measurement goes on.

    Returns:
        For each network `network`, `parameters`, `bytes` (parameters and buffers), `flops` (of one image; a
        multiplication and an addition are two), `seconds` (batch size as text -> median, of the whole batch), `spread`
        (the same, interquartile range), and `on`, what was measured on.

    Raises:
        SettingError: What goes into the networks is no batch of images.
    """
    images = batch.get("input")
    if not isinstance(images, Tensor) or images.dim() != 4:
        raise SettingError("the input is no batch of images")
    return [_cost(task, network, images[:1], device=device, seconds=seconds) for network in networks]


def _cost(task: Task, network: Network, image: Tensor, *, device: torch.device, seconds: float) -> dict[str, Any]:
    inputs = {size: {"input": image.repeat(size, 1, 1, 1)} for size in BATCHES}
    with evaluating(network.module), untouched(network.module), closing(Answers(network, task.answer)) as answers:

        def call(size: int) -> Any:
            return task.call(answers, inputs[size], name=network.name)

        call(1)  # hooks that are not needed go with the first answer
        count = flops(partial(call, 1))
        times = {size: _time(partial(call, size), seconds=seconds) for size in BATCHES}
    stored = [*network.module.parameters(), *network.module.buffers()]
    return {
        "network": network.name,
        "parameters": parameter_count(network.module),
        "bytes": sum(tensor.nbytes for tensor in stored),
        "flops": count,
        "seconds": {str(size): time.median for size, time in times.items()},
        "spread": {str(size): time.iqr for size, time in times.items()},
        "image": "x".join(map(str, image.shape[1:])),
        "on": _machine(device),
    }


def _time(run: Callable[[], Any], *, seconds: float) -> Any:
    # Imported here: with it comes what compiles extensions, which logs of compilers that nobody asked for.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    from torch.utils.benchmark import Timer

    timer = Timer("run()", globals={"run": run}, num_threads=torch.get_num_threads())
    return timer.blocked_autorange(min_run_time=seconds)


def _machine(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{processor() or platform.machine()}, {threads} {'thread' if threads == 1 else 'threads'}"

"""The machine that a run finds: device, threads, determinism."""

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from distill_app.config.schema import RuntimeConf
from distill_app.errors import SettingError
from distill_app.words import unknown
from distill_app.world import ALONE, World


def choose_device(runtime: RuntimeConf, world: World = ALONE) -> torch.device:
    """The device of `runtime.device`; `auto` takes a GPU where there is one, of several processes each its own.

    Raises:
        SettingError: A device that does not exist here.
    """
    if runtime.device == "auto":
        return _of_rank(torch.device("cuda" if torch.cuda.is_available() else "cpu"), world)
    try:
        device = torch.device(runtime.device)
    except RuntimeError:
        raise SettingError(
            f"runtime.device: {unknown('device', runtime.device, ('auto', 'cpu', 'cuda', 'mps'))}"
        ) from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SettingError("runtime.device=cuda, but torch finds no GPU here; use runtime.device=auto or cpu")
    if device.type == "cuda" and device.index is not None:
        if world.size > 1:
            raise SettingError(
                f"runtime.device={runtime.device} is one GPU for {world.size} processes; runtime.device=cuda gives "
                f"each its own"
            )
        torch.cuda.set_device(device)  # streams and events are those of the current one
    return _of_rank(device, world)


def _of_rank(device: torch.device, world: World) -> torch.device:
    """The GPU of a rank; a scheduler may have left it only one to see."""
    if device.type != "cuda" or world.size == 1:
        return device
    own = torch.device("cuda", world.local_rank % torch.cuda.device_count())
    torch.cuda.set_device(own)
    return own


# What an experiment has set in this process -> as it was before; jobs of a sweep follow each other in one process.
_before: dict[str, Any] = {}


def set_up(runtime: RuntimeConf, world: World = ALONE) -> None:
    """Threads, number formats and determinism of this process; what the config leaves open is as it was found.

    Of several processes on a machine each gets its part of the cores, where nothing says otherwise.
    """
    tf32, threads = runtime.tf32, runtime.threads
    if threads is None and world.size > 1 and "OMP_NUM_THREADS" not in os.environ:
        cores = len(os.sched_getaffinity(0)) // world.local_size
        threads = max(1, int(os.environ.get("SLURM_CPUS_PER_TASK", cores)))
    _set("threads", threads, torch.get_num_threads, torch.set_num_threads)
    for name, backend in (("matmul", torch.backends.cuda.matmul), ("cudnn", torch.backends.cudnn)):
        _set(f"tf32 of {name}", tf32, partial(getattr, backend, "allow_tf32"), partial(setattr, backend, "allow_tf32"))
    torch.use_deterministic_algorithms(runtime.deterministic, warn_only=True)
    chosen = False if runtime.deterministic else runtime.cudnn_benchmark
    cudnn = torch.backends.cudnn
    _set("cudnn.benchmark", chosen, partial(getattr, cudnn, "benchmark"), partial(setattr, cudnn, "benchmark"))


def _set(name: str, value: Any, get: Callable[[], Any], put: Callable[[Any], None]) -> None:
    if value is not None:
        _before.setdefault(name, get())
        put(value)
    elif name in _before:
        put(_before.pop(name))

"""The machine that a run finds: device, threads, determinism."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from distill_app.config.schema import RuntimeConf
from distill_app.errors import SettingError
from distill_app.words import unknown


def choose_device(runtime: RuntimeConf) -> torch.device:
    """The device of `runtime.device`; `auto` takes a GPU where there is one.

    Raises:
        SettingError: A device that does not exist here.
    """
    if runtime.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(runtime.device)
    except RuntimeError:
        raise SettingError(
            f"runtime.device: {unknown('device', runtime.device, ('auto', 'cpu', 'cuda', 'mps'))}"
        ) from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SettingError("runtime.device=cuda, but torch finds no GPU here; use runtime.device=auto or cpu")
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # streams and events are those of the current one
    return device


# What an experiment has set in this process -> as it was before; jobs of a sweep follow each other in one process.
_before: dict[str, Any] = {}


def set_up(runtime: RuntimeConf) -> None:
    """Threads, number formats and determinism of this process; what the config leaves open is as it was found."""
    tf32 = runtime.tf32
    _set("threads", runtime.threads, torch.get_num_threads, torch.set_num_threads)
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

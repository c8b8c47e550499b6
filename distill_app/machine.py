"""The machine that a run finds: device, threads, determinism."""

import torch

from distill_app.config import RuntimeConf
from distill_app.wiring import unknown


def choose_device(runtime: RuntimeConf) -> torch.device:
    """The device of `runtime.device`; `auto` takes a GPU where there is one.

    Raises:
        ValueError: A device that does not exist here.
    """
    if runtime.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(runtime.device)
    except RuntimeError:
        raise ValueError(
            f"runtime.device: {unknown('device', runtime.device, ('auto', 'cpu', 'cuda', 'mps'))}"
        ) from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError("runtime.device=cuda, but torch finds no GPU here; use runtime.device=auto or cpu")
    return device


def set_up(runtime: RuntimeConf) -> None:
    """Threads, number formats and determinism of this process."""
    if runtime.threads is not None:
        torch.set_num_threads(runtime.threads)
    torch.use_deterministic_algorithms(runtime.deterministic, warn_only=True)
    if runtime.tf32 is not None:
        torch.backends.cuda.matmul.allow_tf32 = runtime.tf32
        torch.backends.cudnn.allow_tf32 = runtime.tf32
    if runtime.deterministic:
        torch.backends.cudnn.benchmark = False

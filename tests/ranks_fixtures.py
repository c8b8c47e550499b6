"""Runs of several real processes, side by side with the same runs of one."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

WORKER = Path(__file__).parent / "ranks" / "worker.py"


def free_port() -> int:
    """A port that nobody listens to."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def environment(rank: int, size: int, port: int) -> dict[str, str]:
    """What torchrun would tell a process."""
    about = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_PORT": port}
    own = {"MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return {**os.environ, **own, **{name: str(value) for name, value in about.items()}}


def outcomes(
    folder: Path, cases: Mapping[str, Mapping[str, Any]], *, ranks: int, dtype: str = "float32"
) -> dict[str, Any]:
    """What comes of some configs, each carried out by so many processes; name -> gradients, records, weights."""
    file, result, port = folder / "cases.json", folder / f"outcomes_{ranks}.pt", free_port()
    file.write_text(json.dumps(cases))
    command = [sys.executable, str(WORKER), str(file), str(result), dtype]
    started = [
        subprocess.Popen(
            command, env=environment(rank, ranks, port), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for rank in range(ranks)
    ]
    told = [process.communicate(timeout=1500)[0] for process in started]
    assert [process.returncode for process in started] == [0] * ranks, "\n\n".join(told)
    found: dict[str, Any] = torch.load(result, weights_only=False)
    return found


def gap(a: Any, b: Any) -> float:
    """The largest relative difference ||a - b|| / ||b|| of tensors in parallel lists or dicts."""
    if isinstance(b, torch.Tensor):
        if not b.is_floating_point():
            return 0.0 if a.equal(b) else float("inf")
        return float((a.double() - b.double()).norm() / b.double().norm().clamp(min=1e-30))
    assert len(a) == len(b)
    pairs = [(a[key], b[key]) for key in b] if isinstance(b, dict) else list(zip(a, b, strict=True))
    return max((gap(one, other) for one, other in pairs), default=0.0)

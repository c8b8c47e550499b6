"""Jobs that outlive the process that starts them: their streams, and the GPUs that they may have."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path

from distill_app.errors import LaunchError


@contextmanager
def streams_closed() -> Iterator[None]:
    """Gives what is started inside no streams of ours."""
    # The local job inherits our streams, and whoever reads them through a pipe would wait for the job to end.
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(descriptor) for descriptor in range(3)]
    null = os.open(os.devnull, os.O_RDWR)
    try:
        for descriptor in range(3):
            os.dup2(null, descriptor)
        yield
    finally:
        for descriptor, copy in enumerate(kept):
            os.dup2(copy, descriptor)
            os.close(copy)
        os.close(null)


def visible_gpus() -> list[int]:
    """The numbers of the GPUs that this process may use; those that are named in another way have none."""
    if (names := _named()) is not None:
        return [int(name) for name in names if name.isdigit()]
    return sorted(int(file.name[6:]) for file in Path("/dev").glob("nvidia[0-9]*") if file.name[6:].isdigit())


def gpu_count() -> int:
    """How many GPUs this process may use, whatever they are called."""
    names = _named()
    return len(visible_gpus() if names is None else names)


def gpus_of(number: int, *, count: int) -> list[int]:
    """Which GPUs one of several jobs gets, that take turns at them: as many as it asks for, or as there are.

    Args:
        number: Of the job.
        count: How many it asks for.

    Raises:
        LaunchError: They are named in a way that a local job cannot be told.
    """
    visible = visible_gpus()
    if count and not visible and gpu_count():
        raise LaunchError(
            f"launcher.gpus_per_node: CUDA_VISIBLE_DEVICES={os.environ.get('CUDA_VISIBLE_DEVICES')} does not name GPUs "
            f"by numbers, as a local job needs them; number them, or use launcher=local or launcher=ddp"
        )
    count = min(count, len(visible))
    first = number * count % max(1, len(visible))
    return (visible + visible)[first : first + count]


def _named() -> list[str] | None:
    """What CUDA_VISIBLE_DEVICES names: numbers, or GPU-... and MIG-...; None where it is not set."""
    variable = os.environ.get("CUDA_VISIBLE_DEVICES")
    if variable is None:
        return None
    return list(takewhile(lambda name: name and name != "-1", (part.strip() for part in variable.split(","))))

"""Jobs that outlive the process that starts them: their streams, and the GPUs that they may have."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
    """The numbers of the GPUs that this process may use."""
    variable = os.environ.get("CUDA_VISIBLE_DEVICES")
    if variable is not None:
        return [int(part) for part in variable.split(",") if part.strip().isdigit()]
    return sorted(int(file.name[6:]) for file in Path("/dev").glob("nvidia[0-9]*") if file.name[6:].isdigit())

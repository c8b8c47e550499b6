"""One process of a run that `launcher=ddp` started: `python -m distill_app.launch.rank`, with the job on its stdin."""

import ctypes
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from distill_app.errors import described

_DIE_WITH_PARENT = 1  # prctl(2), PR_SET_PDEATHSIG


def main() -> None:
    """Carries out the job, and tells the process that started this one what came of it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGTERM)
    told: dict[str, Any] = json.load(sys.stdin)
    # What queues a job again is the business of the process that started this one: here it only has to be heeded.
    if signal.getsignal(signal.SIGUSR2) is signal.SIG_DFL:
        signal.signal(signal.SIGUSR2, lambda number, frame: None)
    sys.path[:] = told["path"]  # where the process that started this one finds packages
    from distill_app.launch.job import Job
    from distill_app.machine.process import leave

    code, outcome = 0, {}
    try:
        Job(**told["job"])()
        leave()
    except BaseException as error:
        code, outcome = int(getattr(error, "exit_code", 1)), described(error)
    file = Path(told["result"])
    file.with_suffix(".part").write_text(json.dumps(outcome))
    file.with_suffix(".part").rename(file)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a group of processes that has lost one need not be taken apart in peace


if __name__ == "__main__":
    main()

"""`distill resume`: going on with a run that was interrupted."""

import shlex
from pathlib import Path
from typing import Any


def _resume(folder: Path, config: dict[str, Any]) -> int:
    from distill_app.runs.status import Status
    from distill_app.training.runner import run_experiment

    if Status(folder).read().get("state") == "done":
        print(f"{folder} is finished; its summary is {folder / 'summary.json'}")
        return 0
    command = folder / "command.txt"
    words = shlex.split(command.read_text(encoding="utf-8")) if command.is_file() else ["distill"]
    run_experiment(config, output_dir=str(folder), command=words)
    return 0

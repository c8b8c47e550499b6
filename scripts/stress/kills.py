"""Kills runs at random moments and lets them go on: what comes out has to be that of a run which nobody killed.

    python -m scripts.stress.kills                     # 40 kills over all settings; some minutes
    python -m scripts.stress.kills --kills 8 --only kd,fitnet --seed 3

Every run is a process of its own, killed by SIGKILL when its log has reached a random record, while a checkpoint is
being written, or at a random time; some are killed again after they have gone on. Prints a line for each, and exits
with 1 where one of them ended otherwise than the run that nobody killed.
"""

import argparse
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import Any

from distill_app.check.quick import read
from distill_app.config.tree import compose
from distill_app.errors import ConfigError
from distill_app.training.run import run_experiment

from .outcome import differences, listed

TINY = (
    "dataset=digits",
    "model@teacher=plain_32_64_128",
    "model@student=plain_8_16",
    "stage=digits",
    "prelude=none",
    "teacher.allow_random=true",
    "stage.epochs=3",
    "stage.batch_size=16",
    "dataset.student_labels_per_class=10",
    "runtime.device=cpu",
    "runtime.threads=1",
    "runtime.log_every=1",
    "checkpoint.every_steps=2",
)
MIXUP = "+dataset.wrappers.mix={_target_: distill_app.data.Mixup}"
WORKERS = ("runtime.num_workers=2", "dataset.resident=false")  # what is held as one tensor needs none
CACHED = ("cache.enabled=true", "cache.views=2")
# Name of a setting -> what is typed for it; together they have all that a run may have to remember.
SETTINGS: dict[str, tuple[str, ...]] = {
    "kd": ("method=kd",),
    "kd-workers": ("method=kd", *WORKERS),
    "kd-mixup": ("method=kd", MIXUP, "stage.clip_grad_norm=1.0", "stage.ema.decay=0.9"),
    "kd-accumulation": ("method=kd", "stage.accumulation_steps=3", "stage.select=best", "stage.patience=2"),
    "kd-cache": ("method=kd", *CACHED),
    "kd-fp16": ("method=kd", "runtime.precision=fp16", "stage.clip_grad_norm=1.0"),
    "kd-sampler": (
        "method=kd",
        "+dataset.sampler={_target_: torch.utils.data.RandomSampler, replacement: true}",
        "+dataset.batch_sampler={_target_: torch.utils.data.BatchSampler}",
    ),
    "fitnet": ("method=fitnet", "stage.select=best"),
    "fitnet-cache-workers": ("method=fitnet", *CACHED, *WORKERS),
    "ft": ("method=ft", "method.stages.paraphrase.epochs=2"),
    "crd": ("method=crd",),
    "sskd": ("method=sskd", "method.stages.pretext.epochs=2"),
}


def main(words: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--only", default=",".join(SETTINGS), help=f"of {', '.join(SETTINGS)}")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments = parser.parse_args(words)
    names = arguments.only.split(",")
    with tempfile.TemporaryDirectory() as place:
        outcomes = list(stress(Path(place), names, kills=arguments.kills, rng=random.Random(arguments.seed)))
    bad = [problems for problems in outcomes if problems]
    print(f"{len(outcomes) - len(bad)} of {len(outcomes)} runs that were killed ended bit for bit as if nobody had")
    return 1 if bad or len(outcomes) < arguments.kills else 0


def stress(place: Path, names: Sequence[str], *, kills: int, rng: random.Random) -> Iterator[list[str]]:
    """Kills runs of the settings in turn, and gives for each what differs from the run that nobody killed."""
    references: dict[str, float] = {}
    for number in range(kills):
        name = names[number % len(names)]
        overrides = [*TINY, *SETTINGS[name]]
        if name not in references:
            began = time.monotonic()
            _finish(place / name, overrides)
            references[name] = time.monotonic() - began
        folder = place / f"{name}-{number}"
        moments = []
        for _ in range(rng.choice((1, 1, 2))):
            moments.append(_kill(folder, overrides, rng, seconds=references[name], most=_records(place / name)))
        _finish(folder, overrides)
        problems = differences(folder, place / name)
        print(f"{number + 1:3} {name:22} killed {'; then '.join(moments)}: {listed(problems)}", flush=True)
        for line in _went_on(folder):
            print(f"    {line}", flush=True)
        yield problems
        if not problems:
            shutil.rmtree(folder)


def _kill(folder: Path, overrides: list[str], rng: random.Random, *, seconds: float, most: int) -> str:
    """Starts or goes on with a run, and kills it; says when."""
    kind, record, delay = rng.choice(("record", "saving", "time")), rng.randrange(1, most), rng.random()
    process = _started(folder, overrides)
    began, pause = time.monotonic(), rng.random() * 0.01
    while process.is_alive():
        late = time.monotonic() - began > delay * seconds
        if (
            (kind == "record" and _records(folder) >= record)
            or (kind == "saving" and late and any(folder.glob("checkpoints/.tmp-*")))
            or (kind == "time" and late)
        ):
            time.sleep(pause)
            break
        time.sleep(0.0005)
    told = f"at record {_records(folder)} ({kind})" if process.is_alive() else "not: it had ended"
    if process.pid is not None and process.is_alive():
        os.kill(process.pid, signal.SIGKILL)
    process.join()
    return told


def _went_on(folder: Path) -> list[str]:
    """What the run said of where it went on."""
    lines = (folder / "train.log").read_text().splitlines()
    return [line.partition(" INFO ")[2] for line in lines if "going on after" in line]


def _records(folder: Path) -> int:
    file = folder / "metrics.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


def _finish(folder: Path, overrides: list[str]) -> None:
    process = _started(folder, overrides)
    process.join()
    if process.exitcode:
        log = (folder.parent / f"{folder.name}.txt").read_text()
        raise RuntimeError(f"{folder.name} ended with {process.exitcode}:\n{log[-3000:]}")


def _started(folder: Path, overrides: list[str]) -> Any:
    process = multiprocessing.get_context("fork").Process(target=_run, args=(folder, overrides))
    process.start()
    return process


def _run(folder: Path, overrides: list[str]) -> None:
    os.setsid()  # its workers die with it or after it, and nobody else's do
    overrides = [*overrides, f"cache.folder={folder}/cache"]
    with open(f"{folder}.txt", "a") as log, redirect_stdout(log), redirect_stderr(log):
        errors, app, _ = read(compose(overrides))
        if errors or app is None:
            raise ConfigError(errors)
        run_experiment(asdict(app), output_dir=str(folder), command=["distill", *overrides])


if __name__ == "__main__":
    sys.exit(main())

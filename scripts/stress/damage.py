"""Damages every kind of file of a run and of a cache, and looks at what the program makes of it.

    python -m scripts.stress.damage                      # 200 damages, some minutes
    python -m scripts.stress.damage --count 1000 --seed 1

One file at a time is cut off, has bits flipped, a stretch of zeros, or is emptied. What follows must be a refusal in
words, or the numbers of the undamaged run to the bit, and records that are lost must be told. Anything else is printed
with what shows it again, and the exit code is 1.
"""

import argparse
import io
import json
import logging
import os
import random
import re
import shutil
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from distill_app import compose, run
from distill_app.cli import main as distill
from distill_app.runs.journal import METRICS, Journal
from distill_app.training import outcome
from distill_app.training.optimize import Optimization

TINY = (
    *("dataset=digits", "stage=digits", "model@teacher=plain_32_64_128", "model@student=plain_8_16"),
    *("prelude=none", "teacher.allow_random=true", "dataset.train_transform=[]", "stage.epochs=4"),
    *("runtime.max_steps_per_epoch=2", "stage.batch_size=50", "runtime.threads=1", "tracker=none"),
    *("runtime.log_every=1", "checkpoint.keep=2", "cache.enabled=true"),
)
LAST_STEP = 7  # of 8: the last epoch has begun and has no checkpoint
OUTCOMES = ("tried", "told", "refused", "recovered", "wrong", "traceback")


class Stopped(Exception):
    """What interrupts a run here."""


def cut(content: bytes, chance: random.Random) -> bytes:
    return content[: chance.randrange(len(content))]


def flip(content: bytes, chance: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(chance.choice((1, 1, 8))):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def zero(content: bytes, chance: random.Random) -> bytes:
    begin = chance.randrange(len(content))
    end = min(len(content), begin + chance.choice((1, 16, 512, len(content))))
    return content[:begin] + bytes(end - begin) + content[end:]


def empty(content: bytes, chance: random.Random) -> bytes:
    return b""


DAMAGES: tuple[Callable[[bytes, random.Random], bytes], ...] = (cut, flip, flip, zero, empty)


@dataclass(frozen=True)
class Said:
    """What a command line printed, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def crashed(self) -> bool:
        """Whether it ended in another way than a user is told of."""
        return self.code not in (0, 1, 2) or "Traceback" in self.out + self.err


def call(*words: str) -> Said:
    """`distill` in this process."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with redirect_stdout(out), redirect_stderr(err):
        try:
            distill(words)
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        except BaseException:  # what no user should meet
            traceback.print_exc()
            code = -1
    return Said(code, out.getvalue(), err.getvalue())


@contextmanager
def stopped_at(step: int) -> Iterator[None]:
    """Interrupts a run before one of its optimiser steps."""
    original, count = Optimization.step, iter(range(1, step + 1))

    def counted(self: Optimization) -> Any:
        if next(count) == step:
            raise Stopped
        return original(self)

    with mock.patch.object(Optimization, "step", counted):
        yield


@dataclass
class Stress:
    """A finished run and an interrupted one with its cache, copied, damaged and tried again.

    Attributes:
        folder: Where they lie; what is tried lies in `trial`, and that as they were made in `kept`.
        chance: What is damaged, and how.
        counts: Kind of file -> what came of it.
        findings: What must not be, with what shows it again.
    """

    folder: Path
    chance: random.Random
    counts: dict[str, Counter] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.trial, self.kept = self.folder / "trial", self.folder / "kept"
        self.printed: dict[tuple[str, ...], str] = {}
        self.expected: Any = None

    def prepare(self) -> None:
        """Makes the runs, and what comes of them undamaged."""
        overrides = [*TINY, f"cache.folder={self.trial / 'cache'}"]
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            run(compose(overrides), output_dir=str(self.trial / "finished"))
            try:
                with stopped_at(LAST_STEP):
                    run(compose(overrides), output_dir=str(self.trial / "stopped"))
            except Stopped:
                pass
        shutil.copytree(self.trial, self.kept)
        finished = self.trial / "finished"
        self.printed = {words: call(*words).out for words in self._reading(finished)}
        if (said := call("resume", str(self.trial / "stopped"))).code != 0:
            raise RuntimeError(f"the undamaged run cannot be gone on with: {said.err}")
        self.expected = results(self.trial / "stopped")
        if not same(results(finished), self.expected):
            raise RuntimeError("the undamaged run does not end as the one that was not interrupted")

    def _reading(self, run: Path) -> list[tuple[str, ...]]:
        """The command lines that read a finished run."""
        checkpoint = str(run / "checkpoints" / "last")
        return [("report", str(run)), ("evaluate", str(run)), ("evaluate", checkpoint)]

    def files(self) -> dict[str, list[Path]]:
        """Every file that may be damaged by its kind: where it lies and what it is called, without numbers."""
        found: dict[str, list[Path]] = {}
        for path in sorted(self.kept.rglob("*")):
            if path.is_file() and path.stat().st_size:
                found.setdefault(kind_of(path.relative_to(self.kept)), []).append(path.relative_to(self.kept))
        return found

    def damage(self, kind: str, files: list[Path], number: int) -> None:
        """Damages one file, tries what reads it, and counts what came of it."""
        path, how = self.chance.choice(files), DAMAGES[number % len(DAMAGES)]
        shutil.rmtree(self.trial)
        shutil.copytree(self.kept, self.trial)
        target = self.trial / path
        before = target.read_bytes()
        while (after := how(before, self.chance)) == before:
            how = cut  # a stretch of zeros that was zero already
        target.write_bytes(after)
        counts = self.counts.setdefault(kind, Counter())
        counts["tried"] += 1
        outcome, said = self._outcome(path)
        counts[outcome] += 1
        counts["told"] += bool(said.err.strip())
        if outcome in ("wrong", "traceback"):
            where = first_difference(before, after)
            shown = "\n".join(["", *said.err.strip().splitlines()[-6:]]).replace("\n", "\n        ")
            self.findings.append(f"{outcome}: {how.__name__} of {path}, {where}{shown}")

    def _outcome(self, path: Path) -> tuple[str, Said]:
        """What became of what was damaged: the finished run is read, the other one gone on with."""
        if path.parts[0] == "finished":
            read = [judged(call(*words), expected) for words, expected in self.printed.items()]
            if path.name != "student.pt":  # what a finished run has exported is nothing that resuming reads
                read.append(self._gone_on_with(self.trial / "finished"))
            return worst(*read)
        verified = call("cache", "verify", str(self.trial / "cache"))
        if verified.crashed:
            return "traceback", verified
        return self._gone_on_with(self.trial / "stopped")

    def _gone_on_with(self, run: Path) -> tuple[str, Said]:
        """What comes of resuming a run: a refusal, or the numbers of the undamaged one."""
        said = call("resume", str(run))
        if said.crashed or said.code:
            return judged(said, "")
        try:
            found = results(run)
        except Exception as error:  # whatever the file that cannot be read makes of it
            return "wrong", Said(said.code, said.out, f"{said.err}\n{type(error).__name__}: {error}")
        if same(found, self.expected):
            return "recovered", said
        # Records that are lost are lost; those that are there, and all else, must be those of the undamaged run.
        told = "metrics.jsonl: " in said.err and all(record in self.expected[0] for record in found[0])
        return ("refused" if told and same((self.expected[0], *found[1:]), self.expected) else "wrong"), said

    def table(self) -> str:
        """What came of every kind of file."""
        rows = [[kind, *(str(counts[each]) for each in OUTCOMES)] for kind, counts in sorted(self.counts.items())]
        total = [str(sum(counts[each] for counts in self.counts.values())) for each in OUTCOMES]
        lines = [["file", *OUTCOMES], *rows, ["all", *total]]
        width = max(len(line[0]) for line in lines)
        return "\n".join(f"{line[0]:<{width}}  " + " ".join(f"{cell:>9}" for cell in line[1:]) for line in lines)

    def failed(self) -> bool:
        """Whether anything came of damage that must not be."""
        return any(counts["wrong"] or counts["traceback"] for counts in self.counts.values())


def judged(said: Said, expected: str) -> tuple[str, Said]:
    """The outcome of a command line that shall print what it printed before the damage, or refuse in words."""
    if said.crashed:
        return "traceback", said
    if said.code:
        return ("refused" if said.err.strip() else "wrong"), said
    if said.out == expected:
        return "recovered", said
    # A table with a dash has told what there is to tell, and so has a warning that another checkpoint was read; a
    # number that was not there before is wrong.
    told = "using" in said.err or numbers(said.out) <= numbers(expected)
    return ("refused" if told else "wrong"), said


def numbers(text: str) -> set[str]:
    """The figures in a table or in JSON."""
    return set(re.findall(r"\d+\.\d+", text))


def worst(*outcomes: tuple[str, Said]) -> tuple[str, Said]:
    """The one that matters of several."""
    return max(outcomes, key=lambda outcome: OUTCOMES.index(outcome[0]) if outcome[0] != "recovered" else 0)


def results(folder: Path) -> tuple[list[dict[str, Any]], list[Any], Mapping[str, Any]]:
    """The numbers of a finished run: its records without the clock, its table, its weights."""
    records = [{**record, "timing": None} for record in Journal.read(folder / METRICS).records]
    rows = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["rows"]
    rows = [{**row, "seconds": None} for row in rows]
    return records, rows, torch.load(folder / "student.pt", weights_only=True)


def same(a: tuple[Any, Any, Mapping[str, Any]], b: tuple[Any, Any, Mapping[str, Any]]) -> bool:
    """Whether two runs have the same numbers, to the bit."""
    weights = a[2].keys() == b[2].keys() and all(torch.equal(a[2][name], b[2][name]) for name in a[2])
    return weights and a[:2] == b[:2]


def kind_of(path: Path) -> str:
    """The kind of a file: `stopped checkpoints state.pt`."""
    if path.parts[0] == "cache":
        return f"cache {'network' if len(path.parts) == 3 else 'tap'} {path.name}"
    inside = "checkpoints " if "checkpoints" in path.parts else ".hydra " if ".hydra" in path.parts else ""
    return f"{path.parts[0]} {inside}{path.name}"


def first_difference(before: bytes, after: bytes) -> str:
    """Where two contents begin to differ, and what stood there."""
    at = next((n for n, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), min(len(before), len(after)))
    return f"byte {at} of {len(before)}: {before[at : at + 24]!r} -> {after[at : at + 24]!r}"


def stress(folder: Path, *, count: int, seed: int = 0, only: str = "") -> Stress:
    """Makes the runs and tries damage to every kind of file in turn, or to those that have a text in their name."""
    made = Stress(folder, random.Random(seed))
    logging.captureWarnings(True)
    with mock.patch.object(outcome, "final_plot", lambda folder: folder):  # a third of the time, and no part of it
        made.prepare()
        files = {kind: paths for kind, paths in made.files().items() if only in kind}
        for number in range(count):
            kinds = sorted(files)
            turn, kind = divmod(number, len(kinds))
            made.damage(kinds[kind], files[kinds[kind]], turn + kind)
    return made


def main() -> None:
    """Entry point of `python -m scripts.stress.damage`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200, help="how many damages are tried")
    parser.add_argument("--seed", type=int, default=0, help="of what is damaged, and how")
    parser.add_argument("--only", default="", help="kinds of files with this in their name, such as summary.json")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory(prefix="distill-damage-") as folder:
        made = stress(Path(folder), count=arguments.count, seed=arguments.seed, only=arguments.only)
    print(made.table())
    print("\n".join(["", *made.findings]) if made.findings else "nothing wrong, and no traceback")
    sys.exit(made.failed())


if __name__ == "__main__":
    main()

"""A run of two ranks that was killed goes on: with two, bit for bit; with one, to rounding."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from engine_fixtures import resolved
from method_fixtures import base
from ranks_fixtures import WORKER, environment, free_port, gap, outcomes

pytestmark = pytest.mark.slow

# Steps are long enough, in number, for a kill in the middle.
SIZES = ("dataset.train.size=200", "stage.lr=0.01", "stage.epochs=3", "checkpoint.every_steps=2", "checkpoint.keep=2")


def killed_after(folder: Path, name: str, records: int) -> None:
    """Runs two ranks until the run has so many records, and kills both."""
    port, log = free_port(), folder / "runs" / f"{name}_2" / "metrics.jsonl"
    command = [sys.executable, str(WORKER), str(folder / "cases.json"), str(folder / "never.pt")]
    ranks = [
        subprocess.Popen(command, env=environment(rank, 2, port), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for rank in range(2)
    ]
    deadline = time.monotonic() + 120
    while not log.exists() or log.read_text().count("\n") < records:
        assert all(rank.poll() is None for rank in ranks) and time.monotonic() < deadline
        time.sleep(0.002)
    for rank in ranks:
        rank.send_signal(signal.SIGKILL)
    for rank in ranks:
        rank.wait()


@pytest.mark.parametrize("method", ["kd", "crd"])
def test_two_ranks_go_on_with_two_or_with_one(tmp_path, method):
    config = resolved(f"method={method}", *SIZES, "runtime.sync_batch_norm=true", base=base(method))
    # In the mean of their statistics, ranks that count each on its own would differ.
    local = resolved(f"method={method}", *SIZES, base=base(method))
    whole, again, single = (tmp_path / name for name in ("whole", "again", "single"))
    for folder in (whole, again, single):
        folder.mkdir()
    expected = outcomes(whole, {"sync": config, "local": local}, ranks=2)
    for name, each in (("sync", config), ("local", local)):
        (again / "cases.json").write_text(json.dumps({name: each}))
        killed_after(again, name, 17)
        if name == "sync":
            shutil.copytree(again / "runs" / "sync_2", single / "runs" / "sync_1")
        found = outcomes(again, {name: each}, ranks=2)[name]
        weights = expected[name]["weights"]["student.pt"]
        assert all(found["weights"]["student.pt"][key].equal(weights[key]) for key in weights)
        plain = [[{**r, "timing": None} for r in records] for records in (found["records"], expected[name]["records"])]
        assert [strip(r) for r in plain[0]] == [strip(r) for r in plain[1]]
    one = outcomes(single, {"sync": config}, ranks=1)["sync"]
    ours, theirs = (
        torch.cat([each.flatten().double() for each in outcome["weights"]["student.pt"].values()])
        for outcome in (one, expected["sync"])
    )
    assert gap(ours, theirs) <= 1e-5
    assert "going on after" in (single / "runs" / "sync_1" / "train.log").read_text()


def strip(record: dict) -> dict:
    """Without what depends on the clock."""
    return {key: value for key, value in record.items() if key not in ("timing", "seconds")}

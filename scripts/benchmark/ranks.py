"""Several processes: two that share every batch against one, and a study against its runs one by one."""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from distill_app.config.schema import RuntimeConf
from distill_app.machine.process import join, leave

from .product import Product, Size
from .timing import WARMUP
from .workloads import Plan, result

STEPS = 2  # in a round
# A sweep of four methods over one teacher and one baseline, and the same runs alone.
METHODS = ("kd", "at", "spkd", "pkt")
STUDY = ("dataset=fashion_mini", "stage=small_images", "stage.epochs=4", "runtime.threads=1", "runtime.device=cpu")
CACHED = ("cache.enabled=true", "cache.views=1")


def ranks(plan: Plan) -> dict[str, Any]:
    """KD steps: CPU time of one process, and of the slower of two that share its batches; in turn, in one pair.

    The first rank also trains alone, while the second one sleeps.
    """
    file, port = plan.folder / "ranks.json", _free_port()
    about = {"file": str(file), "folder": str(plan.folder), "rounds": plan.rounds, "size": asdict(plan.size)}
    pair = []
    for rank in range(2):
        environment = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
        texts = {name: str(value) for name, value in environment.items()}
        line = [sys.executable, "-m", "scripts.benchmark.ranks", json.dumps(about)]
        pair.append(subprocess.Popen(line, env={**os.environ, **texts, "MASTER_ADDR": "127.0.0.1"}))
    if any(process.wait() for process in pair):
        raise RuntimeError("a rank of the benchmark has failed; see above")
    return result(json.loads(file.read_text()))


def study(plan: Plan) -> dict[str, Any]:
    """Processor seconds of a sweep whose points share teacher, baseline and answers, and of its runs one by one."""
    times: dict[str, list[float]] = {"study": [], "singles": []}
    for number in range(plan.rounds):
        folder = plan.folder / str(number)
        cache = f"cache.folder={folder}/cache"
        sweep = ["-m", f"method={','.join(METHODS)}", *CACHED, cache, f"hydra.sweep.dir={folder}/sweep"]
        times["study"].append(_spent(sweep))
        single = [[f"method={name}", f"hydra.run.dir={folder}/{name}"] for name in METHODS]
        times["singles"].append(sum(map(_spent, single)))
    return result(times)


def _spent(overrides: list[str]) -> float:
    """Processor seconds of a command line, start of Python included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "distill_app", *STUDY, *overrides], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _free_port() -> int:
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _rank(about: dict[str, Any]) -> None:
    world, size = join(RuntimeConf(device="cpu")), Size(**about["size"])
    overrides = ["method=kd", "runtime.log_every=1000", "tracker=none"]
    together = Product(size, overrides, folder=Path(about["folder"]) / f"rank_{world.rank}", world=world)
    alone = Product(size, overrides, folder=Path(about["folder"]) / "alone") if world.main else None
    times: dict[str, list[float]] = {"one": [], "two": []}
    for number in range(WARMUP + about["rounds"]):
        found = {}
        for name in ("two", "one") if number % 2 else ("one", "two"):
            world.wait()
            found[name] = _round(alone if name == "one" else together)
        slower = max(world.gather(found["two"]))
        if number >= WARMUP:
            times["one"].append(found["one"])
            times["two"].append(slower)
    if world.main:
        Path(about["file"]).write_text(json.dumps(times))
    world.wait()
    leave()


def _round(product: Product | None) -> float:
    began = time.process_time()
    for _ in range(STEPS if product is not None else 0):
        product.step()  # type: ignore[union-attr]
    return time.process_time() - began


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("about", type=json.loads, help="what a rank of the workload is to do, as JSON")
    _rank(parser.parse_args().about)

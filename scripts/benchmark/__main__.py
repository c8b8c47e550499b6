"""Measures training steps side by side: this project, a hand-written loop (the limit), and torchdistill if installed.

    make bench                                       # installs torchdistill, measures all, writes docs/performance.*
    python -m scripts.benchmark --only kd,hint         # some workloads; the others keep their figures
    python -m scripts.benchmark --only methods --rounds 1  # every method beside KD; a table of its own
    python -m scripts.benchmark --quick                # small images, few rounds; prints, writes nothing
    python -m scripts.benchmark --profile kd           # where the time goes, by operator

Every workload runs in a process of its own, on one thread. docs/performance.md says what is timed and how.
"""

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torchvision

from distill_app.config.groups import options_of

from ..output import require_folder
from .cache import cache, crd_setup, store
from .methods import methods, methods_section, with_kept
from .product import Size
from .ranks import ranks, study
from .report import BEGIN, EMPTY_PAGE, END, OF_METHODS, PAPER_SECONDS, paper_table, placed, seconds_table, table
from .split import split
from .workloads import Plan, crd, data, fixed, hint, kd, saving

ROOT = Path(__file__).resolve().parents[2]
# The cache is the one of an older torchdistill, which cannot be installed beside the newer one.
OLD_TORCHDISTILL = ROOT / "outputs" / "bench" / "torchdistill-1.1.4"
SMALL = {"image_size": 32, "batch": 2, "classes": 10, "samples": 5000, "stored": 5000}
DETECTORS = {"image_size": 96, "batch": 8, "samples": 64, "stored": 64, "classes": 10}
DETECTORS |= {"teacher": "tiny_fasterrcnn", "student": "teacher_bottleneck"}
# name -> (function, sizes, entries of the plan)
WORKLOADS: dict[str, tuple[Callable[[Plan], dict[str, Any]], dict[str, Any], dict[str, Any]]] = {
    "kd": (kd, {}, {}),
    "hint": (hint, {}, {}),
    "cache": (cache, {}, {}),
    "store": (store, {}, {}),
    "crd": (crd, {"image_size": 64, "batch": 32, "classes": 100}, {}),
    "crd_setup": (crd_setup, {"samples": 1_281_167}, {}),
    "fixed": (fixed, {**SMALL, "teacher": "resnet20", "student": "resnet8"}, {"repeat": 50}),
    "fixed_tiniest": (fixed, {**SMALL, "teacher": "plain_32_64_128", "student": "plain_8_16"}, {"repeat": 200}),
    "saving": (saving, {}, {}),
    "ranks": (ranks, {**SMALL, "batch": 64, "teacher": "resnet18_small", "student": "resnet18_small"}, {}),
    "study": (study, {}, {}),
    "split": (
        split,
        {**DETECTORS, "image_size": 224, "batch": 2, "samples": 8, "teacher": "fasterrcnn_resnet50_fpn"},
        {},
    ),
    "split_tiny": (split, DETECTORS, {"repeat": 10}),
    "data": (data, {**SMALL, "batch": 64}, {}),
}
# The other teachers of the tables of torchdistill's paper: cache_resnet50, hint_resnet50, ...
WORKLOADS |= {
    f"{name}_{teacher}": (workload, {"teacher": teacher}, {})
    for teacher in PAPER_SECONDS
    for name, workload in (("cache", cache), ("hint", hint))
    if teacher != Size.teacher
}
# Measured by itself, since it takes long: with the machine that it was measured on, and a table of its own.
METHODS = {"methods": (methods, {"image_size": 64, "batch": 32, "classes": 100}, {})}
OF_OLD = ("store", *(name for name in WORKLOADS if WORKLOADS[name][0] is cache))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=_names, default=list(WORKLOADS), help=f"of {','.join({**WORKLOADS, **METHODS})}")
    parser.add_argument("--rounds", type=int, default=15, help="that are counted (default: %(default)s)")
    parser.add_argument("--methods", default="", help="of the workload methods: these alone; others keep their figures")
    parser.add_argument("--quick", action="store_true", help="small images, 3 rounds, no files written")
    parser.add_argument("--profile", type=_names, default=[], help="workloads to print profiles of, instead")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="where the results go")
    parser.add_argument("--worker", help=argparse.SUPPRESS)  # file for the result of the workload in --only
    arguments = parser.parse_args()
    if wrong := [name for name in filter(None, arguments.methods.split(",")) if name not in options_of("method")]:
        parser.error(f"--methods: {', '.join(wrong)}: no method, see distill list methods")
    if arguments.worker or arguments.profile:
        return work(arguments)
    if not arguments.quick:
        require_page(parser, arguments.docs)
    record = {"machine": machine(), "workloads": {}}
    path = arguments.docs / "performance.json"
    if path.is_file() and not arguments.quick:
        kept = json.loads(path.read_text(encoding="utf-8"))
        record |= {name: kept[name] for name in METHODS if name in kept}
        if kept["machine"] == record["machine"] or set(arguments.only) <= set(METHODS):
            record |= {name: kept[name] for name in ("machine", "workloads")}
        else:
            print("the figures there are of another machine, or of other versions, and are left out", flush=True)
    for name in arguments.only:
        print(f"{name} ...", flush=True)
        found = in_process(name, arguments)
        if name in METHODS:
            record[name] = with_kept({**found, "machine": machine()}, record.get(name))
        else:
            record["workloads"][name] = found
        if not arguments.quick:
            save(record, arguments.docs)
    tables = [report(record)] if record["workloads"] else []
    print("\n\n".join([*tables, *(methods_section(record[name]) for name in METHODS if name in record)]))
    return None


def save(record: dict[str, Any], docs: Path) -> None:
    """Writes what has been measured so far, in the order of the workloads."""
    record["workloads"] = {name: record["workloads"][name] for name in WORKLOADS if name in record["workloads"]}
    (docs / "performance.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    page = docs / "performance.md"
    text = placed(page.read_text(encoding="utf-8"), report(record))
    if "methods" in record:
        text = placed(text, methods_section(record["methods"]), marks=OF_METHODS)
    page.write_text(text, encoding="utf-8")


def require_page(parser: argparse.ArgumentParser, docs: Path) -> None:
    """Sees, before anything is measured, that the figures can be written to a page of that folder.

    Raises:
        SystemExit: They cannot.
    """
    require_folder(parser, docs)
    page = docs / "performance.md"
    if not page.exists():
        page.write_text(EMPTY_PAGE, encoding="utf-8")
    try:
        for marks in ((BEGIN, END), OF_METHODS):
            placed(page.read_text(encoding="utf-8"), "", marks=marks)
    except (OSError, ValueError) as error:
        parser.error(f"{page}: {error}")


def _names(text: str) -> list[str]:
    names = text.split(",")
    known = {**WORKLOADS, **METHODS}
    if wrong := [name for name in names if name not in known]:
        raise argparse.ArgumentTypeError(f"{', '.join(wrong)}: not among {', '.join(known)}")
    return names


def in_process(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """The result of a workload, run on its own by another process on one thread."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "result.json"
        command = [sys.executable, "-m", "scripts.benchmark", "--worker", str(file)]
        command += ["--only", name, "--rounds", str(arguments.rounds), "--methods", arguments.methods]
        one = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        paths = [str(OLD_TORCHDISTILL)] if name in OF_OLD else []
        paths += [path for path in [os.environ.get("PYTHONPATH")] if path]
        environment = {**os.environ, **one, "PYTHONPATH": os.pathsep.join(paths)}
        subprocess.run(
            [*command, *(["--quick"] if arguments.quick else [])],
            env=environment,
            check=True,
            stdout=subprocess.DEVNULL,  # what the product says while it trains
        )
        return json.loads(file.read_text(encoding="utf-8"))


def work(arguments: argparse.Namespace) -> None:
    """Runs one workload in this process, or prints profiles."""
    torch.set_num_threads(1)
    for name in arguments.profile or arguments.only:
        function, sizes, entries = {**WORKLOADS, **METHODS}[name]
        rounds = 3 if arguments.quick else arguments.rounds
        sizes = {**sizes, "image_size": min(64, sizes.get("image_size", 64))} if arguments.quick else sizes
        with tempfile.TemporaryDirectory() as folder:
            profile = bool(arguments.profile)
            named = tuple(filter(None, arguments.methods.split(",")))
            size = Size(**sizes)
            plan = Plan(Path(folder), rounds=rounds, size=size, profile=profile, methods=named, **entries)
            found = function(plan)
        if arguments.worker:
            rounded = {key: [float(f"{second:.5g}") for second in times] for key, times in found["times"].items()}
            today = datetime.date.today().isoformat()
            text = json.dumps({**found, "times": rounded, "size": plan.described(), "rounds": rounds, "date": today})
            Path(arguments.worker).write_text(text, encoding="utf-8")


def report(record: dict[str, Any]) -> str:
    """The tables, and what they were measured on."""
    on = record["machine"]
    lines = [
        f"{on['processor']}, {on['cores']} cores, of which one thread was used; bf16 through {on['bf16']}; "
        f"Python {on['python']}, torch {on['torch']}, torchvision {on['torchvision']}.",
        "Ratios are medians over rounds, with the 10th and 90th percentile in brackets.",
        "",
        table(record["workloads"]),
        "",
        "Beside Tables 2 and 3 of the torchdistill paper, in seconds of an epoch on three GPUs (-: not measured here):",
        "",
        paper_table(record["workloads"]),
        "",
        "CPU seconds behind the ratios:",
        "",
        seconds_table(record["workloads"]),
    ]
    return "\n".join(lines)


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    info = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").is_file() else ""
    fields = dict(line.split(":", 1) for line in info.splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in fields.items()}
    flags = fields.get("flags", "").split()
    bf16 = next((flag for flag in ("amx_bf16", "avx512_bf16") if flag in flags), "no instructions of its own")
    return {
        "processor": fields.get("model name", platform.processor()),
        "cores": os.cpu_count(),
        "bf16": bf16,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
    }


if __name__ == "__main__":
    main()

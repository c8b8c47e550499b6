"""Shows that a change of the program changes no number: a few steps of every preset, bit for bit.

    python -m scripts.measure.presets outputs/before.json                                  # before the change
    python -m scripts.measure.presets outputs/after.json --compare outputs/before.json     # after it

Presets of data sets that are not part of the installation run on noise. What a preset would load is a file of random
weights that this script makes, the same for every version of the program.
"""

import argparse
import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from distill_app import compose, run
from distill_app.config.groups import options_of

from ..output import require_folder

SHORT = [
    "runtime.max_epochs=2",
    "runtime.max_steps_per_epoch=2",
    "runtime.threads=1",
    "tracker=none",
    "runtime.log_every=1",
    "runtime.num_workers=0",
    "stage.batch_size=8",
]
NOISE = ["dataset=fake", "dataset.train.size=80", "dataset.test.size=16"]
SIZES = {"imagenet": ["dataset.image_size=64"], "cifar100": ["dataset.image_size=32"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--compare", type=Path, help="what this script wrote with another version")
    parser.add_argument("--only", default="", help="presets whose name contains this")
    arguments = parser.parse_args()
    require_folder(parser, arguments.output.parent)
    before = json.loads(arguments.compare.read_text(encoding="utf-8")) if arguments.compare else None
    names = [name for name in options_of("experiment") if arguments.only in name]
    records: dict[str, Any] = {}
    for name in names:
        records[name] = measure(name)
        print(f"{name}: {len(records[name]['metrics'])} records", flush=True)
    arguments.output.write_text(json.dumps(records, indent=1, sort_keys=True), encoding="utf-8")
    if before is not None:
        raise SystemExit(compare(before, records))


def measure(name: str) -> dict[str, Any]:
    """The metrics of every step and epoch of a preset, cut short, and hashes of the weights that it ends with."""
    group = name.split("/")[0]
    data = [*NOISE, *SIZES[group]] if group in SIZES else []
    with tempfile.TemporaryDirectory() as folder:
        # Composed twice: what the files hold depends on what the preset names.
        cfg = compose([f"experiment={name}", *data, *SHORT])
        run(compose([f"experiment={name}", *data, *SHORT, *_files(cfg, Path(folder))]), output_dir=f"{folder}/run")
        lines = Path(folder, "run", "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        metrics = [json.loads(line) for line in lines]
        for record in metrics:
            record.pop("timing")
        weights = {file.stem: _hash(file) for file in sorted(Path(folder, "run").glob("*.pt"))}
    return {"metrics": metrics, "weights": weights}


def _files(cfg: Any, folder: Path) -> list[str]:
    """Writes the weights that a preset would load; returns the overrides that name them."""
    OmegaConf.resolve(cfg)
    models = {"teacher": cfg.teacher, **{f"method.extra_models.{k}": v for k, v in cfg.method.extra_models.items()}}
    overrides = []
    for key, model in models.items():
        if model.weights or model.checkpoint:
            torch.manual_seed(0)
            file = folder / f"{key}.pt"
            torch.save(instantiate(model.net, _convert_="all").state_dict(), file)
            overrides += [f"{key}.weights=null", f"{key}.checkpoint={file}"]
    return overrides


def _hash(file: Path) -> str:
    state = torch.load(file, weights_only=True)
    hasher = hashlib.sha256()
    for name, value in sorted(state.items()):
        hasher.update(name.encode())
        hasher.update(value.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return hasher.hexdigest()[:16]


def compare(before: dict[str, Any], after: dict[str, Any]) -> int:
    """Prints which presets differ, and in what first; returns the exit code."""
    differing = 0
    for name in sorted({*before, *after}):
        old, new = before.get(name), after.get(name)
        if old != new:
            differing += 1
            print(f"{name}: {_first_difference(old, new)}")
    print(f"{len(after) - differing} of {len(after)} presets are the same, bit for bit")
    return 1 if differing else 0


def _first_difference(old: Any, new: Any) -> str:
    if old is None or new is None:
        return "only in one of the two"
    for a, b in zip(old["metrics"], new["metrics"], strict=False):
        if a != b:
            return f"{json.dumps(a)[:300]} became {json.dumps(b)[:300]}"
    return f"{len(old['metrics'])} records and {old['weights']} became {len(new['metrics'])} and {new['weights']}"


if __name__ == "__main__":
    main()

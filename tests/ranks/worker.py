"""One rank of a test: `python worker.py CASES RESULT [DTYPE]`, started with RANK and WORLD_SIZE, or alone.

CASES is a JSON file of name -> resolved config. Every case is run as a launcher would; the first rank stores what
came of it: the gradients of the first optimiser step of every stage, the records, the weights. All is computed in
DTYPE, float32 unless said.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch

from distill_app.config.schema import to_app
from distill_app.machine.process import join, leave
from distill_app.runs import report
from distill_app.training import frozen, outcome
from distill_app.training.optimize import Optimization
from distill_app.training.run import run_experiment

first: list[list[torch.Tensor]] = []
held: list[tuple[int, int]] = []  # numbers of a network in parts: on this rank, and in all
own_step, own_sharded = Optimization.step, frozen.sharded


def sharded(module: torch.nn.Module, *where: Any, **how: Any) -> torch.nn.Module:
    part = own_sharded(module, *where, **how)
    here = sum(parameter.to_local().numel() for parameter in part.parameters())
    held.append((here, sum(parameter.numel() for parameter in module.parameters())))
    return part


def step(self: Optimization) -> None:
    if not hasattr(self, "looked"):
        self.looked = True
        first.append([p.grad.detach().clone() for p in self.parameters if p.grad is not None])
    own_step(self)


def main(cases: str, result: str, dtype: str = "float32") -> None:
    torch.set_default_dtype(getattr(torch, dtype))
    assert outcome.final_plot is report.final_plot
    outcome.final_plot = lambda folder: folder  # nobody looks at it
    Optimization.step, frozen.sharded = step, sharded
    outcomes = {}
    for name, config in json.loads(Path(cases).read_text()).items():
        world = join(to_app(config).runtime)
        first.clear()
        held.clear()
        folder = Path(result).parent / "runs" / f"{name}_{world.size}"
        run_experiment(config, output_dir=str(folder), command=["test"], world=world)
        if world.main:
            lines = (folder / "metrics.jsonl").read_text().splitlines()
            weights = {file.name: torch.load(file, weights_only=True) for file in sorted(folder.glob("*.pt"))}
            outcomes[name] = {"gradients": list(first), "held": list(held), "weights": weights}
            outcomes[name]["records"] = list(map(json.loads, lines))
    if outcomes:
        torch.save(outcomes, result)
    leave()


if __name__ == "__main__":
    main(*sys.argv[1:])

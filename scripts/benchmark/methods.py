"""What a step of every method costs beside one of KD: its CPU time, and the memory of its tensors.

The stage that is measured is the last one of a method, in which its student learns; of methods of several stages that
is what takes longest. A method runs beside KD over the same networks and images, in turn, and is then let go of, so
that the memory of the machine does not have to hold all of them.
"""

import gc
from collections.abc import Callable, Mapping
from typing import Any

import torch

from distill_app.config.methods import methods_of
from distill_app.errors import DistillError

from .product import Product
from .report import Cell
from .timing import Contender, interleaved
from .workloads import Plan, result

# What a method needs that is not KD's pair of networks.
NEEDS = {"takd": ["model@method.extra_models.assistant=resnet18"]}
# By kind of method, and by method, why it does not learn with these networks.
OTHER_KINDS = {
    "split": "its student is the teacher with a bottleneck",
    "detection": "its networks are detectors",
    "segmentation": "its networks tell the class of every pixel",
}
ELSEWHERE = {method.name: why for method in methods_of() if (why := OTHER_KINDS.get(method.about.kind or ""))}
ELSEWHERE |= {"multilabel_kd": "images have several labels", "own": OTHER_KINDS["detection"]}
ELSEWHERE |= {"own_rcnn": OTHER_KINDS["detection"], "seg_ce": OTHER_KINDS["segmentation"]}
ELSEWHERE |= {"vitkd": "its networks are ViTs"}
HEADER = "| method | stage | step, times as long as KD | memory, times KD's | of that |\n|---|---|---|---|---|"
DEAR = 1.5  # times KD from which a method has to say why


def methods(plan: Plan) -> dict[str, Any]:
    """Those asked for, or all, each in turn with KD; of methods that do not learn with these networks the reason."""
    times: dict[str, list[float]] = {}
    values: dict[str, Any] = {}
    missing, stages = dict(ELSEWHERE), {}
    kd, values["kd_bytes"] = _measured(lambda: _product("kd", plan))
    names = plan.methods or [method.name for method in methods_of()]
    for name in [name for name in names if name not in ELSEWHERE]:
        try:
            ours, values[f"{name}_bytes"] = _measured(lambda name=name: _product(name, plan))
        except (DistillError, RuntimeError) as error:
            missing[name] = str(error).strip().splitlines()[-1].strip()
            continue
        stages[name] = ours.stage.plan.name
        found = interleaved({name: Contender(ours.step), _beside(name): Contender(kd.step)}, rounds=plan.rounds)
        times |= found
        ours.close()
        del ours  # before memory is watched again, which sees what is given back too
    kd.close()
    return result(times, values=values, missing=missing, stages=stages)


def with_kept(found: dict[str, Any], kept: dict[str, Any] | None) -> dict[str, Any]:
    """What was found, with the methods of an earlier measurement that it leaves out; none of other sizes or rounds."""
    if kept is None or any(kept[key] != found[key] for key in ("machine", "size", "rounds")):
        return found
    # Memory is told against KD's, which every measurement has.
    both = {part: {**kept[part], **found[part]} for part in ("times", "values", "missing", "stages")}
    both["missing"] = {name: reason for name, reason in both["missing"].items() if name not in both["stages"]}
    return {**found, **both}


def _product(name: str, plan: Plan) -> Product:
    overrides = [f"method={name}", "tracker=none", *NEEDS.get(name, [])]
    return Product(plan.size, overrides, folder=plan.folder / name, last=True)


def _beside(name: str) -> str:
    return f"kd_beside_{name}"


def _measured(build: Callable[[], Product]) -> tuple[Product, int]:
    """A product after its first step, and the most bytes that tensors made for it and in it took at one time."""
    gc.collect()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        product = build()
        product.step()
    return product, peak_bytes(profile)


def peak_bytes(profile: torch.profiler.profile) -> int:
    """The most bytes that were allocated at one time, of those that a profile saw allocated."""
    results: Any = profile.profiler.kineto_results  # type: ignore[union-attr]
    changes = [(event.start_ns(), event.nbytes()) for event in results.events() if event.name() == "[memory]"]
    standing = most = 0
    for _, change in sorted(changes, key=lambda change: change[0]):
        standing += change
        most = max(most, standing)
    return most


def methods_table(found: Mapping[str, Any]) -> str:
    """The dearest methods first; what was not measured stands below with the reason."""
    rows = []
    for name, stage in found["stages"].items():
        cell = Cell(f"{name} / {_beside(name)}")
        measured = cell.measured(found)
        assert measured is not None
        taken = found["values"][f"{name}_bytes"]
        memory = f"{taken / found['values']['kd_bytes']:.2f} | {taken / 2**20:,.0f} MB"
        rows.append((measured.median, f"| `{name}` | {stage} | {cell.text(found)} | {memory} |"))
    lines = [line for _, line in sorted(rows, key=lambda row: -row[0])]
    reasons = {method.name: "not yet" for method in methods_of()} | found["missing"]
    absent = [f"- `{name}`: {reason}" for name, reason in reasons.items() if name not in found["stages"]]
    return "\n".join([HEADER, *lines, "", "Not measured:", "", *absent])


def methods_section(found: Mapping[str, Any]) -> str:
    """The table, and what it was measured on."""
    on, size = found["machine"], found["size"]
    networks = f"{size['teacher']} to {size['student']}, {size['image_size']} px, batch {size['batch']}"
    where = f"{on['processor']}, one thread, torch {on['torch']}, {found['date']}, rounds: {found['rounds']}"
    return f"{networks}, {size['classes']} classes; {where}.\n\n{methods_table(found)}"

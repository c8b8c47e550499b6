"""Stages: what trains, by which optimiser, for how long and on what."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from distill_app.migration.adapters import auxiliary, sequence
from distill_app.migration.common import Common
from distill_app.migration.ledger import Node, finite
from distill_app.migration.loaders import training
from distill_app.migration.losses import criterion
from distill_app.migration.wiring import Side, Wires

PROCESSES = ("pre_epoch_process", "pre_forward_process", "post_forward_process", "post_epoch_process")
FORWARDS = ("forward_batch_only", "forward_batch_supp_dict", "forward_batch4sskd")
CONSTANT = {"interval": "epoch", "schedule": None}


def stage(node: Node, common: Common) -> dict[str, Any]:
    """A stage as `method.stages.<name>` has it, with all that the recipe might say."""
    training(node.get("train_data_loader"), common)
    teacher = None if common.teacher is None else Side("teacher", common.teacher)
    wires = Wires(
        common.ledger,
        Side("student", common.student),
        teacher,
        common.known,
        common.batch_size,
        positives=common.positives,
    )
    arguments = node.get("criterion").get("kwargs") if node.get("criterion").has("kwargs") else node.get("criterion")
    conf: dict[str, Any] = {"epochs": node.whole("num_epochs", least=1), "batch_size": common.batch_size}
    redesign = {}
    for side, part in (("teacher", node.get("teacher")), ("student", node.get("student", "model"))):
        owner = wires.teacher if side == "teacher" else wires.student
        if side == "student":  # whose adapters may have the shapes of what the teacher gives
            wires.pair_up(arguments.get("sub_terms"))
        if owner is not None:
            redesign[side] = _network(part, owner, wires, conf)
        elif part:
            part.leave("there is no teacher_model in models")
    criterion(node.get("criterion"), wires)
    conf |= {"redesign": kept} if (kept := {role: paths for role, paths in redesign.items() if paths}) else {}
    conf |= {"drop_last": True} if common.drop_last else {}
    conf |= _optimizer(node, common)
    conf |= {"wrappers": common.wrappers} if common.wrappers else {}
    conf |= {"adapters": wires.adapters} if wires.adapters else {}
    for name in PROCESSES:
        if not node.text(name, default="default").startswith("default"):
            node.get(name).leave("what is done around a step is part of the loop here; see docs for your own losses")
    node.whole("log_freq", default=None)
    conf["losses"] = wires.losses
    common.known |= wires.adapters
    return conf


def _network(node: Node, side: Side, wires: Wires, conf: dict[str, Any]) -> list[str] | None:
    """What a network does in the stage; its redesign."""
    if not node:
        node.use()
        return None
    forward = node.text("forward_proc", default=None)
    if forward not in (None, *FORWARDS):
        node.get("forward_proc").leave("a network is called with the images; a task of your own may call it otherwise")
    hooks = node.get("forward_hook")
    for end in ("input", "output"):  # what is read says which
        hooks.texts(end)
    hooks.use() if not hooks else hooks.rest("nothing here reads this key")
    if node.get("wrapper").given() not in (None, "DataParallel", "DistributedDataParallel"):
        node.get("wrapper").leave("runtime.parallel=fsdp with launcher=ddp shares out networks that are not trained")
    for name in ("src_ckpt", "dst_ckpt"):
        if node.get(name):
            node.get(name).leave("a stage goes on with the networks of the stage before; init_from takes other weights")
        node.get(name).use()
    runs = True
    if node.get("auxiliary_model_wrapper", "special"):
        runs = auxiliary(node.get("auxiliary_model_wrapper", "special"), side, wires)
    paths = sequence(node.texts("sequential"), node.get("adaptations"), side, wires)
    _training(node, side, conf, runs=runs)
    node.rest("nothing here reads this key")
    return paths


def _training(node: Node, side: Side, conf: dict[str, Any], *, runs: bool) -> None:
    frozen, trains = node.texts("frozen_modules"), node.flag("requires_grad", default=True)
    inside = tuple(name for name in ("teacher_model", "student_model", "model") if name in frozen)
    if side.role == "teacher":
        if trains and not inside:
            node.get("requires_grad").leave("the teacher would be trained too; train: [student, teacher] says so here")
        return
    if not trains or not runs or inside:
        conf["train"] = []
        return
    if frozen:
        conf["freeze"] = [_frozen(path, side) for path in frozen]
        node.get("frozen_modules").differ(
            "their batch norms stay in eval mode here, with the statistics that they have; there these go on moving"
        )


def _frozen(path: str, side: Side) -> str:
    if path.startswith("instance(") and path.endswith(")"):
        return f"student:torch.nn.{path[9:-1]}"
    for prefix in side.within:
        path = path.removeprefix(f"{prefix}.")
    return f"student.{side.network.path(path)}"


def _optimizer(node: Node, common: Common) -> dict[str, Any]:
    """Optimiser and learning-rate schedule; a stage without goes on with the settings of the stage before."""
    found: dict[str, Any] = {}
    entry = node.get("optimizer")
    if entry:
        key, arguments = entry.text("key", "type"), entry.get("kwargs", "params")
        found["lr"] = arguments.number("lr", default=0.001)
        found["optimizer"] = {"_target_": f"torch.optim.{key}", "_partial_": True, **_number(arguments.handed_on("lr"))}
        _steps(entry, found)
    entry.use() if not entry else entry.rest("nothing here reads this key")
    entry = node.get("scheduler")
    if entry:
        found["scheduler"] = _scheduler(entry)
    elif "optimizer" in found:
        found["scheduler"] = deepcopy(CONSTANT)
    entry.use() if not entry else entry.rest("nothing here reads this key")
    return found


def _steps(entry: Node, found: dict[str, Any]) -> None:
    clip, parts = entry.number("max_grad_norm", default=None), entry.whole("grad_accum_step", default=1, least=1)
    found |= {} if clip is None else {"clip_grad_norm": float(clip)}
    if parts != 1:
        found["accumulation_steps"] = parts
        entry.get("grad_accum_step").differ("an epoch ends with a step here, of the batches that are left")
    if not entry.flag("filters_params", default=True):
        entry.get("filters_params").differ("parameters that no term reads are never given to the optimiser here")
    if entry.get("module_wise_kwargs", "module_wise_configs", "module_wise_params"):
        entry.get("module_wise_kwargs", "module_wise_configs", "module_wise_params").leave(
            "lr_scales gives modules a rate of their own, and freeze keeps others out: stage.lr_scales"
        )


def _scheduler(entry: Node) -> dict[str, Any]:
    key, arguments = entry.text("key", "type"), entry.get("kwargs", "params")
    each = entry.whole("scheduling_step", default=0)
    if each > 1:
        entry.get("scheduling_step").leave("a schedule counts epochs or steps here, not every n-th step")
    if key == "poly_lr_scheduler":
        total = arguments.whole("num_iterations") * arguments.whole("num_epochs")
        given = {"total_iters": total, "power": arguments.number("power", default=0.9)}
        arguments.rest("an argument that has no counterpart here")
        key = "PolynomialLR"
    else:
        given = _number(arguments.handed_on())
    if key == "ReduceLROnPlateau":
        entry.differ("the rate follows the validation figures here; there nothing is handed to it")
    schedule = {"_target_": f"torch.optim.lr_scheduler.{key}", "_partial_": True, **given}
    return {"interval": "step" if each == 1 else "epoch", "schedule": schedule}


def _number(value: Any) -> Any:
    """1e-4 is text in the YAML of 1.1, which is read there and here."""
    if isinstance(value, Mapping):
        return {name: _number(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_number(item) for item in value]
    return value if (number := finite(value)) is None else number

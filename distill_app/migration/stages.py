"""Stages: what trains, by which optimiser, for how long and on what."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from distill_app.migration.adapters import auxiliary, sequence
from distill_app.migration.ledger import Ledger, Node
from distill_app.migration.losses import criterion
from distill_app.migration.networks import Network
from distill_app.migration.wiring import Side, Wires

PROCESSES = ("pre_epoch_process", "pre_forward_process", "post_forward_process", "post_epoch_process")
FORWARDS = ("forward_batch_only", "forward_batch_supp_dict", "forward_batch4sskd")
CONSTANT = {"interval": "epoch", "schedule": None}
PER_PROCESS = (
    "of each process there where torchrun starts several, of all of them together here (stage.batch_size); with "
    "-adjust_lr the rate was multiplied by their number: stage.reference_batch_size scales it here"
)


@dataclass
class Common:
    """What all stages share: the networks, and what is said of the machine and the loading."""

    ledger: Ledger
    student: Network
    teacher: Network | None
    known: dict[str, Any] = field(default_factory=dict)  # adapters of the stages before
    runtime: dict[str, Any] = field(default_factory=dict)
    cache: dict[str, Any] = field(default_factory=dict)
    batch_size: int = 1
    drop_last: bool = False
    wrappers: dict[str, Any] = field(default_factory=dict)
    positives: str | None = None


def stage(node: Node, common: Common) -> dict[str, Any]:
    """A stage as `method.stages.<name>` has it, with all that the recipe might say."""
    _loading(node.get("train_data_loader"), common)
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
    conf: dict[str, Any] = {"epochs": int(node.take("num_epochs", default=1)), "batch_size": common.batch_size}
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
        if not str(node.take(name, default="default")).startswith("default"):
            node.get(name).leave("what is done around a step is part of the loop here; see docs for your own losses")
    node.take("log_freq")
    conf["losses"] = wires.losses
    common.known |= wires.adapters
    return conf


def _loading(node: Node, common: Common) -> None:
    """Batches, workers, and what wraps samples; a stage that says nothing goes on with those of the stage before."""
    if not node:
        return
    node.get("dataset_id").use()
    node.take("requires_supp")
    arguments = node.get("kwargs") if node.has("kwargs") else node
    if size := arguments.take("batch_size"):
        common.batch_size = int(size)
        arguments.get("batch_size").differ(PER_PROCESS)
    common.drop_last = bool(arguments.take("drop_last", default=False))
    workers = arguments.take("num_workers")
    common.runtime |= {} if workers is None else {"num_workers": int(workers)}
    arguments.take("pin_memory")  # wherever there is a GPU
    _sampling(node)
    if node.has("kwargs"):
        arguments.rest("an argument of a data loader that has no counterpart here")
    _wrapper(node.get("dataset_wrapper"), common)
    cached = node.get("cache_output")
    if cached:
        cached.differ(
            "there the teacher's outputs for the first view of an image are kept, and read again for every other view; "
            "here for fixed views: cache.views=1 shows each image in one, more of them in more"
        )
        common.cache |= {"enabled": True, "views": 1, "folder": str(cached.value)}
    cached.use()


def _sampling(node: Node) -> None:
    """In random order is how a stage reads its samples; other samplers are objects."""
    sampler = node.get("sampler")
    kind = str(sampler.get("class_or_func").value or {})
    if node.has("random_sample") and not node.take("random_sample"):
        node.get("random_sample").leave("training reads its samples in random order; name a class in dataset.sampler")
    elif sampler.has("class_or_func") and "'torch.utils.data.RandomSampler'" not in kind:
        sampler.leave("training reads its samples in random order; name a class in dataset.sampler")
    elif sampler.get("kwargs"):
        sampler.get("kwargs").leave("name the sampler and its arguments in dataset.sampler")
    sampler.use()
    for name in ("batch_sampler", "collate_fn"):
        if node.get(name):
            node.get(name).leave(f"name the class or function in dataset.{name.removesuffix('_fn')}, by its _target_")
        node.get(name).use()


def _wrapper(node: Node, common: Common) -> None:
    if not node:
        node.use()
        return
    key, arguments = str(node.take("key", "name")), node.get("kwargs", "params")
    common.wrappers, common.positives = {}, None
    if key in ("CRDDatasetWrapper", "ContrastiveDataset"):
        common.positives = str(arguments.take("mode", default="exact"))
        arguments.take("num_negative_samples")  # which the loss says too
        if arguments.take("ratio", default=1.0) != 1.0:
            arguments.get("ratio").leave("negatives are drawn from all samples of other classes here")
    elif key in ("SSKDDatasetWrapper", "SSKDDataset"):
        common.wrappers = {"views": {"_target_": "distill_app.data.RotatedViews", "each": True}}
    else:
        node.leave(
            f"{key!r} is no wrapper that is known here; one of your own derives from distill_app.data.SampleWrapper"
        )
    arguments.use() if not arguments else None
    arguments.rest("an argument that has no counterpart here")


def _network(node: Node, side: Side, wires: Wires, conf: dict[str, Any]) -> list[str] | None:
    """What a network does in the stage; its redesign."""
    if not node:
        node.use()
        return None
    forward = node.take("forward_proc")
    if forward not in (None, *FORWARDS):
        node.get("forward_proc").leave("a network is called with the images; a task of your own may call it otherwise")
    node.get("forward_hook").use()  # what is read says which
    if node.take("wrapper") not in (None, "DataParallel", "DistributedDataParallel"):
        node.get("wrapper").leave("runtime.parallel=fsdp with launcher=ddp shares out networks that are not trained")
    for name in ("src_ckpt", "dst_ckpt"):
        if node.get(name):
            node.get(name).leave("a stage goes on with the networks of the stage before; init_from takes other weights")
        node.get(name).use()
    runs = True
    if node.get("auxiliary_model_wrapper", "special"):
        runs = auxiliary(node.get("auxiliary_model_wrapper", "special"), side, wires)
    paths = sequence(node.get("sequential"), node.get("adaptations"), side, wires)
    node.get("adaptations").use() if not node.get("adaptations") else None
    _training(node, side, conf, runs=runs)
    node.rest("nothing here reads this key")
    return paths


def _training(node: Node, side: Side, conf: dict[str, Any], *, runs: bool) -> None:
    frozen = [str(path) for path in node.take("frozen_modules", default=[])]
    trains = bool(node.take("requires_grad", default=True))
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
        key, arguments = str(entry.take("key", "type")), entry.get("kwargs", "params")
        given = {name: child.use().value for name, child in arguments.items() if child.tag is None}
        given = {name: _number(value) for name, value in given.items()}
        found["lr"] = given.pop("lr", 0.001)
        found["optimizer"] = {"_target_": f"torch.optim.{key}", "_partial_": True, **given}
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
    clip, parts = entry.take("max_grad_norm"), entry.take("grad_accum_step", default=1)
    found |= {} if clip is None else {"clip_grad_norm": float(clip)}
    if parts != 1:
        found["accumulation_steps"] = int(parts)
        entry.get("grad_accum_step").differ("an epoch ends with a step here, of the batches that are left")
    if not entry.take("filters_params", default=True):
        entry.get("filters_params").differ("parameters that no term reads are never given to the optimiser here")
    if entry.get("module_wise_kwargs", "module_wise_configs", "module_wise_params"):
        entry.get("module_wise_kwargs", "module_wise_configs", "module_wise_params").leave(
            "lr_scales gives modules a rate of their own, and freeze keeps others out: stage.lr_scales"
        )


def _scheduler(entry: Node) -> dict[str, Any]:
    key, arguments = str(entry.take("key", "type")), entry.get("kwargs", "params")
    given = {name: _number(child.use().value) for name, child in arguments.items() if child.tag is None}
    arguments.use() if not arguments else None
    each = entry.take("scheduling_step", default=0)
    if each > 1:
        entry.get("scheduling_step").leave("a schedule counts epochs or steps here, not every n-th step")
    if key == "poly_lr_scheduler":
        total = given.get("num_iterations", 1) * given.get("num_epochs", 1)
        given = {"total_iters": total, "power": given.get("power", 0.9)}
        key = "PolynomialLR"
    if key == "ReduceLROnPlateau":
        entry.differ("the rate follows the validation figures here; there nothing is handed to it")
    schedule = {"_target_": f"torch.optim.lr_scheduler.{key}", "_partial_": True, **given}
    return {"interval": "step" if each == 1 else "epoch", "schedule": schedule}


def _number(value: Any) -> Any:
    """1e-4 is text in the YAML of 1.1, which is read there and here."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    if isinstance(value, Mapping):
        return {name: _number(item) for name, item in value.items()}
    return [_number(item) for item in value] if isinstance(value, list) else value

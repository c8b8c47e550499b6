"""The benchmark's workloads of training steps: which implementations run side by side on what.

Every workload builds its implementations once, over copies of the same networks and over the same images, and returns
`{"times": {implementation: CPU seconds of a run by round}, "values": {figure: number}, "missing": {name: why}}`.
"""

import copy
import importlib.metadata
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from .images import ImagesInMemory, Pictures
from .limit import CRD, KD, Form, Hint
from .product import Product, Size
from .rival import Torchdistill, crd_config, crd_loader, hint_config, kd_config
from .timing import Contender, interleaved, profiled

# The arithmetic of torchdistill, and its way to load images.
PLAIN = ["runtime.channels_last=false", "runtime.fold_batch_norm=false", "dataset.resident=false"]
BF16 = ["runtime.precision=bf16"]
# Form -> what a user types for it; "" is what runs if nothing is typed.
OVERRIDES: dict[str, list[str]] = {"": [], "plain": PLAIN, "bf16": BF16}
FORMS = {"": Form(), "plain": Form(channels_last=False, fold=False), "bf16": Form(bf16=True)}
# The regressor of torchdistill: a 1x1 convolution with a bias, batch norm, ReLU.
REGRESSOR = [f"+method.stages.hint.adapters.regressor.module.{key}=true" for key in ("norm", "activation", "bias")]
SAVED_EVERY = 20  # steps
HINT, PRUNED = "layer2", ["conv1", "bn1", "relu", "maxpool", "layer1", "layer2"]


@dataclass(frozen=True)
class Plan:
    """How large a workload is, and how long it is measured.

    Args:
        folder: For logs and caches; removed by whoever made it.
        rounds: How many are counted.
        size: Data and networks.
        repeat: Steps in a round, where a step is short.
        negatives: K of CRD.
        rows: Rows in a round of the cache's rates.
        batches: Batches of an epoch, where whole epochs are timed.
        profile: Print profiles, time nothing.
        methods: Those that the table of methods shall have; all if none are named.
    """

    folder: Path
    rounds: int = 15
    size: Size = field(default_factory=Size)
    repeat: int = 1
    negatives: int = 16384
    rows: int = 1024
    batches: int = 2
    profile: bool = False
    methods: tuple[str, ...] = ()

    def described(self) -> dict[str, Any]:
        """What a reader of the figures has to know of it."""
        return {**asdict(self.size), "negatives": self.negatives}

    def race(self, contenders: Mapping[str, Contender]) -> dict[str, list[float]]:
        """The times of contenders side by side."""
        if self.profile:
            profiled(contenders)
            return {}
        return interleaved(contenders, rounds=self.rounds)


def missing(wanted: str) -> dict[str, str]:
    """Why torchdistill takes no part; empty if it does."""
    try:
        found = importlib.metadata.version("torchdistill")
    except importlib.metadata.PackageNotFoundError:
        found = "none"
    return {} if found == wanted else {"torchdistill": f"needs torchdistill {wanted}, there is {found}"}


def result(times: Mapping[str, list[float]], **entries: Any) -> dict[str, Any]:
    """What a workload returns."""
    return {"times": dict(times), "values": {}, "missing": {}, **entries}


def in_form(name: str, form: str) -> str:
    """ours, ours_plain, ours_bf16, ..."""
    return f"{name}_{form}" if form else name


def images_of(size: Size) -> ImagesInMemory:
    """The images that the product of this size has."""
    return ImagesInMemory(
        size.samples, image_size=size.image_size, num_classes=size.classes, stored=min(size.stored, size.samples)
    )


def network(product: Product, name: str) -> nn.Module:
    """A copy of one of its networks, as torch would have built it."""
    module = copy.deepcopy(product.experiment.network(name).module)
    return module.to(memory_format=torch.contiguous_format).requires_grad_(True)


def pair(product: Product) -> tuple[nn.Module, nn.Module]:
    """Copies of its student and its teacher."""
    return network(product, "student"), network(product, "teacher")


def rival(product: Product, images: ImagesInMemory, **arguments: Any) -> Torchdistill:
    """torchdistill with its networks."""
    student, teacher = pair(product)
    return Torchdistill(teacher, student, images=images, batch=product.stage.plan.conf.batch_size, **arguments)


def kd_limit(product: Product, images: ImagesInMemory, form: Form) -> KD:
    """The limit of KD with its networks."""
    return KD(*pair(product), images=images, batch=product.stage.plan.conf.batch_size, form=form)


def hint_limit(product: Product, images: ImagesInMemory, form: Form) -> Hint:
    """The limit of hint training with its networks, behind the hint cut off by hand, and its regressor."""
    extra, batch = [product.stage.step.adapters["regressor"]], product.stage.plan.conf.batch_size
    return Hint(*pair(product), extra=extra, cut=HINT, images=images, batch=batch, form=form)


def crd_limit(product: Product, images: ImagesInMemory, form: Form, *, gather: bool = False) -> CRD:
    """The limit of CRD with its networks, embeddings and memories."""
    step = product.stage.step
    loss = step.losses["crd"]
    return CRD(
        *pair(product),
        extra=[step.adapters[f"{name}_embedding"] for name in ("student", "teacher")],
        labels=torch.tensor(images.targets),
        banks=(loss.student_memory, loss.teacher_memory),
        negatives=loss.negatives,
        gather=gather,
        images=images,
        batch=product.stage.plan.conf.batch_size,
        form=form,
    )


def kd(plan: Plan) -> dict[str, Any]:
    """KD as it is, in torchdistill's arithmetic, and in bf16."""
    return kd_in_forms(plan, forms=("", "plain", "bf16"))


def fixed(plan: Plan) -> dict[str, Any]:
    """KD of networks so small that what surrounds the arithmetic shows."""
    return kd_in_forms(plan, forms=("", "plain"))


def kd_in_forms(plan: Plan, *, forms: tuple[str, ...]) -> dict[str, Any]:
    """KD in several forms of the product and of the limit, and once in torchdistill."""
    images, steps = images_of(plan.size), {}
    for form in forms:
        ours = Product(plan.size, ["method=kd", *OVERRIDES[form]], folder=plan.folder / f"ours{form}")
        steps[in_form("ours", form)] = ours.step
        steps[in_form("limit", form)] = kd_limit(ours, images, FORMS[form]).step
    if not (absent := missing("1.1.5")):
        steps["torchdistill"] = rival(ours, images, config=kd_config()).step
    return result(
        plan.race({name: Contender(step, repeat=plan.repeat) for name, step in steps.items()}), missing=absent
    )


def saving(plan: Plan) -> dict[str, Any]:
    """Steps of the student alone, and a checkpoint of its weights and momentum: all CPU time of it, in both threads."""
    ours = Product(plan.size, ["method=ce"], folder=plan.folder / "ours")

    def steps() -> None:
        for _ in range(SAVED_EVERY):
            ours.step()

    return result(plan.race({"ours": Contender(steps), "saving": Contender(ours.save, before=ours.step)}))


def hint(plan: Plan) -> dict[str, Any]:
    """The hint stage of FitNet on full networks, at the second of four stages; nobody lists modules for ours."""
    images, steps = images_of(plan.size), {}
    for form, overrides in OVERRIDES.items():
        folder = plan.folder / f"ours{form}"
        ours = Product(plan.size, ["method=fitnet", *REGRESSOR, *overrides], folder=folder)
        steps[in_form("ours", form)] = ours.step
        steps[in_form("limit", form)] = hint_limit(ours, images, FORMS[form]).step
    if not (absent := missing("1.1.5")):
        convolution = ours.stage.step.adapters["regressor"][0]
        channels = convolution.in_channels, convolution.out_channels
        for name, pruned in (("torchdistill", []), ("torchdistill_pruned", PRUNED)):
            config = hint_config(HINT, channels=channels, pruned=pruned)
            steps[name] = rival(ours, images, config=config).step
    return result(
        plan.race({name: Contender(step, repeat=plan.repeat) for name, step in steps.items()}), missing=absent
    )


def data(plan: Plan) -> dict[str, Any]:
    """An epoch of batches of small images, cropped, flipped and normalised, and nothing else."""
    crop = f"{{_target_:torchvision.transforms.v2.RandomCrop,size:{plan.size.image_size},padding:4}}"
    flip = "{_target_:torchvision.transforms.v2.RandomHorizontalFlip}"
    overrides, contenders = ["method=ce", f"dataset.train_transform=[{crop},{flip}]"], {}
    for name, resident in (("ours", "auto"), ("ours_plain", "false")):
        ours = Product(plan.size, [*overrides, f"dataset.resident={resident}"], folder=plan.folder / name)
        contenders[name] = Contender(batches(ours))
    pictures = Pictures(images_of(plan.size), padding=4)
    loader = DataLoader(pictures, batch_size=plan.size.batch, shuffle=True, drop_last=True)
    contenders["pil"] = Contender(lambda: [None for _ in loader])
    return result(plan.race(contenders))


def batches(ours: Product) -> Callable[[], None]:
    """An epoch of its prepared batches."""

    def run() -> None:
        for raw in ours.stage.data.train:
            ours.stage.task.prepare(raw, device=ours.stage.device)

    return run


def crd(plan: Plan) -> dict[str, Any]:
    """CRD; torchdistill's negatives are drawn before its clock starts, and the drawing is timed apart."""
    images = images_of(plan.size)
    overrides = ["method=crd", f"method.stages.distill.losses.crd.loss.negatives={plan.negatives}"]
    ours = Product(plan.size, overrides, folder=plan.folder / "ours")
    contenders = {"ours": Contender(ours.step)}
    for name, gather in (("limit", False), ("gather", True)):
        contenders[name] = Contender(crd_limit(ours, images, FORMS[""], gather=gather).step)
    if not (absent := missing("1.1.5")):
        features = tuple(network.fc.in_features for network in pair(ours))
        config = crd_config(features=features, samples=plan.size.samples, negatives=plan.negatives)
        other = rival(ours, images, config=config, loader=crd_loader(negatives=plan.negatives))
        contenders["torchdistill"] = Contender(other.step, before=other.fetch)
    return result(plan.race(contenders), missing=absent)

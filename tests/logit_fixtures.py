"""The losses over class logits since KD: how each is built and fed, and which reference cases it has to equal."""

from collections.abc import Callable
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from distill_app import losses

Compute = Callable[[SimpleNamespace], Tensor]


def read(loss: nn.Module) -> Compute:
    """The loss of the golden inputs, with labels if it takes them."""
    return lambda g: loss(
        **fed(loss, student=g.student_logits, teacher=g.teacher_logits, target=getattr(g, "labels", None))
    )


def fed(loss: nn.Module, **tensors: Tensor) -> dict[str, Tensor]:
    """The arguments that the loss takes."""
    takes = loss.forward.__code__.co_varnames
    return {name: value for name, value in tensors.items() if name in takes}


def ce(g: SimpleNamespace) -> Tensor:
    return nn.functional.cross_entropy(g.student_logits, g.labels)


def decoupled(sources: tuple[str, ...], case: str, temperature: float, alpha: float, beta: float):
    return [f"{source}_{case}" for source in sources], read(losses.DecoupledKL(temperature, alpha=alpha, beta=beta))


def standardised_dkd(case: str, alpha: float, beta: float):
    sources = ("authors", "rldrepo", "mdistiller_on_standardised")
    loss = losses.DecoupledKL(2.0, alpha=alpha, beta=beta, standardize=True)
    return [f"{source}_{case}" for source in sources], read(loss)


def refined(case: str, temperature: float, alpha: float, beta: float, heat: float):
    loss = losses.RefinedKL(temperature, alpha=alpha, beta=beta, confidence_temperature=heat)
    return [f"{source}_{case}" for source in ("authors", "own_formula")], read(loss)


def dist(sources: tuple[str, ...], case: str, temperature: float, beta: float, gamma: float):
    return [f"{source}_{case}" for source in sources], read(losses.PearsonDistance(temperature, beta=beta, gamma=gamma))


def level(kind: str, *temperatures: float, view: str = "weak", **options) -> Compute:
    """One level of MLKD on one view; the other's gradient is zero, as in the reference."""
    loss = losses.MultiLevelAlignment(kind, **({"temperatures": temperatures} if temperatures else {}), **options)
    other = "strong" if view == "weak" else "weak"

    def compute(g: SimpleNamespace) -> Tensor:
        student, teacher = getattr(g, f"student_{view}"), getattr(g, f"teacher_{view}")
        return loss(student=student, teacher=teacher) + 0 * getattr(g, f"student_{other}").sum()

    return compute


def masked(compute: Compute) -> Compute:
    """With the weight of the reference, 9, and what its mask comes to: half of the samples, as a factor."""
    return lambda g: 9 * 0.5 * compute(g)


DKD = ("mdistiller", "cls_kd", "mmrazor")
GOLDENS: dict[str, list[tuple[list[str], Compute]]] = {
    "dkd": [
        decoupled(DKD, "a1_b8_T4", 4.0, 1.0, 8.0),
        decoupled(DKD, "a1_b0_T4_tckd", 4.0, 1.0, 0.0),
        decoupled(DKD, "a0_b1_T4_nckd", 4.0, 0.0, 1.0),
        decoupled(DKD, "a1_b0.5_T1", 1.0, 1.0, 0.5),
    ],
    "nkd": [
        (["authors_T1_g1.5"], read(losses.NormalizedKD())),
        (["authors_T4_g1.5"], read(losses.NormalizedKD(4.0))),
    ],
    "dist": [
        dist(("authors", "mmrazor"), "b1_g1_tau1", 1.0, 1.0, 1.0),
        dist(("authors", "mmrazor"), "b2_g2_tau4", 4.0, 2.0, 2.0),
        dist(("authors", "mmrazor"), "b1_g0_tau1", 1.0, 1.0, 0.0),
        dist(("authors", "mmrazor"), "b0_g1_tau1", 1.0, 0.0, 1.0),
    ],
    "logit_std": [
        (["authors_soft_T2"], read(losses.StandardizedKL())),
        (["authors_soft_T4"], read(losses.StandardizedKL(4.0))),
        (
            ["td_full_T2_a0.1_b9", "authors_full_T2_ce0.1_kd9"],
            lambda g: 0.1 * ce(g) + 9 * read(losses.StandardizedKL())(g),
        ),
    ],
    "wsld": [
        (["mmrazor_tau2", "cls_kd_tau2"], read(losses.WeightedSoftLabels())),
        (["mmrazor_tau4", "cls_kd_tau4"], read(losses.WeightedSoftLabels(4.0))),
        (
            ["authors_full_T2_a2.5", "mmrazor_full_T2_a2.5"],
            lambda g: ce(g) + 2.5 * read(losses.WeightedSoftLabels())(g),
        ),
    ],
    "normkd": [
        (["authors_soft_a2", "own_formula_soft_a2"], read(losses.SpreadTemperatureKL())),
        (["authors_soft_a1", "own_formula_soft_a1"], read(losses.SpreadTemperatureKL(1.0))),
        (["authors_full_a2_ce0.1_kd0.9"], lambda g: 0.1 * ce(g) + 0.9 * read(losses.SpreadTemperatureKL())(g)),
        (["authors_full_a1_ce0.5_kd0.5"], lambda g: 0.5 * ce(g) + 0.5 * read(losses.SpreadTemperatureKL(1.0))(g)),
    ],
    "ttm": [
        (["authors_g0.1", "own_formula_g0.1"], read(losses.TransformedTeacherKL())),
        (["authors_g0.25", "own_formula_g0.25"], read(losses.TransformedTeacherKL(0.25))),
        (["authors_g1", "own_formula_g1"], read(losses.TransformedTeacherKL(1.0))),
        (["authors_full_g0.1_r1_b45"], lambda g: ce(g) + 45 * read(losses.TransformedTeacherKL())(g)),
    ],
    "wttm": [
        (["authors_g0.1", "own_formula_g0.1"], read(losses.TransformedTeacherKL(weighted=True))),
        (["authors_g0.25", "own_formula_g0.25"], read(losses.TransformedTeacherKL(0.25, weighted=True))),
        (["authors_g1", "own_formula_g1"], read(losses.TransformedTeacherKL(1.0, weighted=True))),
        (["authors_full_g0.1_r1_b45"], lambda g: ce(g) + 45 * read(losses.TransformedTeacherKL(weighted=True))(g)),
    ],
    "mlld": [
        (["unit_kd_T4"], level("instance", 4.0)),
        (["unit_cc_T4"], level("class", 4.0)),
        (["unit_bc_T4"], level("batch", 4.0)),
        (["authors_loss_cc"], masked(level("class"))),
        (["authors_loss_bc"], masked(level("batch"))),
    ],
    "ls_mlkd": [
        (["unit_ls_kd_weak_T2"], level("instance", 2.0, standardize=True)),
        (["unit_ls_kd_weak_T4"], level("instance", 4.0, standardize=True)),
        (["unit_cc_weak_T2"], level("class", 2.0)),
        (["unit_bc_weak_T2"], level("batch", 2.0)),
        (["unit_cc_weak_T4"], level("class", 4.0)),
        (["unit_bc_weak_T4"], level("batch", 4.0)),
    ],
    "rld": [
        refined("a1_b0_T4_Ta1", 4.0, 1.0, 0.0, 1.0),
        refined("a0_b1_T4_Ta1", 4.0, 0.0, 1.0, 1.0),
        refined("a1_b8_T4_Ta1", 4.0, 1.0, 8.0, 1.0),
        refined("a1_b8_T4_Ta4", 4.0, 1.0, 8.0, 4.0),
        refined("a1_b0.5_T1_Ta1", 1.0, 1.0, 0.5, 1.0),
        (
            ["authors_a9_b72_T2_Ta2_ls"],
            read(losses.RefinedKL(2.0, alpha=9.0, beta=72.0, confidence_temperature=2.0, standardize=True)),
        ),
        (
            ["authors_class_epoch5_warmup20"],
            lambda g: ce(g) + losses.LinearWarmup(value=1.0, epochs=20)(5) * read(losses.RefinedKL())(g),
        ),
    ],
    "ls_dkd": [
        standardised_dkd("al9_be72_T2", 9.0, 72.0),
        standardised_dkd("al9_be4.5_T2", 9.0, 4.5),
        standardised_dkd("al9_be0_T2", 9.0, 0.0),
        standardised_dkd("al0_be9_T2", 0.0, 9.0),
    ],
}
QUIRKS: list[tuple[str, str, Compute]] = [
    # An option of the reduction, "mean", that sums over the batch.
    ("dkd", "mmrazor_mean_a1_b8_T4", read(losses.DecoupledKL(4.0, beta=8.0))),
    # T^2 dropped when the cross-entropy has no weight.
    ("logit_std", "td_alpha0_T2_quirk", read(losses.StandardizedKL())),
]
# Cases of edge_cases.npz, and the loss that gives their values.
EDGES: dict[str, nn.Module] = {
    "dkd_1_8_4": losses.DecoupledKL(4.0, beta=8.0),
    "nkd": losses.NormalizedKD(),
    "dist": losses.PearsonDistance(),
    "logit_std_T2": losses.StandardizedKL(),
    "wsld": losses.WeightedSoftLabels(),
}
# Method -> file of golden numbers, where it is not called after the method.
FILES: dict[str, list[str]] = {"lskd": ["logit_std"], "mlkd": ["mlld"]}
MAKE: dict[str, Callable[[], nn.Module]] = {
    "dkd": losses.DecoupledKL,
    "nkd": losses.NormalizedKD,
    "dist": losses.PearsonDistance,
    "lskd": losses.StandardizedKL,
    "wsld": losses.WeightedSoftLabels,
    "normkd": losses.SpreadTemperatureKL,
    "ttm": losses.TransformedTeacherKL,
    "wttm": lambda: losses.TransformedTeacherKL(weighted=True),
    "mlkd": losses.MultiLevelAlignment,
    "mlkd_batch": lambda: losses.MultiLevelAlignment("batch"),
    "mlkd_class": lambda: losses.MultiLevelAlignment("class"),
    "mlkd_standardised": lambda: losses.MultiLevelAlignment(standardize=True),
    "rld": losses.RefinedKL,
    "rld_standardised": lambda: losses.RefinedKL(standardize=True),
    "skd": losses.DirectionDistance,
    "dkd_standardised": lambda: losses.DecoupledKL(standardize=True),
}


def logits(batch: int, classes: int, *, seed: int, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, classes, generator=generator, dtype=torch.float64) * scale


def inputs(loss: nn.Module, batch: int, classes: int = 5, *, scale: float = 1.0) -> dict[str, Tensor]:
    """Random logits of both networks, and labels."""
    sides = {side: logits(batch, classes, seed=seed, scale=scale) for side, seed in (("student", 1), ("teacher", 2))}
    return fed(loss, **sides, target=torch.arange(batch) % classes)


def gradient(loss: nn.Module, values: dict[str, Tensor], dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Value and gradient at the student, after checking that both are finite."""
    values = {name: value.to(dtype) if value.is_floating_point() else value for name, value in values.items()}
    student = values["student"].clone().requires_grad_()
    value = loss(**{**values, "student": student})
    value.backward()
    assert value.isfinite() and student.grad.isfinite().all()
    return value.detach(), student.grad

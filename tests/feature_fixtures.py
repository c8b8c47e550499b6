"""The losses over maps and relations since 2020: how each is built and fed, and which reference cases it equals."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from distill_app import adapters, losses

Compute = Callable[[SimpleNamespace], Tensor]


def pair(loss: nn.Module, student: str = "student_feat", teacher: str = "teacher_feat") -> Compute:
    """The loss of two of the golden inputs."""
    return lambda g: loss(student=getattr(g, student), teacher=getattr(g, teacher))


GOLDENS: dict[str, list[tuple[list[str], Compute]]] = {
    "cwd": [
        (["mmrazor_tau1", "authors_tau1", "cirkd_tau1"], pair(losses.ChannelwiseKL(1.0))),
        (["mmrazor_tau4", "authors_tau4", "cirkd_tau4"], pair(losses.ChannelwiseKL())),
        (["authors_spatial_tau4"], pair(losses.ChannelwiseKL(over="channels"))),
    ],
    "pkd": [
        (["mmrazor", "mmrazor_2levels"], pair(losses.PearsonImitation())),
        (["mmrazor_resize_student"], pair(losses.PearsonImitation(), "student_small")),
        (["mmrazor_resize_teacher"], pair(losses.PearsonImitation(resize="teacher"), "student_small")),
    ],
    "nst": [
        (["repdistiller", "mdistiller", "aberhu"], pair(losses.NeuronSelectivity())),
        (["repdistiller_mismatch"], pair(losses.NeuronSelectivity(), teacher="teacher_feat_small")),
    ],
    "kdsvd": [
        (
            ["repdistiller_k1"],
            lambda g: losses.SingularVectors()(student=[g.s1, g.s2], teacher=[g.t1, g.t2]),
        ),
    ],
    "ickd": [
        (["authors_cifar_no_embed"], pair(losses.ChannelCorrelation(), "student_same")),
        # Divided by the batch size once more.
        (["td_no_embed"], lambda g: pair(losses.ChannelCorrelation(), "student_same")(g) / len(g.student_same)),
    ],
}
# Cases that are not what we define: file, case, what ours gives.
QUIRKS: list[tuple[str, str, Compute]] = [
    # Divided by the batch size once more.
    ("ickd", "td_no_embed", pair(losses.ChannelCorrelation(), "student_same")),
    # Matrices (C H, W) in the place of (H W, C).
    ("kdsvd", "mdistiller_k1", lambda g: losses.SingularVectors()(student=[g.s1, g.s2], teacher=[g.t1, g.t2])),
]


def channel_correlation(numbers: Any, case: str) -> Tensor:
    g, kernel = numbers.inputs, 3 if "3x3" in case else 1
    adapter = adapters.ConvRegressor(
        g.student_feat.shape, g.teacher_feat.shape, norm=True, pointwise=True, kernel_size=kernel
    )
    loss = losses.ChannelCorrelation()(student=numbers.load(adapter, case)(g.student_feat), teacher=g.teacher_feat)
    return loss / len(g.student_feat) if case.startswith("td") else loss


def translated(numbers: Any, case: str) -> Tensor:
    """KTA of what the encoder gives, or the affinity."""
    g, affinity = numbers.inputs, case == "td_affinity"
    shapes = (g.student_feat.shape, g.teacher_feat.shape)
    options = {"kernel_size": 3, "pointwise": True, "bias": True, "norm": not affinity, "activation": not affinity}
    student = numbers.load(adapters.ConvRegressor(*shapes, **options), case)(g.student_feat)
    loss = losses.AffinityDistance() if affinity else losses.FactorTransfer(2 if "p2" in case else 1)
    return loss(student=student, teacher=g.teacher_feat)


def calibrated(numbers: Any, case: str) -> Tensor:
    """SemCKD; all cases have the parameters of the first."""
    g = numbers.inputs
    student, teacher = [g.s1, g.s2], [g.t1, g.t2, g.t3]
    shapes = {side: [feature.shape for feature in maps] for side, maps in (("student", student), ("teacher", teacher))}
    temperature = 8**0.5 if case == "simkd_repo_softsqrtB" else 1.0
    attention = adapters.BatchSimilarityAttention(shapes, batch_size=8, temperature=temperature)
    numbers.load(attention.keys, "authors", "key_weight")
    numbers.load(attention.queries, "authors", "query_weight")
    projections = numbers.load(adapters.CrossLayerProjections(*shapes.values()), "authors", "regressor")
    weights = attention({"student": student, "teacher": teacher})
    torch.testing.assert_close(weights.detach(), numbers.arrays[f"{case}/out/attention"])
    return losses.SemanticCalibration()(student=projections(student), teacher=teacher, attention=weights)


def attended(numbers: Any, case: str) -> Tensor:
    """AFD; all cases have the parameters of the first."""
    g = numbers.inputs
    sides = {"student": [g.s1, g.s2, g.s3], "teacher": [g.t1, g.t2, g.t3]}
    shapes = {side: [feature.shape for feature in maps] for side, maps in sides.items()}
    attention = numbers.load(adapters.CrossLayerAttention(shapes, width=8), "authors")
    return losses.AttendedTransfer()(**sides, attention=attention(sides))


# Those of a loss behind adapters: file, case, the loss of (the numbers, the case).
MODULES: list[tuple[str, str, Callable[[Any, str], Tensor]]] = [
    ("ickd", "authors_cifar_embed1x1_bn", channel_correlation),
    ("ickd", "td_embed3x3_bn", channel_correlation),
    *[("ktaad", case, translated) for case in ("td_kta_p1_q2", "td_kta_p2_q2", "td_affinity")],
    *[("semckd", case, calibrated) for case in ("authors", "simkd_repo_soft1", "simkd_repo_softsqrtB")],
    *[("afd", case, attended) for case in ("authors", "formula", "fork")],
]
# Cases of edge_cases.npz: which input, and the loss that gives their values.
EDGES: dict[str, tuple[str, nn.Module]] = {
    "cwd": ("feat", losses.ChannelwiseKL(1.0)),
    "pkd": ("feat", losses.PearsonImitation()),
    "nst": ("feat", losses.NeuronSelectivity()),
}
# Method -> files of golden numbers, where they are not called after the method.
FILES: dict[str, list[str]] = {"kta": ["ktaad"]}


def tensor(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def maps(student: tuple[int, ...], teacher: tuple[int, ...] | None = None) -> Callable[[int], dict[str, Tensor]]:
    """Random maps of both networks for a batch size; shapes are without the batch dimension."""
    return lambda batch: {
        "student": tensor(batch, *student, seed=1),
        "teacher": tensor(batch, *(teacher or student), seed=2),
    }


def layers(batch: int) -> dict[str, list[Tensor]]:
    """Maps of three layers of both networks."""
    return {
        "student": [tensor(batch, 3, 8, 8, seed=1), tensor(batch, 4, 4, 4, seed=2), tensor(batch, 5, 1, 1, seed=3)],
        "teacher": [tensor(batch, 3, 4, 4, seed=4), tensor(batch, 4, 4, 4, seed=5), tensor(batch, 5, 2, 2, seed=6)],
    }


def with_attention(batch: int) -> dict[str, Any]:
    """Maps of three layers, those of both networks by an attention between them."""
    return {**layers(batch), "attention": tensor(batch, 3, 3, seed=7).softmax(dim=2)}


def predicted(batch: int) -> dict[str, Any]:
    """The same with a prediction of each map from each of two layers in the place of the student's maps."""
    given = layers(batch)
    student = [[given["student"][j] + i * given["teacher"][j].mean() for j in range(3)] for i in range(2)]
    return {"student": student, "teacher": given["teacher"], "attention": tensor(batch, 2, 3, seed=7).softmax(dim=2)}


# Name -> a fresh loss, its inputs for a batch size.
MAKE: dict[str, tuple[Callable[[], nn.Module], Callable[[int], dict[str, Any]]]] = {
    "cwd": (losses.ChannelwiseKL, maps((4, 4, 4), (4, 8, 8))),
    "cwd_channels": (lambda: losses.ChannelwiseKL(over="channels"), maps((4, 4, 4))),
    "pkd": (losses.PearsonImitation, maps((4, 4, 4), (4, 8, 8))),
    "pkd_teacher": (lambda: losses.PearsonImitation(resize="teacher"), maps((4, 4, 4), (4, 8, 8))),
    "nst": (losses.NeuronSelectivity, maps((4, 4, 4), (6, 8, 8))),
    "nst_wide": (losses.NeuronSelectivity, maps((12, 3, 3), (16, 2, 2))),
    "ickd": (losses.ChannelCorrelation, maps((4, 4, 4), (4, 8, 8))),
    "kdsvd": (losses.SingularVectors, layers),
    "kdsvd_2": (lambda: losses.SingularVectors(2), layers),
    "semckd": (losses.SemanticCalibration, predicted),
    "afd": (losses.AttendedTransfer, with_attention),
    "affinity": (losses.AffinityDistance, maps((4, 4, 4))),
}

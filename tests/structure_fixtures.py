"""The losses of several networks and of exits: how each is built and fed, and which reference cases it equals."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from distill_app import adapters, losses

Compute = Callable[[SimpleNamespace], Tensor]


def teachers(g: SimpleNamespace) -> list[Tensor]:
    return [g.teacher_logits_1, g.teacher_logits_2, g.teacher_logits_3]


def taught(weights: str, temperature: float, *, labels: float = 0.0) -> Compute:
    """A student with three teachers, beside labels or not."""
    loss = losses.MultiTeacherKL(temperature, weights=weights)

    def compute(g: SimpleNamespace) -> Tensor:
        kd = loss(student=g.student_logits, teachers=teachers(g), target=g.labels)
        return kd + labels * nn.functional.cross_entropy(g.student_logits, g.labels)

    return compute


def confident(g: SimpleNamespace) -> Tensor:
    """The feature part of CA-MKD, the classifiers being an average and a linear layer."""
    maps = [getattr(g, f"student_feat_{k}") for k in (1, 2, 3)]
    heads = [(getattr(g, f"head_weight_{k}").detach(), getattr(g, f"head_bias_{k}").detach()) for k in (1, 2, 3)]
    logits = [nn.functional.linear(each.mean(dim=(2, 3)), *head) for each, head in zip(maps, heads, strict=True)]
    wanted = [getattr(g, f"teacher_feat_{k}") for k in (1, 2, 3)]
    return losses.ConfidenceDistance()(student=maps, teachers=wanted, logits=logits, target=g.labels)


def without_features(g: SimpleNamespace) -> Tensor:
    """The first epoch of CA-MKD: the references' gradients of features are zeros."""
    return taught("labels", 4.0, labels=1.0)(g) + 0 * confident(g)


def exits(temperature: float, share: float, feature: float) -> Compute:
    """BYOT of three exits and the last one."""
    ce, soft, active = nn.functional.cross_entropy, losses.SoftCrossEntropy(temperature), losses.ActiveDistance()

    def compute(g: SimpleNamespace) -> Tensor:
        total = (1 - share) * ce(g.final, g.labels) + 0 * g.feat_final.sum()
        for logits, features in ((g.exit1, g.feat1), (g.exit2, g.feat2), (g.exit3, g.feat3)):
            total = total + (1 - share) * ce(logits, g.labels) + share * soft(student=logits, teacher=g.final)
            total = total + feature * active(student=features, teacher=g.feat_final)
        return total

    return compute


def token(share: float, distill: nn.Module, *, smoothing: float = 0.0) -> Compute:
    """DeiT: the class token learns labels, the distillation token the teacher's."""

    def compute(g: SimpleNamespace) -> Tensor:
        labels = nn.functional.cross_entropy(g.cls_logits, g.labels, label_smoothing=smoothing)
        return (1 - share) * labels + share * distill(student=g.dist_logits, teacher=g.teacher_logits)

    return compute


def one_for_all(gamma: float, temperature: float) -> Compute:
    loss = losses.OneForAllCE(gamma, temperature=temperature)
    return lambda g: loss(student=g.student_logits, teacher=g.teacher_logits, target=g.labels)


KL = losses.KLDivergence
FILES = {"multi_teacher": ["ebkd", "ca_mkd"], "ban": ["kd"]}
GOLDENS: dict[str, list[tuple[list[str], Compute]]] = {
    "ebkd": [
        (["ebkd_kd_only_T4"], taught("entropy", 4.0)),
        (["ebkd_kd_only_T2"], taught("entropy", 2.0)),
        (["ebkd_full_r1_a1_T4"], taught("entropy", 4.0, labels=1.0)),
        (["average_kd_only_T4"], taught("mean", 4.0)),
        (["average_kd_only_T2"], taught("mean", 2.0)),
        (["average_full_r1_a1_T4"], taught("mean", 4.0, labels=1.0)),
    ],
    "ca_mkd": [
        (["kd_only_T4"], taught("labels", 4.0)),
        (["kd_only_T2"], taught("labels", 2.0)),
        (["feat_class"], confident),
        (["full_r1_a1_b50_T4"], lambda g: taught("labels", 4.0, labels=1.0)(g) + 50 * confident(g)),
        (["full_epoch1_T4"], without_features),
    ],
    "byot": [
        (["soft_ce_exit1_T3"], lambda g: losses.SoftCrossEntropy()(student=g.exit1, teacher=g.final)),
        (["soft_ce_exit1_T4"], lambda g: losses.SoftCrossEntropy(4.0)(student=g.exit1, teacher=g.final)),
        (["loop_T3_a0.1_b1e-06"], exits(3.0, 0.1, 1e-6)),
        (["loop_T3_a0.3_b0.03"], exits(3.0, 0.3, 0.03)),
        (["loop_T4_a0.5_b0.01"], exits(4.0, 0.5, 0.01)),
    ],
    "deit_token": [
        (["authors_hard_a0.5_T1", "timm_hard_a0.5_T1"], token(0.5, losses.TeacherLabels())),
        (["authors_hard_a0.5_labelsmoothing0.1"], token(0.5, losses.TeacherLabels(), smoothing=0.1)),
        (["authors_soft_a0.5_T1"], token(0.5, KL(1.0, reduction="mean"))),
        (["timm_soft_a0.5_T1"], token(0.5, KL(1.0))),
        (["authors_soft_a0.1_T3"], token(0.1, KL(3.0, reduction="mean"))),
        (["timm_soft_a0.1_T3"], token(0.1, KL(3.0))),
    ],
    "ofa_kd": [
        (["authors_g1_T1", "formula_g1_T1"], one_for_all(1.0, 1.0)),
        (["authors_g1.5_T1", "formula_g1.5_T1"], one_for_all(1.5, 1.0)),
        (["authors_g1.4_T2", "formula_g1.4_T2"], one_for_all(1.4, 2.0)),
        (["authors_g2_T4", "formula_g2_T4"], one_for_all(2.0, 4.0)),
    ],
}


def branches(kind: str) -> Callable[[Any, str], Tensor]:
    """OFA-KD with branches of the third and the fourth stage."""

    def compute(numbers: Any, case: str) -> Tensor:
        g, total = numbers.inputs, 0.0
        loss, ce = losses.OneForAllCE(1.5), nn.functional.cross_entropy
        for stage in (3, 4):
            source = getattr(g, f"{'f' if kind == 'conv' else 'v'}{stage}")
            options: dict[str, Any] = {"num_classes": 10, "stage": f"stage{stage}"}
            if kind == "conv":
                branch: nn.Module = adapters.ConvBranch(source.shape, [(8, 8), (8, 9)], **options)
            else:
                branch = adapters.TokenBranch(source.shape, **options)
            logits = numbers.load(branch, case, f"projector.{stage}.")(source)
            total = total + loss(student=logits, teacher=g.teacher_logits, target=g.labels)
        final = loss(student=g.student_logits, teacher=g.teacher_logits, target=g.labels)
        return ce(g.student_logits, g.labels) + final + total

    return compute


def as_map(tokens: Tensor) -> Tensor:
    """(B, N, D) patches as a map."""
    side = int(tokens.shape[1] ** 0.5)
    return tokens.transpose(1, 2).unflatten(2, (side, side))


def vit(low: float, high: float, *, same: bool = False) -> Callable[[Any, str], Tensor]:
    """ViTKD of two low layers and the last one."""

    def compute(numbers: Any, case: str) -> Tensor:
        g, end = numbers.inputs, "_same" if same else ""
        shallow, deep = getattr(g, f"s_low{end}"), getattr(g, f"s_high{end}")
        generator = adapters.MaskedTokens(as_map(deep).shape, as_map(g.t_high).shape)
        numbers.load(generator.generation, case, "generation.")
        numbers.loaded += _filled(generator, numbers.arrays, case)
        total = torch.zeros(())
        for layer in (0, 1):
            source, wanted = as_map(shallow[:, layer]), as_map(g.t_low[:, layer])
            fit = nn.Identity() if same else adapters.ConvRegressor(source.shape, wanted.shape)
            ours = (fit if same else numbers.load(fit, case, f"align2.{layer}."))(source)
            total = total + low * losses.SquaredDistance()(student=ours, teacher=wanted)
        made = generator(as_map(deep), noise=g.rand_noise.detach())
        return total + high * losses.MaskedDistance()(student=made["map"], teacher=as_map(g.t_high), mask=made["mask"])

    return compute


def _filled(generator: nn.Module, arrays: dict[str, Tensor], case: str) -> list[tuple[str, nn.Parameter]]:
    """Loads the mask token and the layer in front of the generator."""
    named = {"mask_token": generator.token}
    if isinstance(generator.align, nn.Conv2d):
        named |= {"align.weight": generator.align.weight, "align.bias": generator.align.bias}
    generator.double()
    for name, parameter in named.items():
        parameter.data.copy_(arrays[f"{case}/param/{name}"].view_as(parameter))
    return list(named.items())


MODULES = [
    ("ofa_kd", "authors_cnn_branches", branches("conv")),
    ("ofa_kd", "authors_vit_branches", branches("token")),
    ("vitkd", "authors_l0.5_a3e-05_b3e-06", vit(3e-5, 3e-6)),
    ("vitkd", "authors_l0.5_a0.3_b0.2", vit(0.3, 0.2)),
    ("vitkd", "authors_equal_dims", vit(3e-5, 3e-6, same=True)),
]

"""The losses over maps and relations since 2020: how each is built and fed, and which reference cases it equals."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from distill_app import adapters, losses, models

Compute = Callable[[SimpleNamespace], Tensor]


def pair(loss: nn.Module, student: str = "student_feat", teacher: str = "teacher_feat") -> Compute:
    """The loss of two of the golden inputs."""
    return lambda g: loss(student=getattr(g, student), teacher=getattr(g, teacher))


def regions(base: nn.Module, count: int = 21) -> Compute:
    """SDD of the first regions."""
    return lambda g: losses.ScaleDecoupled(base)(
        student=g.student_regions[..., :count], teacher=g.teacher_regions[..., :count], target=g.labels
    )


def spherical(temperature: float, share: float, multiplier: float | None = None) -> Compute:
    """Spherical KD with the teacher's spread, or with a fixed one."""

    def compute(g: SimpleNamespace) -> Tensor:
        student, teacher = g.student_logits, g.teacher_logits
        if multiplier is None:
            student = adapters.RescaledLogits([student.shape, teacher.shape])([student, teacher])
        else:
            norm = adapters.NormedLogits(multiplier=multiplier)
            student, teacher = norm(student), norm(teacher)
        kd = losses.KLDivergence(temperature)(student=student, teacher=teacher)
        return (1 - share) * nn.functional.cross_entropy(student, g.labels) + share * kd

    return compute


def transported(temperature: float, weight: float, **options: Any) -> Compute:
    """WKD-L: the label, and the cost of moving the other classes."""
    distance = losses.SinkhornDistance(temperature, **options)

    def compute(g: SimpleNamespace) -> Tensor:
        sides = {"student": g.student_logits, "teacher": g.teacher_logits, "target": g.labels}
        return losses.NormalizedKD(gamma=0.0)(**sides) + weight * distance(**sides, cost=g.cost)

    return compute


CRLD = ("deepkd_copy", "scx_copy", "own_formula")


def views(temperature: float, labels: float, **options: float) -> Compute:
    """CRLD of both views, rows grouped by image, and their labels."""
    loss, ce = losses.CrossViewKL(temperature, **options), nn.functional.cross_entropy

    def compute(g: SimpleNamespace) -> Tensor:
        sides = {
            side: torch.stack([getattr(g, f"{side}_weak"), getattr(g, f"{side}_strong")], dim=1).flatten(0, 1)
            for side in ("student", "teacher")
        }
        return labels * (ce(g.student_weak, g.labels) + ce(g.student_strong, g.labels)) + loss(**sides)

    return compute


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
    "dist_plus": [
        # Of the features alone; the reference's clamp of the denominator is none.
        (
            ["td_spatial_only"],
            lambda g: pair(losses.FeatureCorrelation(channels=0.0, eps=0.0))(g) + 0 * g.student_logits.sum(),
        ),
    ],
    "catkd": [
        (["authors_res2_normTrue"], pair(losses.ClassMapDistance(), "student_cam", "teacher_cam")),
        (["authors_res2_normFalse"], pair(losses.ClassMapDistance(normalize=False), "student_cam", "teacher_cam")),
        (["authors_res8_normTrue"], pair(losses.ClassMapDistance(8), "student_cam", "teacher_cam")),
    ],
    "sdd": [
        (["authors_kd_T4", "own_formula_kd_T4"], regions(losses.KLDivergence(4.0))),
        (["authors_kd_T4_M12"], regions(losses.KLDivergence(4.0), 5)),
        (["authors_dkd_al1_be8_T4"], regions(losses.DecoupledKL(4.0, alpha=1.0, beta=8.0))),
        (["authors_dkd_al1_be0.5_T1"], regions(losses.DecoupledKL(1.0, alpha=1.0, beta=0.5))),
        (["clean_nkd_T1_g1.5"], regions(losses.NormalizedKD(1.0, gamma=1.5))),
    ],
    "sphericalkd": [
        ([f"{who}_loop_T4_a0.9" for who in ("authors", "own_formula")], spherical(4.0, 0.9)),
        ([f"{who}_loop_T1_a0.5" for who in ("authors", "own_formula")], spherical(1.0, 0.5)),
        (["readme_ln_kl_T4_a0.9_m2"], spherical(4.0, 0.9, multiplier=2.0)),
        (["readme_ln_kl_T1_a0.5_m2.5"], spherical(1.0, 0.5, multiplier=2.5)),
    ],
    "wkd": [
        (["authors_logit_sep_T2_reg0.05_n10_w30"], transported(2.0, 30.0)),
        (["authors_logit_sep_T8_reg0.05_n10_w600"], transported(8.0, 600.0)),
        (["authors_logit_sep_T4_reg0.1_n50_w1"], transported(4.0, 1.0, regularization=0.1, iterations=50)),
        (["authors_feat_grid1_ratio2"], pair(losses.GaussianDistance())),
        (["authors_feat_grid2_ratio2"], pair(losses.GaussianDistance(2))),
        (["authors_feat6_grid4_ratio2"], pair(losses.GaussianDistance(4), "student_feat6", "teacher_feat6")),
    ],
    "crld": [
        ([f"{who}_ce1_wv2_cv0.5_T4_tw0.9_ts0.2" for who in CRLD], views(4.0, 1.0)),
        ([f"{who}_ce2_wv2_cv0.5_T1_tw0.9_ts0.2" for who in CRLD], views(1.0, 2.0)),
        (
            [f"{who}_ce1_wv1_cv0.5_T4_tw0.8_ts0.85" for who in CRLD],
            views(4.0, 1.0, within=1.0, weak_confidence=0.8, strong_confidence=0.85),
        ),
        (["own_wv_ce1_wv2_cv0.5_T4_tw0.9_ts0.2"], views(4.0, 0.0, across=0.0)),
        (["own_cv_ce1_wv2_cv0.5_T4_tw0.9_ts0.2"], views(4.0, 0.0, within=0.0)),
    ],
    "skd": [
        (["td_direction"], pair(losses.DirectionDistance(), "student_logits", "teacher_logits")),
        # Without T^2.
        (
            ["td_instance_T4"],
            lambda g: pair(losses.KLDivergence(4.0), "student_logits", "teacher_logits")(g) / 16,
        ),
    ],
    "reviewkd": [
        (["hcl_only_8x8"], lambda g: losses.HierarchicalContext()(student=[g.h_s], teacher=[g.t1])),
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
    # The correlation over channels itself, which minimising makes small.
    ("dist_plus", "td_channel_only", pair(losses.FeatureCorrelation(space=0.0))),
    # A mask that leaves nothing out of the other classes.
    ("sdd", "authors_nkd_T1_g1.5_quirk", regions(losses.NormalizedKD(1.0, gamma=1.5))),
    # Cross-entropy in the place of the divergence: larger by the teacher's entropy.
    ("sphericalkd", "paddle_ln_T4_a0.9_m2", spherical(4.0, 0.9, multiplier=2.0)),
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


def reviewed(numbers: Any, case: str) -> Tensor:
    """ReviewKD over three levels; all cases have the parameters of the first, and one the weight of a quarter."""
    g, residual, features = numbers.inputs, [], []
    for level, (student, teacher) in enumerate(((g.s3, g.t3), (g.s2, g.t2), (g.s1, g.t1))):
        shapes = [student.shape, *(deeper.shape for deeper in residual)]
        fusion = adapters.ReviewFusion(shapes if residual else shapes[0], teacher.shape)
        numbers.load(fusion, "mdistiller_epoch20", f"{level}.")
        fused = fusion([student, *residual] if residual else student)
        residual, features = [fused["residual"]], [fused["feature"], *features]
    review = losses.HierarchicalContext()(student=features, teacher=[g.t1, g.t2, g.t3])
    warmup = losses.LinearWarmup(value=1.0, epochs=20)(5 if "epoch5" in case else 20)
    return warmup * review


def overhauled(numbers: Any, case: str) -> Tensor:
    """OFD of two layers, or of one with margins of the batch, divided by all elements."""
    g, parameters = numbers.inputs, "aberhu_layer1" if case == "aberhu_layer1" else "mdistiller_2layers"
    total = 0.0
    for layer in (1,) if case == "aberhu_layer1" else (1, 2):
        student, teacher = getattr(g, f"s{layer}"), getattr(g, f"t{layer}")
        connector = adapters.ConvRegressor(student.shape, teacher.shape, norm=True, bias=False, pointwise=True)
        numbers.load(connector, parameters, "connector." if len(parameters) < 15 else f"connectors.{layer - 1}.")
        margin = getattr(g, f"margin{layer}")
        if case == "aberhu_layer1":
            margin = adapters.NegativeMargin(teacher.shape)(teacher)
        loss = losses.MarginDistance()(student=connector(student), teacher=teacher, margin=margin)
        total = total + loss * 2.0 ** (layer - 2)
    return total * {"aberhu_layer1": 2 / g.t1[0].numel(), "mmrazor_2layers": 1e-3}.get(case, 1.0)


def generated(numbers: Any, case: str) -> Tensor:
    """MGD with the stored noise; the authors' code for classification masks what lies below the share."""
    g, channels = numbers.inputs, "channel" in case
    module = adapters.MaskedGenerator(
        g.student_feat.shape,
        g.teacher_feat.shape,
        masked=0.15 if channels else 0.65,
        mask="channel" if channels else "position",
    )
    noise = g.rand_channel if channels else g.rand_spatial
    noise = 1 - noise if case == "authors_cls_channel_l0.15" else noise
    made = numbers.load(module, case)(g.student_feat, noise.detach())
    weight = 7e-5 if case == "authors_cls_channel_l0.15" else 2e-5
    return weight * losses.SquaredDistance()(student=made, teacher=g.teacher_feat)


def whitened(numbers: Any, case: str) -> Tensor:
    """SRD of pooled maps, and KD at temperature 1."""
    g = numbers.inputs
    student, teacher = g.student_feat.mean(dim=(2, 3)), g.teacher_feat.mean(dim=(2, 3))
    parameters = "td_exp1_T1" if "exp1" in case else "td_exp4_T1"
    projection = numbers.load(adapters.LinearProjector(student.shape, teacher.shape), parameters)
    loss = losses.WhitenedLogDistance(1.0 if "exp1" in case else 4.0)
    kd = losses.KLDivergence(1.0)(student=g.student_logits, teacher=g.teacher_logits)
    return loss(student=projection(student), teacher=teacher) + kd


def reused(numbers: Any, case: str) -> Tensor:
    """SimKD: the projected map, and what the teacher's classifier says of it."""
    g = numbers.inputs
    teacher = g.teacher_feat_small if case == "authors_student_larger" else g.teacher_feat
    projector = numbers.load(models.FeatureProjector(g.student_feat.shape, teacher.shape), case, "proj.")
    projected = projector(g.student_feat)
    arrays = {part: numbers.arrays[f"{case}/{part}"] for part in ("param/cls_t.weight", "param/cls_t.bias")}
    said = nn.functional.linear(projected.mean(dim=(2, 3)), *arrays.values())
    torch.testing.assert_close(said.detach(), numbers.arrays[f"{case}/out/pred_logits"])
    return losses.MapDistance()(student=projected, teacher=teacher)


def self_taught(numbers: Any, case: str) -> Tensor:
    """USKD with its weak classifier."""
    g = numbers.inputs
    linear = numbers.load(adapters.LinearProjector(g.mid_feat.shape, out_features=10), case)
    return losses.CustomizedSoftLabels()(student=g.student_logits, weak=linear(g.mid_feat), target=g.labels)


def of_regions(numbers: Any, case: str) -> Tensor:
    """SDD of maps, through the networks' classifiers, beside the labels."""
    g, logits = numbers.inputs, {}
    for side in ("student", "teacher"):
        feature, weight, bias = (getattr(g, f"{side}_{part}") for part in ("map", "fc_w", "fc_b"))
        classifier = nn.Linear(*reversed(weight.shape)).double()
        classifier.weight, classifier.bias = nn.Parameter(weight.detach()), nn.Parameter(bias.detach())
        if side == "student":  # gradients are compared at the inputs
            del classifier.weight, classifier.bias
            classifier.weight, classifier.bias = weight, bias
        pooled = feature.mean(dim=(2, 3))
        regions = adapters.RegionLogits([feature.shape, pooled.shape], borrowed=classifier)
        logits[side] = regions([feature, pooled])
        wanted = numbers.arrays[f"authors_spp_1_2_4/out/{side}_regions"]
        torch.testing.assert_close(logits[side].detach(), wanted, rtol=1e-9, atol=1e-12)
    whole = nn.functional.linear(g.student_map.mean(dim=(2, 3)), g.student_fc_w, g.student_fc_b)
    kd = losses.ScaleDecoupled(losses.KLDivergence(4.0))(**logits, target=g.labels)
    return 0.1 * nn.functional.cross_entropy(whole, g.labels) + 0.9 * kd


def wasserstein(numbers: Any, case: str) -> Tensor:
    """WKD at epoch 200 of 240: labels, logits with costs of a classifier, features through a projector."""
    g = numbers.inputs
    classifier = nn.Linear(12, 10).double()
    classifier.weight.data.copy_(g.fc_weight)
    plain = adapters.ClassCosts(borrowed=classifier, sharpen=0.0)(g.teacher_logits)
    torch.testing.assert_close(plain, numbers.arrays["cost_fc_cosine/out/cost"])
    costs = adapters.ClassCosts(borrowed=classifier)(g.teacher_logits)
    sides = {"student": g.student_logits, "teacher": g.teacher_logits, "target": g.labels}
    options = {"norm": True, "activation": True, "bias": True, "pointwise": True}
    projector = adapters.ConvRegressor(g.student_feat_b.shape, g.teacher_feat_b.shape, **options).double()
    parameters = numbers.below(f"{case}/param/")
    order = ("conv.weight", "conv.bias", "bn.weight", "bn.bias")
    for name, parameter in zip(order, projector.parameters(), strict=True):
        parameter.data.copy_(parameters[name].view_as(parameter))
        numbers.loaded.append((name, parameter))
    features = losses.GaussianDistance(1, ratio=8.0)(student=projector(g.student_feat_b), teacher=g.teacher_feat_b)
    logits, decay = losses.SinkhornDistance(8.0)(**sides, cost=costs), {"epochs": 240, "after": 150}
    falling = [losses.CosineDecay(value=value, **decay)(200) for value in (200.0, 0.08)]
    labels = nn.functional.cross_entropy(g.student_logits, g.labels) + losses.NormalizedKD(gamma=0.0)(**sides)
    return labels + falling[0] * logits + falling[1] * features


# Those of a loss behind adapters: file, case, the loss of (the numbers, the case).
MODULES: list[tuple[str, str, Callable[[Any, str], Tensor]]] = [
    ("ickd", "authors_cifar_embed1x1_bn", channel_correlation),
    ("ickd", "td_embed3x3_bn", channel_correlation),
    *[("ktaad", case, translated) for case in ("td_kta_p1_q2", "td_kta_p2_q2", "td_affinity")],
    *[("semckd", case, calibrated) for case in ("authors", "simkd_repo_soft1", "simkd_repo_softsqrtB")],
    *[("reviewkd", f"{case}", reviewed) for case in ("mdistiller_epoch20", "td", "authors_imagenet")],
    ("reviewkd", "mdistiller_epoch5_warmup", reviewed),
    *[("ofd", case, overhauled) for case in ("mdistiller_2layers", "authors_2layers_over_B", "mmrazor_2layers")],
    ("ofd", "aberhu_layer1", overhauled),
    *[("mgd", f"{who}_spatial_l0.65", generated) for who in ("mmrazor", "authors_det")],
    *[("mgd", f"{who}_channel_l0.15", generated) for who in ("mmrazor", "authors_cls")],
    *[("srd", case, whitened) for case in ("td_exp4_T1", "td_exp1_T1", "authors_exp4_T1")],
    *[("simkd", case, reused) for case in ("authors_same_size", "authors_student_larger")],
    ("wkd", "authors_class_lf_fc", wasserstein),
    ("uskd", "authors_int_labels", self_taught),
    ("sdd", "authors_class_kd_ce0.1_kd0.9", of_regions),
    *[("afd", case, attended) for case in ("authors", "formula", "fork")],
]
# Cases of edge_cases.npz: which input, and the loss that gives their values.
EDGES: dict[str, tuple[str, nn.Module]] = {
    "cwd": ("feat", losses.ChannelwiseKL(1.0)),
    "pkd": ("feat", losses.PearsonImitation()),
    "nst": ("feat", losses.NeuronSelectivity()),
}
# Method -> files of golden numbers, where they are not called after the method.
FILES: dict[str, list[str]] = {"kta": ["ktaad"], "cat_kd": ["catkd"], "skd_cvpr26": ["skd"], "crld": ["crld"]}


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


def levels(batch: int) -> dict[str, Any]:
    """Maps of three levels of equal shapes, the last an embedding."""
    shapes = ((3, 8, 8), (4, 2, 2), (5,))
    return {
        side: [tensor(batch, *shape, seed=seed + start) for seed, shape in enumerate(shapes)]
        for side, start in (("student", 1), ("teacher", 4))
    }


def with_margin(batch: int) -> dict[str, Tensor]:
    """Maps, and margins of channels below zero, the same for any batch."""
    return {**maps((4, 4, 4))(batch), "margin": -tensor(1, 4, 1, 1, seed=3).abs()}


def of_each_region(batch: int) -> dict[str, Tensor]:
    """Logits of regions, and labels."""
    return {**maps((5, 21))(batch), "target": torch.arange(batch) % 5}


def by_itself(batch: int) -> dict[str, Tensor]:
    """Logits of a network and of its weak classifier, and labels."""
    logits = {name: tensor(batch, 5, seed=seed) for seed, name in enumerate(("student", "weak"))}
    return {**logits, "target": torch.arange(batch) % 5}


def with_costs(batch: int) -> dict[str, Tensor]:
    """Logits, labels, and what it costs to take one class for another."""
    rows = nn.functional.normalize(tensor(5, 3, seed=3), dim=1)
    return {**maps((5,))(batch), "target": torch.arange(batch) % 5, "cost": 1 - rows @ rows.T}


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
    "dist_plus": (losses.FeatureCorrelation, maps((4, 4, 4), (4, 8, 8))),
    "dist_plus_channels": (lambda: losses.FeatureCorrelation(space=0.0), maps((4, 4, 4))),
    "cat_kd": (losses.ClassMapDistance, maps((5, 4, 4), (5, 7, 7))),
    "cat_kd_plain": (lambda: losses.ClassMapDistance(4, normalize=False), maps((5, 4, 4), (5, 1, 1))),
    "simkd": (losses.MapDistance, maps((4, 4, 4), (4, 7, 7))),
    "wkd": (losses.SinkhornDistance, with_costs),
    "wkd_features": (losses.GaussianDistance, maps((4, 4, 4), (4, 7, 7))),
    "wkd_cells": (lambda: losses.GaussianDistance(2), maps((4, 2, 2), (4, 3, 3))),
    "crld": (lambda: losses.CrossViewKL(weak_confidence=0.3), lambda b: maps((5,))(2 * b)),
    "skd": (losses.DirectionDistance, maps((5,))),
    "sdd": (lambda: losses.ScaleDecoupled(losses.KLDivergence()), of_each_region),
    "sdd_dkd": (lambda: losses.ScaleDecoupled(losses.DecoupledKL()), of_each_region),
    "sdd_nkd": (lambda: losses.ScaleDecoupled(losses.NormalizedKD()), of_each_region),
    "uskd": (losses.CustomizedSoftLabels, by_itself),
    "reviewkd": (losses.HierarchicalContext, levels),
    "ofd": (losses.MarginDistance, with_margin),
    "mgd": (losses.SquaredDistance, maps((4, 4, 4))),
    "srd": (losses.WhitenedLogDistance, maps((6,))),
    "srd_1": (lambda: losses.WhitenedLogDistance(1.0), maps((6,))),
    "semckd": (losses.SemanticCalibration, predicted),
    "afd": (losses.AttendedTransfer, with_attention),
    "affinity": (losses.AffinityDistance, maps((4, 4, 4))),
}

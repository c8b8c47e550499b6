"""Values and gradients equal those of the reference implementations, in every case that computes what we define."""

import re

import box_fixtures as boxes
import feature_fixtures as features
import pixel_fixtures as pixels
import pytest
import region_fixtures as regions
import structure_fixtures as structures
import torch
from logit_fixtures import FILES, GOLDENS, QUIRKS
from torch import nn

from distill_app import adapters, losses
from distill_app.config.methods import methods_of

CE, MSE = nn.CrossEntropyLoss(), nn.MSELoss()
KL = losses.KLDivergence


def kd(g, temperature, **options):
    return KL(temperature, **options)(student=g.student_logits, teacher=g.teacher_logits)


def ce(g):
    return CE(input=g.student_logits, target=g.labels)


def pair(loss, student="student_feat", teacher="teacher_feat"):
    return lambda g: loss(student=getattr(g, student), teacher=getattr(g, teacher))


def attention(g, pairs=1, **options):
    loss = losses.AttentionTransfer(**options)
    return sum(loss(student=getattr(g, f"s{i}"), teacher=getattr(g, f"t{i}")) for i in range(1, pairs + 1))


def flow(deep, **options):
    loss = losses.FlowOfSolution(**options)
    return lambda g: loss(student=[g.s1, getattr(g, f"s{deep}")], teacher=[g.t1, getattr(g, f"t{deep}")])


def boundary(weights, margin=1.0):
    loss = losses.ActivationBoundary(margin)
    return lambda g: sum(
        w * loss(student=getattr(g, f"s{i}"), teacher=getattr(g, f"t{i}")) for i, w in enumerate(weights, start=1)
    )


def rkd(distance, angle):
    return lambda g: (
        distance * losses.RelationalDistance()(student=g.student_feat, teacher=g.teacher_feat)
        + angle * losses.RelationalAngle()(student=g.student_feat, teacher=g.teacher_feat)
    )


def cckd(**options):
    return pair(losses.CorrelationCongruence(**options), "student_embed", "teacher_embed")


def reg(alpha, temperature, **options):
    loss = losses.VirtualTeacherKL(temperature, **options)
    return lambda g: (1 - alpha) * ce(g) + alpha * loss(student=g.student_logits, target=g.labels)


def sskd(weights, keep=1.0):
    def total(g):
        upright = adapters.SelectView()
        student, teacher = upright(g.student_logits), upright(g.teacher_logits)
        terms = (
            CE(input=student, target=g.labels),
            KL(4.0)(student=student, teacher=teacher),
            losses.SimilarityKL()(student=g.student_ss, teacher=g.teacher_ss),
            losses.RotatedKL(keep=keep)(student=g.student_logits, teacher=g.teacher_logits, target=g.labels),
        )
        # Terms without weight are in it so that the reference's zero gradients are gradients here.
        return sum(weight * term for weight, term in zip(weights, terms, strict=True))

    return total


def composite(g, model_weights):
    full_kd = 0.5 * ce(g) + 0.5 * kd(g, 4.0)
    total = 0.5 * ce(g) + 2.0 * full_kd + 15.0 * MSE(input=g.student_feat, target=g.teacher_feat.detach())
    return total + sum(w * value for w, value in zip(model_weights, g.model_losses, strict=True))


SIX = ["mdistiller", "repdistiller", "mmrazor_batchmean", "aberhu"]
TWO = ["repdistiller", "mdistiller", "aberhu"]
TABLE = {
    "kd": [
        ([f"soft_T4_{source}" for source in SIX], lambda g: kd(g, 4.0)),
        (["soft_T4_mmrazor_mean"], lambda g: kd(g, 4.0, reduction="mean")),
        (["soft_T1_mdistiller"], lambda g: kd(g, 1.0)),
        (["td_T1_a0.5_batchmean"], lambda g: 0.5 * ce(g) + 0.5 * kd(g, 1.0)),
        (["td_T4_a0.5_batchmean", "full_T4_szagoruyko"], lambda g: 0.5 * ce(g) + 0.5 * kd(g, 4.0)),
        (["td_T4_a0.1_b0.9_batchmean"], lambda g: 0.1 * ce(g) + 0.9 * kd(g, 4.0)),
        (
            ["td_T4_a0.5_sum"],
            lambda g: (
                0.5 * nn.CrossEntropyLoss(reduction="sum")(g.student_logits, g.labels)
                + 0.5 * kd(g, 4.0, reduction="sum")
            ),
        ),
        (["td_T4_a0.5_mean"], lambda g: 0.5 * ce(g) + 0.5 * kd(g, 4.0, reduction="mean")),
    ],
    "at": [
        (["td_code", "repdistiller_p2", "mdistiller_p2", "mmrazor", "szagoruyko", "lenscloth", "cirkd"], attention),
        (["repdistiller_p4"], lambda g: attention(g, exponent=4)),
        (["repdistiller_size_mismatch"], pair(losses.AttentionTransfer(), "s1", "t1big")),
        (["td_paper"], lambda g: attention(g, norm="p")),
        (["td_code_2pairs"], lambda g: attention(g, 2)),
        (["td_paper_2pairs"], lambda g: attention(g, 2, norm="p")),
        (["td_official_config_full"], lambda g: ce(g) + 1000 * attention(g, 2)),
        (["paper_eq4_full_beta1000"], lambda g: ce(g) + 500 * attention(g, 2)),
        (["paper_eq3_full_beta1000_p2"], lambda g: ce(g) + 500 * attention(g, 2, norm="p")),
        (["paper_eq3_full_beta1000_p1"], lambda g: ce(g) + 500 * attention(g, 2, norm="p", p=1)),
    ],
    "ft": [
        (
            ["td_factor_p1", "mmrazor_factor", "aberhu_factor", "authors_factor"],
            pair(losses.FactorTransfer(), "factor_s", "factor_t"),
        ),
        (["td_factor_p2"], pair(losses.FactorTransfer(p=2), "factor_s", "factor_t")),
    ],
    "fsp": [
        (["paper_same"], flow("2")),
        (["paper_down"], flow("2h")),
        (["repdistiller_same", "aberhu_same"], flow("2", reduction="mean")),
        (["repdistiller_down", "aberhu_down"], flow("2h", reduction="mean")),
        (["td_same"], flow("2", pool="max", reduction="columns")),
        (["td_down"], flow("2h", pool="max", reduction="columns")),
    ],
    "pkt": [
        (["td", "repdistiller", "mdistiller", "authors"], pair(losses.ProbabilisticTransfer())),
        (["aberhu_eps1e-6"], pair(losses.ProbabilisticTransfer(eps=1e-6))),
    ],
    "dab": [(["td_mean"], boundary([1])), (["td_mean_margin2_2pairs"], boundary([1, 1], margin=2.0))],
    "ab": [
        (["repdistiller_2layers", "authors_2layers"], boundary([0.5 * 3 / 1000, 3 / 1000])),
        (["mmrazor_2layers_equal_weight"], boundary([3 / 1000, 3 / 1000])),
    ],
    "rkd": [
        (["td_dist", *(f"{s}_dist" for s in TWO), "authors_dist", "mmrazor_dist_nonorm"], rkd(1, 0)),
        (["td_angle", *(f"{s}_angle" for s in TWO), "authors_angle", "mmrazor_angle_nonorm"], rkd(0, 1)),
        (["td_full_1_2", *(f"{s}_full_1_2" for s in TWO)], rkd(1, 2)),
        (["td_full_25_50", *(f"{s}_full_25_50" for s in TWO)], rkd(25, 50)),
    ],
    "cckd": [
        (["aberhu_g0.4_P2"], cckd()),
        (["aberhu_math_on_td_sq"], cckd(normalize=False)),
        (["td_gaussian_g0.4_P2_batchmean"], cckd(normalize=False, norm="frobenius")),
        (["td_bilinear_batchmean"], cckd(normalize=False, norm="frobenius", kernel="bilinear")),
    ],
    "spkd": [
        (["repdistiller", "mdistiller", "aberhu"], pair(losses.SimilarityPreserving())),
        (["td_batchmean"], pair(losses.SimilarityPreserving(p=1))),
    ],
    "hnd": [
        (["td_sum"], lambda g: nn.MSELoss(reduction="sum")(input=g.student_feat, target=g.teacher_feat)),
        (["td_mean"], lambda g: MSE(input=g.student_feat, target=g.teacher_feat)),
    ],
    "ghnd": [
        (
            ["td_4layers_sum"],
            lambda g: sum(
                nn.MSELoss(reduction="sum")(input=getattr(g, f"s{i}"), target=getattr(g, f"t{i}")) for i in range(1, 5)
            ),
        )
    ],
    "tfkd": [
        (["td_official_config", "authors_self_T1_a0.1_m10"], lambda g: 0.9 * ce(g) + 0.1 * kd(g, 1.0)),
        (["authors_self_T1_a0.1_m1"], lambda g: 0.9 * ce(g) + 0.1 * kd(g, 1.0, reduction="mean")),
        (["authors_self_T20_a0.95_m1"], lambda g: 0.05 * ce(g) + 0.95 * kd(g, 20.0, reduction="mean")),
        (["authors_reg_T20_a0.95_m1", "kdlib_reg"], reg(0.95, 20.0)),
        (["authors_reg_T40_a0.1_m50"], reg(0.1, 40.0, multiplier=50.0)),
        (["paper_style_reg_T20_a0.95"], reg(0.95, 20.0, form="consistent")),
    ],
    "sskd": [
        (["td_ce", "authors_ce"], sskd([1, 0, 0, 0])),
        (["td_kl", "authors_kl"], sskd([0, 1, 0, 0])),
        (["td_ss", "authors_ss"], sskd([0, 0, 1, 0])),
        (["td_tf", "authors_tf"], sskd([0, 0, 0, 1])),
        (["td_total_official", "authors_total_official"], sskd([1.0, 0.9, 10.0, 2.7])),
        (["td_tf_ratio0.5"], sskd([0, 0, 0, 1], keep=0.5)),
        (["td_aux_pretrain"], lambda g: losses.ContrastivePrediction()(embedding=g.teacher_ss)),
    ],
    "l2": [
        (["td_official_config"], lambda g: ce(g) + 15 * MSE(input=g.student_embed, target=g.teacher_embed)),
        (["mmrazor_nonorm_divelem"], lambda g: MSE(input=g.student_embed, target=g.teacher_embed)),
    ],
    "pad_l2": [
        (
            ["td_given_logvar_mean"],
            lambda g: losses.PrimeAwareL2()(student=g.student_embed, teacher=g.teacher_embed, log_variance=g.log_var),
        )
    ],
    "weighted_sum": [
        (["td_no_model_term"], lambda g: composite(g, [0, 0, 0, 0])),
        (["td_model_weight_0_5"], lambda g: composite(g, [0.5] * 4)),
        (["td_model_weight_dict"], lambda g: composite(g, [1.0, 2.0, 0.0, 0.5])),
    ],
    **GOLDENS,
    **features.GOLDENS,
    **pixels.GOLDENS,
    **regions.GOLDENS,
    **structures.GOLDENS,
}
ROWS = [
    pytest.param(file, case, fn, id=f"{file}-{case}") for file, rows in TABLE.items() for cs, fn in rows for case in cs
]


@pytest.mark.parametrize(("file", "case", "compute"), ROWS)
def test_equals_reference(golden, file, case, compute):
    numbers = golden(file)
    numbers.check(case, compute(numbers.inputs))


@pytest.mark.parametrize(
    ("file", "quirk", "compute"),
    [
        # T^2 dropped when the cross-entropy has no weight.
        ("kd", "td_T4_alpha0_quirk", lambda g: kd(g, 4.0)),
        # No pooling over channels.
        ("at", "kdlib", pair(losses.AttentionTransfer(), "s1", "kdlib_t")),
        # Rows divided by their L1 norm.
        ("spkd", "td_batchmean", pair(losses.SimilarityPreserving())),
        # Features L2-normalised before distances are taken.
        ("rkd", "mmrazor_dist_l2norm", rkd(1, 0)),
        # Channels pooled before factors are normalised.
        ("ft", "repdistiller_factor", pair(losses.FactorTransfer(), "factor_s", "factor_t")),
        *QUIRKS,
        *features.QUIRKS,
        *pixels.QUIRKS,
    ],
)
def test_avoids_quirk(golden, file, quirk, compute):
    numbers = golden(file)
    value, theirs = compute(numbers.inputs).item(), numbers.arrays[f"{quirk}/loss"].item()
    assert abs(value - theirs) > 0.01 * theirs


def conv(size, **options):
    def compute(numbers, case):
        small = size == "double"
        student = numbers.inputs.student_feat_small if small else numbers.inputs.student_feat
        teacher = getattr(numbers.inputs, "teacher_feat" + (f"_{size}" if size else "")).detach()
        regressor = numbers.load(adapters.ConvRegressor(student.shape, teacher.shape, **options), case)
        return MSE(input=regressor(student), target=teacher)

    return compute


def connector(numbers, case):
    g = numbers.inputs
    module = adapters.ConvRegressor(g.student_feat.shape, g.teacher_feat.shape, norm=True, pointwise=True)
    return losses.ActivationBoundary()(student=numbers.load(module, case)(g.student_feat), teacher=g.teacher_feat)


def paraphraser(numbers, case):
    teacher = numbers.inputs.teacher_feat.detach()
    encoder = adapters.FactorEncoder(teacher.shape, k=0.5)
    factors = numbers.load(encoder, case, "encoder.")(teacher)
    decoder = numbers.load(adapters.FactorDecoder(factors.shape, teacher.shape), case, "decoder.")
    return nn.MSELoss(reduction="sum")(decoder(factors), teacher)


def factor_transfer(p):
    def compute(numbers, case):
        g = numbers.inputs
        encoder = numbers.load(adapters.FactorEncoder(g.teacher_feat.shape), case, "paraphraser.").eval()
        wanted = encoder(g.teacher_feat)
        translator = adapters.FactorEncoder(g.student_feat.shape, wanted.shape)
        student = numbers.load(translator, case, "translator.")(g.student_feat)
        return losses.FactorTransfer(p)(student=student, teacher=wanted)

    return compute


def variational(teacher="teacher_feat", part="soft_plus_param", eps=1e-5):
    def compute(numbers, case):
        student, wanted = numbers.inputs.student_feat, getattr(numbers.inputs, teacher)
        regressor = numbers.load(adapters.VIDRegressor(student.shape, wanted.shape), case, "regressor.")
        loss = losses.VariationalInformation({"student": None, "teacher": wanted.shape}, eps=eps)
        numbers.load(loss, case, part)
        return loss(student=regressor(student), teacher=wanted)

    return compute


def prime_aware(numbers, case):
    g = numbers.inputs
    head = numbers.load(adapters.LogVarianceHead(g.student_embed.shape, g.teacher_embed.shape), case)
    log_variance = head(g.student_embed)
    return losses.PrimeAwareL2()(student=g.student_embed, teacher=g.teacher_embed, log_variance=log_variance)


FULL = {"norm": True, "activation": True, "bias": True}
MODULES = [
    ("fitnet", "conv1x1_nobias_mse_mean", conv("", bias=False)),
    ("fitnet", "conv1x1_nobias_mse_mean_cirkd", conv("", bias=False)),
    ("fitnet", "conv1x1_bias_mse_mean", conv("")),
    ("fitnet", "convreg_same_repdistiller", conv("", **FULL)),
    ("fitnet", "convreg_same_mdistiller", conv("", **FULL)),
    ("fitnet", "convreg_down2_repdistiller", conv("half", **FULL)),
    ("fitnet", "convreg_up2_repdistiller", conv("double", **FULL)),
    ("dab", "td_connector_conv1x1_bn", connector),
    ("ft", "paraphraser_reconstruction_td_sum", paraphraser),
    ("ft", "td_full_p1_mean", factor_transfer(1)),
    ("ft", "td_full_p2_mean", factor_transfer(2)),
    ("vid", "td", variational()),
    ("vid", "repdistiller", variational(part="log_scale")),
    ("vid", "repdistiller_size_mismatch", variational("teacher_feat_small", "log_scale")),
    ("vid", "aberhu_eps1e-6", variational(part="alpha", eps=1e-6)),
    ("pad_l2", "td_with_estimator", prime_aware),
    *features.MODULES,
    *regions.MODULES,
    *structures.MODULES,
    *boxes.MODULES,
]


@pytest.mark.parametrize(("file", "case", "compute"), MODULES, ids=[f"{file}-{case}" for file, case, _ in MODULES])
def test_loss_with_adapter_equals_reference(golden, file, case, compute):
    numbers = golden(file)
    numbers.check(case, compute(numbers, case))


EDGES = {
    "kd_T4": ("logits", KL(4.0)),
    "at": ("feat", losses.AttentionTransfer()),
    "spkd": ("feat", losses.SimilarityPreserving()),
    "ft_factor": ("feat", losses.FactorTransfer()),
    "dab": ("feat", losses.ActivationBoundary()),
    "pkt": ("embed", losses.ProbabilisticTransfer()),
    "rkd_dist": ("embed", losses.RelationalDistance()),
    "rkd_angle": ("embed", losses.RelationalAngle()),
    "cckd_td": ("embed", losses.CorrelationCongruence(normalize=False, norm="frobenius")),
    **features.EDGES,
}


@pytest.mark.parametrize("situation", ["student_equals_teacher", "student_zero", "batch_1"])
@pytest.mark.parametrize("case", EDGES)
def test_degenerate_input_gives_finite_numbers(golden, case, situation):
    numbers = golden("edge_cases")
    name, loss = EDGES[case]
    teacher = getattr(numbers.inputs, name).detach()
    if situation == "batch_1":
        teacher, student = teacher[:1], teacher.flip(0).roll(1, -1)[:1].clone()
    else:
        student = teacher.clone() if situation == "student_equals_teacher" else torch.zeros_like(teacher)
    value = loss(student=student.requires_grad_(), teacher=teacher)
    value.backward()
    assert value.isfinite()
    assert student.grad.isfinite().all()
    wanted = numbers.arrays.get(f"{case}/{situation}/loss")
    if wanted is not None:
        torch.testing.assert_close(value.detach(), wanted, rtol=1e-8, atol=1e-9)


def crd(numbers, case, seen):
    """The loss and its embeddings, holding the reference's memories; `seen` other batches came first."""
    g = numbers.inputs
    embed = [numbers.load(adapters.LinearProjector(f.shape, out_features=16), case, p) for f, p in seen]
    loss = losses.ContrastiveRepresentation(
        range(40), {"student": (6, 16), "teacher": (6, 16)}, negatives=12, momentum=0.5
    ).double()
    loss.student_memory.copy_(g.memory_v1.detach())
    loss.teacher_memory.copy_(g.memory_v2.detach())
    return loss, embed


def test_crd_equals_reference_over_two_batches(golden):
    numbers = golden("crd")
    g = numbers.inputs
    first, second = "repdistiller_first_batch", "repdistiller_second_batch_same_inputs"
    loss, (student, teacher) = crd(numbers, first, [(g.student_feat, "embed_s."), (g.teacher_feat, "embed_t.")])
    for case in (first, second):
        numbers.inputs.student_feat.grad = None
        student.zero_grad()
        teacher.zero_grad()
        value = loss(
            student=student(g.student_feat),
            teacher=teacher(g.teacher_feat),
            index=g.pos_idx,
            negatives=g.contrast_idx[:, 1:],
        )
        numbers.check(case, value)
        for memory, name in ((loss.student_memory, "memory_v1_after"), (loss.teacher_memory, "memory_v2_after")):
            torch.testing.assert_close(memory, numbers.arrays[f"{case}/out/{name}"], rtol=1e-9, atol=1e-12)
        constants = torch.stack([loss.student_z, loss.teacher_z])
        torch.testing.assert_close(constants, numbers.arrays[f"{case}/out/params"][2:4], rtol=1e-9, atol=0)


def test_crd_value_is_the_same_in_all_references(golden):
    arrays = golden("crd").arrays
    values = torch.stack([value for key, value in arrays.items() if key.endswith("first_batch/loss")])
    torch.testing.assert_close(values, values[:1].expand_as(values), rtol=1e-9, atol=0)


# What the files of conf/method call the implementations, and what the cases above are called after.
CALLED = {
    "torchdistill": "td",
    "RepDistiller": "repdistiller",
    "mdistiller": "mdistiller",
    "MMRazor": "mmrazor",
    "the authors' code": "authors",
    "the paper's formula": "paper",
    "public code": "loop",
    "CIRKD": "cirkd",
}
CASES_OF = {"pkd_fpn": ["pkd"], "dab": ["dab", "ab"], "tfkd_self": ["tfkd"], "tfkd_reg": ["tfkd"]}
CASES_OF |= {**FILES, **features.FILES, **regions.FILES, **structures.FILES, **boxes.FILES, **pixels.FILES}
COMPARED = {file: {case for cases, _ in rows for case in cases} for file, rows in TABLE.items()}
for _file, _case, _ in MODULES:
    COMPARED.setdefault(_file, set()).add(_case)
COMPARED["at"].add("authors: szagoruyko")
COMPARED["cckd"].add("paper: aberhu_math_on_td_sq")
COMPARED["crld"].add("paper: own_formula")
COMPARED["ctkd"] = {"authors_kd_th1_lam-1"}  # in test_curriculum
COMPARED["ca_mkd"].add("authors: full_r1_a1_b50_T4")
COMPARED["dml"] = {"paper_2peers_net1"}  # in test_several
COMPARED["kdcl"] = {"loop_mean_K2_T4_a0.5_net1", "paper: formula_naive_T2_net1"}
COMPARED["crd"] = {"td_first_batch", "repdistiller_first_batch", "mdistiller_first_batch", "mmrazor_first_batch"}


@pytest.mark.parametrize("method", methods_of(), ids=lambda method: method.name)
def test_whose_numbers_a_method_says_it_has_are_compared_here(method):
    told = re.sub(r"; not .*", "", method.about.matches)
    cases = {case for file in CASES_OF.get(method.name, [method.name]) for case in COMPARED.get(file, ())}
    named = [name for name in CALLED if name in told]
    # Several labels are compared with the KL divergence of two classes each, in test_behaviour; mean teacher's average
    # is in test_structures. Losses of detectors are their own; L2 and the cross-entropy of pixels are torch's.
    own = ("ce", "takd", "multilabel_kd", "mean_teacher", "own", "own_rcnn", "l2_fpn", "pseudo_boxes", "seg_ce")
    assert named or method.name in own, "whose?"
    for name in named:
        assert any(re.search(rf"(^|_){CALLED[name]}(_|:|$)", case) for case in cases), (
            f"{name}: among no case of {cases}"
        )

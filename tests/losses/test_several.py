"""Losses of several networks: whose gradient goes where, weights of teachers, and degenerate inputs."""

import math

import pytest
import torch
from torch.nn import functional as F

from distill_app import losses
from distill_app.adapters import ConvBranch, ExitBranch, MaskedTokens, TokenBranch

CE = F.cross_entropy


def logits(count: int, *, rows: int = 6, classes: int = 5, seed: int = 0, scale: float = 2.0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(rows, classes, generator=generator, dtype=torch.float64) * scale).requires_grad_()
        for _ in range(count)
    ]


LABELS = torch.tensor([0, 1, 2, 3, 4, 0])


def peers_of(golden, file: str, count: int):
    numbers = golden(file)
    return numbers, [getattr(numbers.inputs, f"logits_{k}") for k in range(1, count + 1)]


def check_each(numbers, peers, total, case: str) -> None:
    """The sum over peers, and for each of them the gradient of its own loss."""
    cases = [case.format(k) for k in range(1, len(peers) + 1)]
    wanted = sum(numbers.arrays[f"{each}/loss"] for each in cases)
    torch.testing.assert_close(total.detach(), wanted, rtol=1e-9, atol=1e-12)
    total.backward()
    for k, (each, peer) in enumerate(zip(cases, peers, strict=True), start=1):
        torch.testing.assert_close(peer.grad, numbers.arrays[f"{each}/grad/logits_{k}"], rtol=1e-8, atol=1e-14)


@pytest.mark.parametrize("count", [2, 3])
def test_mutual_learning_gives_every_peer_the_gradient_of_its_own_loss(golden, count):
    numbers, peers = peers_of(golden, "dml", count)
    total = losses.MutualKL()(logits=peers) + sum(CE(each, numbers.inputs.labels) for each in peers)
    check_each(numbers, peers, total, f"paper_{count}peers_net{{}}")


def test_mutual_learning_alone_is_the_divergence_from_the_other(golden):
    numbers, peers = peers_of(golden, "dml", 2)
    check_each(numbers, peers, losses.MutualKL()(logits=peers), "kdzoo_kl_only_net{}")


def test_the_sum_over_the_others_is_that_of_the_authors_code(golden):
    numbers, peers = peers_of(golden, "dml", 3)
    total = losses.MutualKL(reduction="sum")(logits=peers) + sum(CE(each, numbers.inputs.labels) for each in peers)
    wanted = sum(numbers.arrays[f"official_tf_formula_3peers_net{k}/loss"] for k in (1, 2, 3))
    torch.testing.assert_close(total.detach(), wanted, rtol=1e-5, atol=0)  # theirs adds 1e-8 inside of the logarithm


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize(("temperature", "share"), [(4.0, 0.5), (2.0, 0.9)])
def test_collaborative_learning_from_the_mean(golden, count, temperature, share):
    numbers, peers = peers_of(golden, "kdcl", count)
    kd = losses.CollaborativeKL(temperature)(logits=peers, target=numbers.inputs.labels)
    total = share * kd + (1 - share) * sum(CE(each, numbers.inputs.labels) for each in peers)
    check_each(numbers, peers, total, f"loop_mean_K{count}_T{temperature:g}_a{share}_net{{}}")


@pytest.mark.parametrize(("ensemble", "case"), [("best", "naive"), ("min_logit", "minlogit")])
def test_collaborative_learning_from_what_labels_choose(golden, ensemble, case):
    numbers, peers = peers_of(golden, "kdcl", 3)
    labels = numbers.inputs.labels
    total = losses.CollaborativeKL(2.0, ensemble=ensemble)(logits=peers, target=labels)
    total = total + sum(CE(each, labels) for each in peers)
    check_each(numbers, peers, total, f"formula_{case}_T2_net{{}}")


def test_the_mean_of_probabilities_is_one_teacher():
    student, *teachers = logits(4)
    found = losses.MultiTeacherKL(2.0, weights="probabilities")(student=student, teachers=teachers, target=LABELS)
    mean = torch.stack([F.softmax(each / 2, dim=1) for each in teachers]).mean(dim=0)
    wanted = losses.KLDivergence(2.0)(student=student, teacher=2 * mean.log())
    torch.testing.assert_close(found, wanted)


def test_one_teacher_is_plain_kd():
    student, teacher = logits(2)
    wanted = losses.KLDivergence(4.0)(student=student, teacher=teacher)
    for weights in ("mean", "probabilities"):
        found = losses.MultiTeacherKL(4.0, weights=weights)(student=student, teachers=[teacher], target=LABELS)
        torch.testing.assert_close(found, wanted)
    dropping = losses.MultiTeacherKL(4.0, drop=0.9)(student=student, teachers=[teacher], target=LABELS)
    torch.testing.assert_close(dropping, wanted)


def test_the_teacher_that_is_surer_counts_more():
    student, sure, unsure = logits(3)
    sure, unsure = sure.detach() * 5, unsure.detach() * 0.1
    student.grad = None
    losses.MultiTeacherKL(1.0, weights="entropy")(student=student, teachers=[sure, unsure], target=LABELS).backward()
    mixed = student.grad.clone()
    student.grad = None
    losses.KLDivergence(1.0)(student=student, teacher=sure).backward()
    toward_sure = F.cosine_similarity(mixed.flatten(), student.grad.flatten(), dim=0)
    student.grad = None
    losses.KLDivergence(1.0)(student=student, teacher=unsure).backward()
    assert toward_sure > 0.9 > F.cosine_similarity(mixed.flatten(), student.grad.flatten(), dim=0)


def test_a_dropped_teacher_teaches_nothing_and_the_one_furthest_away_always_does():
    student, *teachers = logits(4, rows=200, scale=1.0)
    loss, labels = losses.MultiTeacherKL(1.0, drop=1.0), torch.zeros(200, dtype=torch.int64)
    rows = torch.stack([losses.KLDivergence(1.0).rows(student, each) for each in teachers])
    furthest = loss(student=student, teachers=teachers, target=labels)
    torch.testing.assert_close(furthest, rows.amax(dim=0).mean())
    torch.manual_seed(0)
    half = losses.MultiTeacherKL(1.0, drop=0.5)
    values = {round(float(half(student=student, teachers=teachers, target=labels).detach()), 9) for _ in range(4)}
    assert len(values) == 4 and all(float(rows.mean()) < value < float(furthest) for value in values)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: losses.MultiTeacherKL(weights="votes"), "weights='votes' does not exist"),
        (lambda: losses.MultiTeacherKL(weights="labels", drop=0.5), "drop=0.5 has no part in weights='labels'"),
        (lambda: losses.MultiTeacherKL(drop=1.5), "drop=1.5 must lie between 0 and 1"),
        (lambda: losses.CollaborativeKL(ensemble="linear"), "ensemble='linear' does not exist"),
        (lambda: losses.MutualKL(reduction="max"), "reduction='max' does not exist"),
        (lambda: losses.MutualKL()(logits=logits(1)), "needs two networks or more, got 1"),
        (lambda: losses.CollaborativeKL()(logits=logits(1), target=LABELS), "needs two networks or more, got 1"),
        (lambda: losses.MutualKL()(logits=[*logits(1), *logits(1, classes=4)]), "of one shape"),
        (
            lambda: losses.MultiTeacherKL(weights="labels")(*logits(1), teachers=logits(1), target=LABELS),
            "needs 2 teachers or more, got 1",
        ),
        (lambda: losses.MultiTeacherKL()(*logits(1), teachers=[], target=LABELS), "needs 1 teachers or more, got 0"),
        (
            lambda: losses.ConfidenceDistance()(logits(1), logits(1), logits(1), LABELS),
            "for each of two teachers or more, got 1, 1 and 1",
        ),
        (lambda: losses.OneForAllCE()(*logits(2), target=torch.rand(6, 5)), "one class index for each image"),
        (lambda: ConvBranch((2, 4, 8, 8), [(2, 4), (2, 4)], num_classes=3, stage="stem"), "none of stage1 to stage4"),
        (lambda: TokenBranch((2, 6, 8, 8), num_classes=3, stage="stage4"), "heads=4 do not divide the 6 channels"),
        (lambda: ExitBranch((2, 4), [(2, 4, 2, 2), (2, 4)], num_classes=3), "ExitBranch works on maps"),
        (lambda: MaskedTokens((2, 4, 4, 4), (2, 4, 2, 2)), "the grids differ: (4, 4) of the student's, (2, 2)"),
        (lambda: MaskedTokens((2, 4, 4, 4), (2, 4, 4, 4), masked=0.0), "masked=0.0 must lie above 0"),
    ],
)
def test_what_cannot_be_is_refused_with_what_is_allowed(build, message):
    with pytest.raises(ValueError) as caught:
        build()
    assert message in str(caught.value)


CALLS = {
    "mutual": lambda s, t, y: losses.MutualKL()(logits=[s, t]),
    "collaborative": lambda s, t, y: losses.CollaborativeKL()(logits=[s, t], target=y),
    "min_logit": lambda s, t, y: losses.CollaborativeKL(ensemble="min_logit")(logits=[s, t], target=y),
    "best": lambda s, t, y: losses.CollaborativeKL(ensemble="best")(logits=[s, t], target=y),
    "drop": lambda s, t, y: losses.MultiTeacherKL(drop=0.5)(student=s, teachers=[t, t], target=y),
    **{
        weights: lambda s, t, y, weights=weights: losses.MultiTeacherKL(weights=weights)(s, [t, t.roll(1, 1)], y)
        for weights in ("mean", "probabilities", "entropy", "labels")
    },
    "confidence": lambda s, t, y: losses.ConfidenceDistance()([s, s], [t, t], [s, s], y),
    "one_for_all": lambda s, t, y: losses.OneForAllCE()(student=s, teacher=t, target=y),
    "teacher_labels": lambda s, t, y: losses.TeacherLabels()(student=s, teacher=t),
    "soft": lambda s, t, y: losses.SoftCrossEntropy()(student=s, teacher=t),
    "active": lambda s, t, y: losses.ActiveDistance()(student=s, teacher=t),
    "probabilities_mse": lambda s, t, y: losses.ProbabilityDistance()(student=s, teacher=t),
}
INPUTS = {
    "usual": lambda: logits(2),
    "batch_of_one": lambda: logits(2, rows=1),
    "equal_logits": lambda: [torch.zeros(6, 5, requires_grad=True) for _ in range(2)],
    "the_same": lambda: logits(1) * 2,
    "two_classes": lambda: logits(2, classes=2),
    "huge": lambda: logits(2, scale=2000.0),
    "bf16": lambda: [each.detach().bfloat16().requires_grad_() for each in logits(2)],
    "fp16": lambda: [each.detach().half().requires_grad_() for each in logits(2, scale=100.0)],
}


@pytest.mark.parametrize("inputs", INPUTS)
@pytest.mark.parametrize("name", CALLS)
def test_value_and_gradient_are_finite_and_none_flows_into_a_teacher(name, inputs):
    student, teacher = INPUTS[inputs]()
    labels = LABELS[: len(student)] % student.shape[1]
    value = CALLS[name](student, teacher, labels)
    value.backward()
    assert value.dim() == 0 and value.isfinite() and value.dtype in (torch.float32, torch.float64)
    assert student.grad is not None and student.grad.isfinite().all()
    if name not in ("mutual", "collaborative", "min_logit", "best") and inputs != "the_same":
        assert teacher.grad is None


def test_sure_teachers_all_count_alike():
    (student,) = logits(1)
    certain = F.one_hot(LABELS, 5).double() * 1e4
    found = losses.MultiTeacherKL(1.0, weights="entropy")(student, [certain, certain.roll(1, 1)], LABELS)
    wanted = losses.MultiTeacherKL(1.0)(student, [certain, certain.roll(1, 1)], LABELS)
    torch.testing.assert_close(found, wanted / 2)


def test_gamma_one_is_the_soft_cross_entropy():
    student, teacher = logits(2)
    found = losses.OneForAllCE(1.0)(student=student, teacher=teacher, target=LABELS)
    torch.testing.assert_close(found, losses.SoftCrossEntropy(1.0)(student=student, teacher=teacher))


def test_the_ramp_is_a_bell_up_to_its_end():
    ramp = losses.SigmoidRampUp(10.0, epochs=5)
    assert ramp(0) == pytest.approx(10 * math.exp(-5)) and ramp(5) == ramp(9) == 10.0
    assert ramp(2.5) == pytest.approx(10 * math.exp(-1.25))
    with pytest.raises(ValueError, match="must be above 0"):
        losses.SigmoidRampUp(1.0, epochs=0)


@pytest.mark.parametrize("shape", [(2, 8, 8, 8), (2, 8, 1, 1), (2, 8, 5, 7)])
def test_branches_give_logits_of_any_map(shape):
    source = torch.zeros(shape)
    exits = ExitBranch(shape, [(2, 16, 2, 2), (2, 16, 1, 1)], num_classes=3)(source)
    assert exits["logits"].shape == (2, 3) and exits["feature"].shape == (2, 16)
    for stage in ("stage1", "stage4"):
        assert ConvBranch(shape, [(2, 16), (2, 12)], num_classes=3, stage=stage)(source).shape == (2, 3)
        assert TokenBranch(shape, num_classes=3, stage=stage)(source).shape == (2, 3)


@pytest.mark.parametrize("masked", [0.3, 0.5, 1.0])
def test_as_many_patches_of_every_image_are_masked(masked):
    generator = MaskedTokens((3, 4, 4, 4), (3, 6, 4, 4), masked=masked)
    torch.manual_seed(0)
    made = generator(torch.randn(3, 4, 4, 4))
    assert made["map"].shape == (3, 6, 4, 4)
    assert made["mask"].flatten(1).sum(dim=1).tolist() == [16 - int(16 * (1 - masked))] * 3
    again = generator(torch.randn(3, 4, 4, 4))["mask"]
    assert masked == 1.0 or not again.equal(made["mask"])
    generator.eval()
    assert generator(torch.randn(3, 4, 4, 4))["mask"].equal(generator(torch.randn(3, 4, 4, 4))["mask"])

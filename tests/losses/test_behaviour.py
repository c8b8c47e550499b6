"""What holds for every loss, whatever its formula, and what single losses promise beyond it."""

import re
from itertools import product

import feature_fixtures as features
import pixel_fixtures as pixels
import pytest
import torch
from engine_fixtures import mostly_slow
from logit_fixtures import MAKE
from logit_fixtures import inputs as logits_and_labels
from torch import Tensor, nn

from distill_app import losses
from distill_app.networks.taps import map_tensors, tensors_in

GENERATOR = torch.Generator()
FEATURES = {**features.MAKE, **pixels.MAKE}


def tensor(*shape, seed):
    return torch.randn(*shape, generator=GENERATOR.manual_seed(seed), dtype=torch.float64)


def inputs(batch, student, teacher=None, **others):
    """Student and teacher tensors of a batch; shapes are without the batch dimension."""
    return {
        "student": tensor(batch, *student, seed=1),
        "teacher": tensor(batch, *(teacher or student), seed=2),
        **{name: make(batch) for name, make in others.items()},
    }


def labels(batch):
    return torch.arange(batch) % 5


def maps(batch):
    return {
        "student": [tensor(batch, 4, 8, 8, seed=1), tensor(batch, 6, 4, 4, seed=2)],
        "teacher": [tensor(batch, 4, 8, 8, seed=3), tensor(batch, 6, 8, 8, seed=4)],
    }


def views(student, teacher, **others):
    def make(batch):
        sides = {name: tensor(4 * batch, *shape, seed=i) for i, (name, shape) in enumerate((student, teacher))}
        return {**sides, **{name: fn(batch) for name, fn in others.items()}}

    return make


# Name -> a fresh loss, its inputs for a batch size.
LOSSES = {
    "kl": (losses.KLDivergence, lambda b: inputs(b, (5,))),
    "kl_dense": (losses.KLDivergence, lambda b: inputs(b, (5, 3, 3))),
    "sigmoid_kl": (losses.SigmoidKL, lambda b: inputs(b, (5,))),
    "at": (losses.AttentionTransfer, lambda b: inputs(b, (4, 8, 8), (6, 4, 4))),
    "at_norm": (lambda: losses.AttentionTransfer(norm="p"), lambda b: inputs(b, (4, 4, 4), (6, 8, 8))),
    "ft": (losses.FactorTransfer, lambda b: inputs(b, (4, 8, 8), (4, 4, 4))),
    "fsp": (losses.FlowOfSolution, maps),
    "fsp_max": (lambda: losses.FlowOfSolution(pool="max"), maps),
    "fsp_columns": (lambda: losses.FlowOfSolution(pool="max", reduction="columns"), maps),
    "dab": (losses.ActivationBoundary, lambda b: inputs(b, (4, 4, 4))),
    "vid": (
        lambda: losses.VariationalInformation({"teacher": (8, 4, 8, 8)}),
        lambda b: inputs(b, (4, 4, 4), (4, 8, 8)),
    ),
    "pad_l2": (losses.PrimeAwareL2, lambda b: inputs(b, (6,), log_variance=lambda n: tensor(n, 6, seed=3))),
    "pkt": (losses.ProbabilisticTransfer, lambda b: inputs(b, (6,), (9,))),
    "rkd_distance": (losses.RelationalDistance, lambda b: inputs(b, (6,), (9,))),
    "rkd_angle": (losses.RelationalAngle, lambda b: inputs(b, (6,), (9,))),
    "cckd": (losses.CorrelationCongruence, lambda b: inputs(b, (6,), (9,))),
    "cckd_bilinear": (lambda: losses.CorrelationCongruence(kernel="bilinear"), lambda b: inputs(b, (6,), (9,))),
    "spkd": (losses.SimilarityPreserving, lambda b: inputs(b, (4, 4, 4), (6, 2, 2))),
    "crd": (
        lambda: losses.ContrastiveRepresentation(labels(40), {"student": (8, 6), "teacher": (8, 6)}, negatives=16),
        lambda b: inputs(b, (6,), index=lambda n: torch.arange(n) * 3),
    ),
    "tfkd_reg": (
        losses.VirtualTeacherKL,
        lambda b: {"student": tensor(b, 5, seed=1), "target": labels(b)},
    ),
    "tfkd_consistent": (
        lambda: losses.VirtualTeacherKL(form="consistent"),
        lambda b: {"student": tensor(b, 5, seed=1), "target": labels(b)},
    ),
    "sskd_similarity": (losses.SimilarityKL, views(("student", (6,)), ("teacher", (9,)))),
    "sskd_rotated": (losses.RotatedKL, views(("student", (5,)), ("teacher", (5,)), target=labels)),
    "sskd_pretext": (losses.ContrastivePrediction, lambda b: {"embedding": tensor(4 * b, 6, seed=1)}),
    **{name: (make, lambda b, make=make: logits_and_labels(make(), b)) for name, make in MAKE.items()},
    **FEATURES,
}
TEACHER_IS_LEARNT = {"cckd", "cckd_bilinear", "crd"}
RELATIONS = {"pkt", "rkd_distance", "rkd_angle", "spkd", "sskd_similarity", "sskd_pretext"}


def leaves(values, role):
    return tensors_in(values.get(role, []))


def converted(values, dtype):
    def convert(value):
        if isinstance(value, list):
            return [convert(item) for item in value]
        return value.detach().to(dtype).requires_grad_() if value.is_floating_point() else value

    return {name: convert(value) for name, value in values.items()}


def what_learns(values):
    return leaves(values, "embedding") or leaves(values, "student")


@pytest.mark.parametrize("name", LOSSES)
def test_gradient_reaches_the_student_and_not_the_teacher(name):
    make, given = LOSSES[name]
    values = converted(given(8), torch.float64)
    make().double()(**values).backward()
    assert all(leaf.grad.isfinite().all() and leaf.grad.abs().sum() > 0 for leaf in what_learns(values))
    for teacher in leaves(values, "teacher"):
        assert (teacher.grad is not None) == (name in TEACHER_IS_LEARNT)


@pytest.mark.parametrize("name", LOSSES)
def test_batch_of_one_is_finite(name):
    make, given = LOSSES[name]
    values = converted(given(1), torch.float32)
    value = make()(**values)
    value.backward()
    assert value.isfinite()
    assert all(leaf.grad.isfinite().all() for leaf in what_learns(values))
    if name in RELATIONS:
        torch.testing.assert_close(value, torch.tensor(0.0), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_activations_are_computed_in_float32(name):
    make, given = LOSSES[name]
    loss = make()
    state = {key: value.clone() for key, value in loss.state_dict().items()}
    results = {}
    for dtype in (torch.bfloat16, torch.float32):
        rounded = converted(converted(given(8), torch.bfloat16), dtype)
        loss.load_state_dict(state)
        torch.manual_seed(0)
        results[dtype] = loss(**rounded)
        results[dtype].backward()
        assert all(leaf.grad.isfinite().all() for leaf in what_learns(rounded))
    assert results[torch.bfloat16].dtype == torch.float32
    torch.testing.assert_close(results[torch.bfloat16], results[torch.float32], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scale", [1.0, 30.0])
@pytest.mark.parametrize("name", FEATURES)
def test_fp16_activations_give_finite_losses_and_gradients(name, scale):
    make, given = FEATURES[name]
    scaled = map_tensors(given(8), lambda value: value * scale if value.is_floating_point() else value)
    values = converted(scaled, torch.float16)
    value = make()(**values)
    value.backward()
    assert value.dtype == torch.float32 and value.isfinite()
    assert all(leaf.grad.isfinite().all() for leaf in what_learns(values))


def _one_channel_off(leaf: Tensor) -> None:
    leaf.relu_()
    if leaf.dim() >= 2:
        leaf[:, 0] = 0
        leaf[0, 1] = 0


def _constant(leaf: Tensor) -> None:
    leaf.fill_(1.5)


DEGENERATE = {"zero": Tensor.zero_, "constant": _constant, "a channel off": _one_channel_off}


@pytest.mark.parametrize("samples", [1, 4])
@pytest.mark.parametrize("name", LOSSES)
def test_students_that_say_nothing_give_finite_losses_and_gradients(name, samples):
    """Dead features and equal logits: what eps leaves of a direction there would have a gradient beyond fp16."""
    make, given = LOSSES[name]
    for form, dtype in product(DEGENERATE, (torch.float16, torch.bfloat16, torch.float32)):
        values = converted(given(samples), dtype)
        for leaf in leaves(values, "student"):
            DEGENERATE[form](leaf.detach())
        try:
            value = make()(**values)
        except ValueError:
            assert samples == 1, "a loss may refuse a batch of one"
            continue
        if value.requires_grad:
            value.backward()
        assert value.isfinite(), (form, dtype)
        assert all(leaf.grad is None or leaf.grad.isfinite().all() for leaf in leaves(values, "student")), (form, dtype)


@pytest.mark.slow
@pytest.mark.parametrize("name", mostly_slow(LOSSES, *list(LOSSES)[::4]))
def test_gradient_descent_lowers_the_loss(name):
    make, given = LOSSES[name]
    values = converted(given(8), torch.float64)
    loss = make().double()
    learnt = what_learns(values)
    state = {key: value.clone() for key, value in loss.state_dict().items()}
    optimizer = torch.optim.Adam([*learnt, *loss.parameters()], lr=0.02)
    history = []
    for _ in range(40):
        torch.manual_seed(0)
        loss.load_state_dict({**state, **dict(loss.named_parameters())})  # the same memories and constants each time
        optimizer.zero_grad()
        value = loss(**values)
        value.backward()
        optimizer.step()
        history.append(value.item())
    assert history[-1] < history[0]


@pytest.mark.parametrize(
    "name",
    ["pkt", "rkd_distance", "rkd_angle", "cckd", "spkd", "at", "at_norm", "ft", *FEATURES],
)
def test_zero_features_give_finite_gradients(name):
    make, given = LOSSES[name]
    values = converted(given(4), torch.float32)
    for leaf in leaves(values, "student"):
        leaf.detach().zero_()
    value = make()(**values)
    value.backward()
    assert value.isfinite()
    assert all(leaf.grad.isfinite().all() for leaf in leaves(values, "student"))


# Of SemCKD it is the attention, which is given here; of DIST+ the part that this one has no weight for.
@pytest.mark.parametrize("name", sorted(set(FEATURES) - {"semckd", "dist_plus_channels"}))
def test_a_loss_is_the_mean_over_its_samples_unless_it_says_that_it_is_of_the_whole_batch(name):
    make, given = FEATURES[name]
    loss, values = make().double(), given(8)
    # What is one for all samples, such as margins, belongs to both halves.
    halves = [
        map_tensors(values, lambda value, i=i: value.chunk(2)[i] if len(value) % 8 == 0 else value) for i in (0, 1)
    ]
    parts = [loss(**part) for part in halves]
    alike = torch.isclose(loss(**values), torch.stack(parts).mean(), rtol=1e-9)
    assert bool(alike) == (not getattr(loss, "whole_batch", False))


@pytest.mark.parametrize(
    ("loss", "student", "teacher"),
    [
        (losses.KLDivergence(), (8, 5), (8, 7)),
        (losses.SigmoidKL(), (8, 5), (8, 7)),
        (losses.FactorTransfer(), (8, 4, 8, 8), (8, 6, 8, 8)),
        (losses.ActivationBoundary(), (8, 4, 8, 8), (8, 4, 4, 4)),
        (losses.VariationalInformation({"teacher": (8, 6, 4, 4)}), (8, 4, 4, 4), (8, 6, 4, 4)),
        (losses.RelationalDistance(), (8, 4), (6, 4)),
        (losses.SimilarityPreserving(), (8, 4, 2, 2), (4, 4, 2, 2)),
        (losses.AttentionTransfer(), (8, 4), (8, 6)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else str(value),
)
def test_shapes_that_do_not_fit_are_named(loss, student, teacher):
    with pytest.raises(ValueError, match=type(loss).__name__) as caught:
        loss(student=torch.zeros(student), teacher=torch.zeros(teacher))
    assert str(student) in str(caught.value)


def test_fsp_names_all_shapes_and_the_adapter():
    loss = losses.FlowOfSolution()
    shallow, deep, wide = torch.zeros(2, 4, 8, 8), torch.zeros(2, 6, 4, 4), torch.zeros(2, 12, 4, 4)
    with pytest.raises(ValueError, match=r"\(2, 12, 4, 4\).*MatchChannels"):
        loss(student=[shallow, deep], teacher=[shallow, wide])
    with pytest.raises(ValueError, match=r"student: \[student.stage1, student.stage2\]"):
        loss(student=[shallow], teacher=[shallow, deep])


@pytest.mark.parametrize(
    "make",
    [
        lambda: losses.AttentionTransfer(norm="l2"),
        lambda: losses.FlowOfSolution(pool="avg"),
        lambda: losses.KLDivergence(reduction="batch"),
        lambda: losses.SigmoidKL(reduction="batch"),
        lambda: losses.CorrelationCongruence(kernel="rbf"),
        lambda: losses.VirtualTeacherKL(form="paper"),
    ],
)
def test_unknown_option_lists_the_allowed(make):
    with pytest.raises(ValueError, match="allowed: "):
        make()


def test_temperature_keeps_the_size_of_the_gradient():
    """What T^2 is for; dropping it would shrink the gradient 16-fold between T = 4 and T = 16."""
    sizes = []
    for temperature in (4.0, 16.0):
        student = tensor(8, 5, seed=1).requires_grad_()
        losses.KLDivergence(temperature)(student=student, teacher=tensor(8, 5, seed=2)).backward()
        sizes.append(float(student.grad.norm()))
    assert 0.5 < sizes[0] / sizes[1] < 2


def test_kl_allows_classes_that_the_teacher_excludes():
    teacher = tensor(4, 5, seed=2)
    teacher[:, 3] = -torch.inf
    assert losses.KLDivergence()(student=tensor(4, 5, seed=1), teacher=teacher).isfinite()


def test_dense_logits_count_every_position_as_a_row():
    student, teacher = tensor(2, 5, 3, 3, seed=1), tensor(2, 5, 3, 3, seed=2)
    rows = [z.permute(0, 2, 3, 1).reshape(-1, 5) for z in (student, teacher)]
    flat = losses.KLDivergence()(student=rows[0], teacher=rows[1])
    torch.testing.assert_close(losses.KLDivergence()(student=student, teacher=teacher), flat)


def test_vid_learns_its_variance_from_the_published_start():
    loss = losses.VariationalInformation({"teacher": (8, 4, 4, 4)})
    variance = nn.functional.softplus(loss.raw_variance) + loss.eps
    torch.testing.assert_close(variance, torch.full((4,), 5.0))
    before = loss.raw_variance.detach().clone()
    optimizer = torch.optim.SGD(loss.parameters(), lr=1.0)
    loss(student=torch.zeros(8, 4, 4, 4), teacher=torch.ones(8, 4, 4, 4)).backward()
    optimizer.step()
    assert (loss.raw_variance < before).all()  # the residual is smaller than the variance
    assert "raw_variance" in loss.state_dict()


def test_rkd_distance_ignores_scale_and_rkd_angle_also_moves():
    teacher = tensor(6, 4, seed=1)
    scaled = losses.RelationalDistance()(student=3 * teacher, teacher=teacher)
    moved = losses.RelationalAngle()(student=3 * teacher + 1, teacher=teacher)
    torch.testing.assert_close(torch.stack([scaled, moved]), torch.zeros(2, dtype=torch.float64), atol=1e-12, rtol=0)


def test_error_level_keeps_the_right_rows_and_the_least_wrong_share():
    scores = torch.tensor([[3.0, 2, 1], [3, 2, 1], [3, 2, 1], [3, 2, 1], [1, 9, 2]])
    target = torch.tensor([0, 2, 1, 1, 1])  # ranks 0, 2, 1, 1, 0
    mask = losses.selfsup.error_level_mask
    assert mask(scores, target, 1.0).tolist() == [True] * 5
    assert mask(scores, target, 0.7).tolist() == [True, False, True, True, True]
    assert mask(scores, target, 0.4).tolist() == [True, False, True, False, True]
    assert mask(scores, target, 0.0).tolist() == [True, False, False, False, True]


def test_rotated_kl_reads_no_upright_view_and_is_zero_if_nothing_is_kept():
    loss = losses.RotatedKL(keep=0.0)
    student = tensor(8, 3, seed=1).requires_grad_()
    teacher = torch.tensor([[9.0, 0, 0]]).repeat(8, 1)
    right = loss(student=student, teacher=teacher, target=torch.tensor([0, 0]))
    right.backward()
    assert (student.grad[::4] == 0).all()
    assert (student.grad[1:4] != 0).any()
    assert loss(student=student, teacher=teacher, target=torch.tensor([1, 1])) == 0
    with pytest.raises(ValueError, match="one label an image"):
        loss(student=student, teacher=teacher, target=torch.zeros(8, dtype=torch.long))


def test_weight_schedules_reach_their_ends():
    warmup = losses.LinearWarmup(value=2.0, epochs=20)
    assert [warmup(epoch) for epoch in (0, 5, 20, 90)] == [0.0, 0.5, 2.0, 2.0]
    decay = losses.CosineDecay(value=1.0, epochs=10, final=0.2)
    assert [round(decay(epoch), 12) for epoch in (0, 5, 10, 11)] == [1.0, 0.6, 0.2, 0.2]
    assert losses.ExponentialDecay(value=1.0, rate=0.5)(2.0) == 0.25
    assert losses.LinearWarmup(value=1.0, epochs=4)(2.5) == 0.625
    with pytest.raises(ValueError, match="epochs=0"):
        losses.LinearWarmup(value=1.0, epochs=0)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_every_label_is_a_distribution_of_two_for_the_sigmoid_loss(temperature):
    pair = inputs(6, (4,))
    two = {side: torch.stack([value, torch.zeros_like(value)], dim=-1).view(-1, 2) for side, value in pair.items()}
    expected = losses.KLDivergence(temperature)(**two)  # the mean over 6 x 4 questions
    torch.testing.assert_close(losses.SigmoidKL(temperature)(**pair), expected)
    torch.testing.assert_close(losses.SigmoidKL(temperature, reduction="batchmean")(**pair), 4 * expected)
    torch.testing.assert_close(losses.SigmoidKL(temperature, reduction="sum")(**pair), 24 * expected)


def test_the_sigmoid_loss_by_hand():
    # Teacher says 3/4, student 1/2: 3/4 log(3/2) + 1/4 log(1/2).
    student, teacher = torch.tensor([[0.0]]), torch.tensor([[3.0]]).log()
    assert float(losses.SigmoidKL()(student=student, teacher=teacher)) == pytest.approx(0.130812, abs=1e-6)
    assert float(losses.SigmoidKL()(student=teacher, teacher=teacher)) == pytest.approx(0.0, abs=1e-7)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: losses.KLDivergence(float("nan")), "temperature=nan must be above 0 and finite"),
        (lambda: losses.StandardizedKL(float("inf")), "temperature=inf must be above 0 and finite"),
        (lambda: losses.VirtualTeacherKL(-0.5), "temperature=-0.5 must be above 0"),
        (lambda: losses.SimilarityKL(-0.5), "temperature=-0.5 must be above 0"),
        (lambda: losses.RotatedKL(0.0), "temperature=0.0 must be above 0"),
        (lambda: losses.RotatedKL(keep=2.0), "keep=2.0 must lie between 0 and 1"),
        (lambda: losses.SimilarityKL(keep=-1.0), "keep=-1.0 must lie between 0 and 1"),
        (lambda: losses.ContrastivePrediction(views=1), "views=1 must be 2 or more"),
        (lambda: losses.CrossViewKL(weak_confidence=90), "weak_confidence=90 must lie between 0 and 1"),
        (lambda: losses.FactorTransfer(0.0), "p=0.0 must be above 0, as the order of a norm"),
        (lambda: losses.SimilarityPreserving(float("nan")), "p=nan must be above 0"),
        (lambda: losses.AttentionTransfer(norm="p", p=-1.0), "p=-1.0 must be above 0"),
        (lambda: losses.AttentionTransfer(exponent=-1.0), "exponent=-1.0 must be above 0"),
        (lambda: losses.ActivationBoundary(-1.0), "margin=-1.0 must be 0 or more"),
        (lambda: losses.PrimeAwareL2(-1.0), "eps=-1.0 must be 0 or more"),
        (lambda: losses.CorrelationCongruence(order=-1), "order=-1 must be 1 or more"),
        (lambda: losses.CorrelationCongruence(kernel="bilinear", order=7), "order=7 have no part in kernel='bilinear'"),
        (lambda: losses.HierarchicalContext([4, 0]), "sizes=0 must be above 0"),
        (lambda: losses.ScaleDecoupled(losses.KLDivergence(reduction="sum")), "base.reduction='sum' has no part"),
        (lambda: losses.LinearWarmup(value=1.0, epochs=float("nan")), "epochs=nan must be above 0"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_arguments_that_no_loss_can_mean_are_refused(make, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


def test_orders_of_norms_may_be_infinite():
    loss = losses.AttentionTransfer(norm="p", p=float("inf"))
    assert loss(**inputs(2, (3, 4, 4))).isfinite()


@pytest.mark.parametrize("rows", [8, 7])
@pytest.mark.parametrize("form", ["authors", "consistent"])
def test_the_virtual_teacher_has_a_label_for_each_row_and_two_classes(rows, form):
    loss, labels = losses.VirtualTeacherKL(form=form), torch.tensor([1, 2])
    with pytest.raises(ValueError, match="4 times as many rows" if rows == 8 else "one class index for each image,"):
        loss(student=tensor(rows, 3, seed=1), target=labels)
    for shape in ((2, 1), (2, 3, 4, 4)):
        with pytest.raises(ValueError, match=r"logits .* of two classes or more"):
            loss(student=tensor(*shape, seed=1), target=labels)


@pytest.mark.parametrize(
    ("loss", "names"),
    [
        (losses.SimilarityKL(views=2), ("student", "teacher")),
        (losses.ContrastivePrediction(views=2), ("embedding",)),
        (losses.RotatedKL(views=2), ("student", "teacher")),
    ],
    ids=lambda value: type(value).__name__,
)
def test_rows_of_four_views_are_not_read_as_those_of_two(loss, names):
    rows = {name: tensor(8, 3, seed=1) for name in names}
    with pytest.raises(ValueError, match="8 rows with views=2 want 4 labels, got 2"):
        loss(**rows, target=torch.tensor([1, 2]))


def test_what_was_masked_by_another_share_is_refused_where_nothing_is_trained():
    mask = torch.tensor([1.0, 1, 1, 0]).view(1, 1, 2, 2).expand(2, 1, 2, 2)
    with torch.no_grad(), pytest.raises(ValueError, match=r"share=0\.5, and 0\.75 of the positions"):
        losses.MaskedDistance()(**inputs(2, (3, 2, 2)), mask=mask)
    with torch.no_grad():
        assert losses.MaskedDistance(0.6)(**inputs(2, (3, 2, 2)), mask=mask).isfinite()  # 2.4 positions of 4 are 3

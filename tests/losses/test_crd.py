"""CRD: who is drawn, what is remembered, what it costs."""

import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from distill_app.losses import ContrastiveRepresentation, contrastive

SHAPES = {"student": (8, 6), "teacher": (8, 6)}
LABELS = np.array([2, 0, 1, 1, 2, 0, 2, 2, 1, 0, 3, 2])


def batch(size=4, seed=0, width=6):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (torch.randn(size, width, generator=generator, requires_grad=True) for _ in range(2))
    return {"student": student, "teacher": teacher, "index": torch.randperm(12, generator=generator)[:size]}


def classes_of_rows(loss):
    """The class of each memory row, from the lookup of indices."""
    found = torch.empty(len(LABELS), dtype=torch.long)
    found[loss.row_of] = torch.from_numpy(LABELS)
    return found


@pytest.mark.parametrize("mode", ["exact", "relax"])
def test_negatives_never_have_the_class_of_the_positive_and_are_uniform(mode):
    loss = ContrastiveRepresentation(LABELS, SHAPES, negatives=20000, mode=mode)
    classes, rows = classes_of_rows(loss), torch.arange(12)
    positives, negatives = loss.draw(rows)
    assert (classes[negatives] != classes[rows].unsqueeze(1)).all()
    assert (classes[positives] == classes[rows]).all()
    for row in rows:
        others = (classes != classes[row]).nonzero().squeeze(1)
        share = torch.bincount(negatives[row], minlength=12)[others] / 20000
        assert (share * len(others) - 1).abs().max() < 0.15


def test_relax_draws_others_of_the_class_and_exact_does_not():
    rows = torch.arange(12).repeat(50)
    for mode, expected in (("exact", False), ("relax", True)):
        positives, _ = ContrastiveRepresentation(LABELS, SHAPES, negatives=1, mode=mode).draw(rows)
        assert bool((positives != rows).any()) == expected


def test_gradient_equals_that_of_plain_autograd():
    loss = ContrastiveRepresentation(LABELS, SHAPES, negatives=7).double()
    values = batch()
    student, teacher = (values[side].detach().double().requires_grad_() for side in ("student", "teacher"))
    negatives = torch.from_numpy(np.array([[10] * 7] * 4))
    memories = [memory.clone() for memory in (loss.teacher_memory, loss.student_memory)]
    value = loss(student=student, teacher=teacher, index=values["index"], negatives=negatives)
    value.backward()

    rows = torch.cat([loss.row_of[values["index"]].unsqueeze(1), loss.row_of[negatives]], dim=1)
    plain, total = [student.detach().clone().requires_grad_(), teacher.detach().clone().requires_grad_()], 0.0
    for embedding, memory in zip(plain, memories, strict=True):
        scores = (torch.einsum("bd,bkd->bk", F.normalize(embedding, dim=1), memory[rows]) / 0.07).exp()
        scores = scores / (scores.detach().mean() * 12)
        found = scores[:, 0] / (scores[:, 0] + 7 / 12 + 1e-7)
        refused = (7 / 12) / (scores[:, 1:] + 7 / 12 + 1e-7)
        total = total - (found.log().sum() + refused.log().sum()) / 4
    total.backward()
    torch.testing.assert_close(value, total)
    torch.testing.assert_close(student.grad, plain[0].grad)
    torch.testing.assert_close(teacher.grad, plain[1].grad)


@pytest.mark.parametrize("ratio", [0, 1000])
def test_gathered_and_whole_bank_scores_agree_in_chunks_of_any_size(monkeypatch, ratio):
    generator = torch.Generator().manual_seed(0)
    memory, embedding = (torch.randn(*shape, generator=generator).double() for shape in ((50, 6), (9, 6)))
    candidates = torch.randint(50, (9, 20), generator=generator)
    wanted = torch.einsum("bd,bkd->bk", embedding, memory[candidates])
    slope = torch.randn(9, 20, generator=generator).double()
    monkeypatch.setattr(contrastive, "WHOLE_BANK_RATIO", ratio)
    for floats in (1, 300, 1 << 25):
        monkeypatch.setattr(contrastive, "CHUNK_FLOATS", floats)
        torch.testing.assert_close(contrastive.similarities(embedding, memory, candidates), wanted)
        got = contrastive.similarity_gradient(slope, memory, candidates)
        torch.testing.assert_close(got, torch.einsum("bk,bkd->bd", slope, memory[candidates]))


def test_memories_of_the_batch_move_in_train_mode_only():
    loss = ContrastiveRepresentation(LABELS, SHAPES, negatives=5, momentum=0.25)
    values = batch()
    before = loss.student_memory.clone()
    loss.eval()(**values)
    assert torch.equal(loss.student_memory, before)
    loss.train()(**values)
    rows = loss.row_of[values["index"]]
    moved = F.normalize(0.25 * before[rows] + 0.75 * F.normalize(values["student"], dim=1), dim=1)
    torch.testing.assert_close(loss.student_memory[rows], moved.detach())
    others = torch.ones(12, dtype=torch.bool).index_fill(0, rows, False)
    assert torch.equal(loss.student_memory[others], before[others])


def test_value_needs_no_gradient():
    values = batch()
    with torch.no_grad():
        value = ContrastiveRepresentation(LABELS, SHAPES, negatives=5).eval()(**values)
    assert value.isfinite()
    assert not value.requires_grad


def test_constant_is_set_by_the_first_batch_and_then_frozen():
    loss = ContrastiveRepresentation(LABELS, SHAPES, negatives=5)
    assert loss.student_z < 0
    loss(**batch(seed=1))
    first = loss.student_z.clone()
    assert first > 0
    loss(**batch(seed=2))
    assert loss.student_z == first


def test_state_dict_restores_memories_and_constants_exactly():
    loss, other = (ContrastiveRepresentation(LABELS, SHAPES, negatives=5) for _ in range(2))
    loss(**batch(seed=1))
    assert set(loss.state_dict()) == {"student_memory", "teacher_memory", "student_z", "teacher_z"}
    other.load_state_dict(loss.state_dict())
    results = []
    for module in (loss, other):
        torch.manual_seed(3)
        results.append(module(**batch(seed=2)))
    assert torch.equal(*results)
    assert torch.equal(loss.teacher_memory, other.teacher_memory)


def test_index_is_the_position_in_the_unsplit_data_set():
    positions = np.arange(12) * 5 + 2
    loss = ContrastiveRepresentation(LABELS, SHAPES, sample_indices=positions, negatives=5)
    values = batch()
    reference = ContrastiveRepresentation(LABELS, SHAPES, negatives=5)
    rows = reference.row_of[values["index"]]
    assert torch.equal(loss.row_of[torch.from_numpy(positions)[values["index"]]], rows)
    with pytest.raises(IndexError):
        loss(**{**values, "index": torch.tensor([2, 7, 12, 3])})  # 3 is no training sample


def test_wrong_set_up_is_explained():
    with pytest.raises(ValueError, match="only one class"):
        ContrastiveRepresentation([1, 1, 1], SHAPES)
    with pytest.raises(ValueError, match="out_features"):
        ContrastiveRepresentation(LABELS, {"student": (8, 6), "teacher": (8, 7)})
    with pytest.raises(ValueError, match="sample_indices 2"):
        ContrastiveRepresentation(LABELS, SHAPES, sample_indices=[0, 1])


MEASURE_SET_UP = """
import resource, numpy as np, torch
from distill_app.losses import ContrastiveRepresentation
labels = np.random.default_rng(0).integers(0, 1000, 1_280_000)
used = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before = used()
loss = ContrastiveRepresentation(labels, {"student": (2, 128), "teacher": (2, 128)})
banks = 2 * loss.student_memory.numel() * 4 / 2**20
print(used() - before - banks)
"""


@pytest.mark.slow
def test_set_up_at_the_size_of_imagenet_takes_little_memory():
    done = subprocess.run([sys.executable, "-c", MEASURE_SET_UP], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 100  # MiB


RANK = """
import sys, torch, torch.distributed as dist
from distill_app.losses import ContrastiveRepresentation
from distill_app.world import shared_batch
rank, file = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
torch.manual_seed(0)
loss = ContrastiveRepresentation(torch.arange(20) % 4, {"student": (2, 6), "teacher": (2, 6)}, negatives=5)
before = loss.student_memory.clone()
torch.manual_seed(1 + rank)
index = torch.tensor([[0, 1, 2], [7, 8]][rank])
size = len(index)
with shared_batch((3, 2), rank):
    loss(student=torch.randn(size, 6), teacher=torch.randn(size, 6), index=index)
state = torch.cat([buffer.flatten() for buffer in loss.state_dict().values()])
both = [torch.empty_like(state) for _ in range(2)]
dist.all_gather(both, state)
assert torch.equal(*both), "ranks diverge"
moved = (loss.student_memory != before).any(dim=1)
assert sorted(moved.nonzero().squeeze(1).tolist()) == sorted(loss.row_of[[0, 1, 2, 7, 8]].tolist())
dist.barrier()
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_ranks_with_uneven_batches_keep_the_same_memories(tmp_path):
    ranks = [
        subprocess.Popen([sys.executable, "-c", RANK, str(rank), str(tmp_path / "meet")], stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    errors = [process.communicate(timeout=120)[1].decode() for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0], "\n".join(errors)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"negatives": 0}, "negatives=0 must be 1 or more"),
        ({"temperature": -0.07}, r"temperature=-0\.07 must be above 0"),
        ({"momentum": 2.0}, r"momentum=2\.0 must be in \[0, 1\)"),
    ],
)
def test_what_is_no_number_of_negatives_temperature_or_share_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ContrastiveRepresentation(LABELS, SHAPES, **options)


def test_rows_of_several_views_are_not_taken_for_samples():
    given = batch(8) | {"index": torch.arange(2)}
    with torch.no_grad(), pytest.raises(ValueError, match="8 rows and 2 samples: read one view"):
        ContrastiveRepresentation(LABELS, SHAPES, negatives=3)(**given)

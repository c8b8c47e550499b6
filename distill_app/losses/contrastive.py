"""Contrastive losses with a memory of every training sample."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from distill_app.losses.numerics import (
    directions,
    full_precision,
    require_at_least,
    require_choice,
    require_positive,
    require_same_shape,
)
from distill_app.world import common_number, mean_of_means, own_rows, whole

# The whole bank is scored by one matrix product if it holds at most this many times the rows that are wanted: the
# product reads memory in order, gathering K rows a sample does not. Measured on CPU with K = 16384: 30 times faster
# at a ratio of 3, 3 times at 24, slower at 78.
WHOLE_BANK_RATIO = 48
# Floats of a temporary: batches are worked through in chunks that stay below it.
CHUNK_FLOATS = 1 << 25


class ContrastiveRepresentation(nn.Module):
    """CRD: a sample's embedding finds its own memory of the other network among those of other classes.

    With h(m, e) = exp(<m, e> / T) / Z, N training samples and K negatives, each side gives

        L = -1/B * sum_b [log(h+ / (h+ + K/N)) + sum_k log((K/N) / (h_k + K/N))]

    and the loss is the sum of both sides: the student's embedding against the teacher's memory and the reverse. Z is
    set from the first batch, N * mean exp(<m, e> / T), and then frozen. After scoring, the memories of the batch move:
    m <- normalise(momentum * m + (1 - momentum) * e).

    Tian, Krishnan, Isola 2020, https://arxiv.org/abs/1910.10699. Embeddings (B, D) are learnt on both sides
    (`adapters.LinearProjector`, 128 features in the paper) and L2-normalised here; the gradient flows to both.

    Different from the authors' code: negatives are drawn on the device, with replacement, uniformly over the samples of
    other classes (memories lie sorted by class, so skipping the own class is one addition); scores come from a product
    with the whole bank where that is faster. Several ranks draw for the whole batch and take their own rows, and every
    rank updates with the samples of all: losses and memories are those of one process.

    The memories are buffers and so part of a checkpoint.

    Args:
        labels: Class of every training sample.
        input_shapes: Argument name -> shape; gives D.
        sample_indices: What `index` says of every training sample, in the order of `labels`; 0, 1, 2, ... if None.
        negatives: K, of a sample; 16384 in the paper.
        mode: "exact", the positive is the sample itself, or "relax", any sample of its class.
        temperature: T; 0.07 in the authors' code.
        momentum: Share of the old memory, below 1; 0.5 in the authors' code.
        eps: Added to denominators.

    Raises:
        ValueError: One class only, or embeddings of two widths.
    """

    row_of: Tensor
    boundaries: Tensor
    student_memory: Tensor
    teacher_memory: Tensor
    student_z: Tensor
    teacher_z: Tensor

    def __init__(
        self,
        labels: npt.ArrayLike,
        input_shapes: Mapping[str, Sequence[int]],
        *,
        sample_indices: npt.ArrayLike | None = None,
        negatives: int = 16384,
        mode: str = "exact",
        temperature: float = 0.07,
        momentum: float = 0.5,
        eps: float = 1e-7,
    ):
        super().__init__()
        require_choice(mode, ("exact", "relax"), argument="mode")
        require_at_least(negatives, 1, argument="negatives")
        require_positive(temperature, argument="temperature")
        require_positive(eps, argument="eps")
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum={momentum} must be in [0, 1): the share of the old memory")
        if input_shapes["student"][1:] != input_shapes["teacher"][1:]:
            raise ValueError(
                f"ContrastiveRepresentation needs embeddings of one width, got student "
                f"{tuple(input_shapes['student'])} and teacher {tuple(input_shapes['teacher'])}: give both adapters "
                f"(distill_app.adapters.LinearProjector) the same out_features"
            )
        self.negatives, self.mode, self.temperature = negatives, mode, temperature
        self.momentum, self.eps = momentum, eps
        self._sort_by_class(np.asarray(labels), sample_indices)
        width = input_shapes["student"][1]
        memory = torch.empty(len(np.asarray(labels)), width).uniform_(-1, 1).mul_((3 / width) ** 0.5)
        # The two are never compared with each other, so one draw serves both; at 1.28 M samples it takes a second.
        for side, rows in (("student", memory), ("teacher", memory.flip(0))):
            self.register_buffer(f"{side}_memory", rows)
            self.register_buffer(f"{side}_z", torch.tensor(-1.0))

    def _sort_by_class(self, labels: npt.NDArray, sample_indices: npt.ArrayLike | None) -> None:
        """Memory rows lie sorted by class: `row_of` finds the row of an index, `boundaries` the rows of a class."""
        size = len(labels)
        indices = np.arange(size) if sample_indices is None else np.asarray(sample_indices)
        if len(indices) != size:
            raise ValueError(f"labels has {size} samples, sample_indices {len(indices)}; they must be parallel")
        order = np.argsort(labels, kind="stable")
        _, starts = np.unique(labels[order], return_index=True)
        if len(starts) < 2:
            raise ValueError(
                "ContrastiveRepresentation draws negatives from other classes; the data has only one class"
            )
        # An index that no sample has leads past the end, to an error and not to somebody else's memory.
        row_of = np.full(int(indices.max()) + 1, size, dtype=np.int64)
        row_of[indices[order]] = np.arange(size)
        self.register_buffer("row_of", torch.from_numpy(row_of), persistent=False)
        self.register_buffer("boundaries", torch.from_numpy(np.append(starts, size)), persistent=False)

    def forward(self, student: Tensor, teacher: Tensor, index: Tensor, negatives: Tensor | None = None) -> Tensor:
        """The loss, a scalar.

        Args:
            student: (B, D).
            teacher: (B, D).
            index: (B,), which training samples these are.
            negatives: (B, K) indices of training samples to contrast with, instead of drawn ones.

        Raises:
            ValueError: The embeddings differ in shape, or are not those of these samples.
        """
        require_same_shape(student, teacher, loss="ContrastiveRepresentation")
        if index.shape != student.shape[:1]:
            raise ValueError(
                f"ContrastiveRepresentation needs one embedding for each sample, got {len(student)} rows and "
                f"{len(index)} samples: read one view of each image (distill_app.adapters.SelectView)"
            )
        memory_type = self.student_memory.dtype
        student, teacher = (directions(full_precision(e).flatten(1), dim=1).to(memory_type) for e in (student, teacher))
        rows = self.row_of[index]
        positives, drawn = self.draw(rows)
        candidates = torch.cat([positives.unsqueeze(1), drawn if negatives is None else self.row_of[negatives]], dim=1)
        loss = self._contrast(student, self.teacher_memory, self.student_z, candidates)
        loss = loss + self._contrast(teacher, self.student_memory, self.teacher_z, candidates)
        if self.training:
            self._remember(rows, student.detach(), teacher.detach())
        return loss

    def draw(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Positives (B,) and negatives (B, K), as memory rows; a negative never has the class of its sample."""
        # The remainder of a 62-bit number: its bias, N / 2^62, is nothing.
        numbers = self._numbers(len(rows), rows.device)
        own = torch.searchsorted(self.boundaries, rows, right=True) - 1
        start, end = self.boundaries[own], self.boundaries[own + 1]
        count = (end - start).unsqueeze(1)
        offset = numbers[:, 1:] % (len(self.student_memory) - count)
        negatives = offset + (offset >= start.unsqueeze(1)) * count
        positives = rows if self.mode == "exact" else start + numbers[:, 0] % count.squeeze(1)
        return positives, negatives

    def _numbers(self, count: int, device: torch.device) -> Tensor:
        """Random numbers of 62 bits (B, K + 1), this rank's rows of those that are drawn for the whole batch."""
        # Every rank has random numbers of its own; here they have to be the same.
        generator = torch.Generator(device).manual_seed(common_number())
        own = own_rows(count)
        # Rows come in order: those behind one's own need not be drawn.
        shape = (own.stop, self.negatives + 1)
        return torch.randint(1 << 62, shape, generator=generator, device=device)[own]

    def _contrast(self, embedding: Tensor, memory: Tensor, z: Tensor, candidates: Tensor) -> Tensor:
        """One side of the loss.

        The memory changes in place before backward runs, so the gradient is taken here and now, by hand through the
        product with the memory, and attached to the value.
        """
        similarity = similarities(embedding.detach(), memory, candidates).requires_grad_()
        with torch.enable_grad():
            scores = (similarity / self.temperature).exp()
            self._set_z(z, scores.detach())
            scores = scores / z
            share = (candidates.shape[1] - 1) / len(memory)
            positive, negative = scores[:, 0], scores[:, 1:]
            found = (positive / (positive + share + self.eps)).log().sum()
            refused = (share / (negative + share + self.eps)).log().sum()
            loss = -(found + refused) / len(embedding)
            (slope,) = torch.autograd.grad(loss, similarity)
        if not embedding.requires_grad:
            return loss.detach()
        gradient = similarity_gradient(slope, memory, candidates)
        return loss.detach() + ((embedding - embedding.detach()) * gradient).sum()

    def _set_z(self, z: Tensor, scores: Tensor) -> None:
        """Sets Z if it is not set yet; decided on the device, the host does not wait."""
        z.copy_(torch.where(z < 0, mean_of_means(scores.mean()) * len(self.student_memory), z))

    @torch.no_grad()
    def _remember(self, rows: Tensor, student: Tensor, teacher: Tensor) -> None:
        rows, student, teacher = (whole(tensor) for tensor in (rows, student, teacher))
        for memory, embedding in ((self.student_memory, student), (self.teacher_memory, teacher)):
            moved = self.momentum * memory[rows] + (1 - self.momentum) * embedding
            memory.index_copy_(0, rows, directions(moved, dim=1))


def _whole_bank(memory: Tensor, candidates: Tensor) -> bool:
    return len(memory) <= WHOLE_BANK_RATIO * candidates.shape[1]


def _chunks(memory: Tensor, candidates: Tensor) -> int:
    """How many samples to score at once."""
    floats = len(memory) if _whole_bank(memory, candidates) else candidates.shape[1] * memory.shape[1]
    return max(CHUNK_FLOATS // floats, 1)


def similarities(embedding: Tensor, memory: Tensor, candidates: Tensor) -> Tensor:
    """Inner products of (B, D) embeddings with their (B, K) candidate rows of an (N, D) memory: (B, K)."""
    parts = []
    size = _chunks(memory, candidates)
    for some, rows in zip(embedding.split(size), candidates.split(size), strict=True):
        if _whole_bank(memory, candidates):
            parts.append((some @ memory.T).gather(1, rows))
        else:
            parts.append((memory[rows] @ some.unsqueeze(2)).squeeze(2))
    return torch.cat(parts)


def similarity_gradient(slope: Tensor, memory: Tensor, candidates: Tensor) -> Tensor:
    """The gradient at the embeddings, (B, D), from the one at their similarities, (B, K)."""
    parts = []
    size = _chunks(memory, candidates)
    for some, rows in zip(slope.split(size), candidates.split(size), strict=True):
        if _whole_bank(memory, candidates):
            dense = some.new_zeros(len(some), len(memory)).scatter_add_(1, rows, some)
            parts.append(dense @ memory)
        else:
            parts.append((some.unsqueeze(1) @ memory[rows]).squeeze(1))
    return torch.cat(parts)

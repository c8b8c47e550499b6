"""The limit: the training steps of the benchmark written out by hand, with nothing around them.

A loop fetches samples, stacks them, normalises the batch, runs the networks, computes the loss, and steps a fused
SGD. There is no config, no hook, no tracker, no look at the loss, no data loader. Where a network is read in the
middle, its other half has been cut off by hand. What is left is the arithmetic, which no framework can go below.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from .images import ImagesInMemory, normalized

TEMPERATURE = 4.0  # of KD, as in conf/loss/kl.yaml
CRD_WEIGHT, CRD_TEMPERATURE, CRD_MOMENTUM, CRD_EPS = 0.8, 0.07, 0.5, 1e-7


@dataclass(frozen=True)
class Form:
    """In which form the networks run."""

    channels_last: bool = True
    fold: bool = True
    bf16: bool = False

    @property
    def layout(self) -> torch.memory_format:
        """The memory layout of images, maps and kernels."""
        return torch.channels_last if self.channels_last else torch.contiguous_format


class Feed:
    """Batches in random order: samples fetched one by one, stacked, and normalised as a batch."""

    def __init__(self, images: ImagesInMemory, *, batch: int, layout: torch.memory_format):
        self.images, self.batch, self.layout = images, batch, layout
        self.order, self.at = [0], 1

    def __call__(self, rows: Sequence[int] | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Images, labels and indices of the next batch, or of these rows."""
        if rows is None:
            if self.at + self.batch > len(self.order):
                self.order, self.at = torch.randperm(len(self.images)).tolist(), 0
            rows = self.order[self.at : self.at + self.batch]
            self.at += self.batch
        pixels, labels = zip(*[self.images[row] for row in rows], strict=True)
        inputs = normalized(torch.stack(pixels)).contiguous(memory_format=self.layout)
        return inputs, torch.tensor(labels), torch.tensor(rows)


def folded(network: nn.Module) -> nn.Module:
    """A copy in which batch norms are part of the convolutions defined right before them, as in ResNets."""
    network = copy.deepcopy(network).eval()
    for parent in list(network.modules()):
        children = list(parent.named_children())
        for (first, conv), (second, norm) in pairwise(children):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(parent, first, fuse_conv_bn_eval(conv, norm))
                setattr(parent, second, nn.Identity())
    return network


def until(network: nn.Module, path: str) -> nn.Sequential:
    """A ResNet up to and including one of its direct children."""
    names = [name for name, _ in network.named_children()]
    return nn.Sequential(*list(network.children())[: names.index(path) + 1])


class Loop:
    """A loop of CE alone; the others add to `loss` and read the teacher.

    Args:
        student: Copied, and trained.
        teacher: Copied, and run in eval mode; None: there is none.
        extra: Trained beside the student; copied.
        images: The samples.
        batch: Samples a step.
        form: In which form the networks run.
        cut: The path of a module of both networks behind which nothing is left; "": nothing is cut.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module | None,
        *,
        images: ImagesInMemory,
        batch: int,
        form: Form,
        extra: Sequence[nn.Module] = (),
        cut: str = "",
    ):
        self.form, self.feed = form, Feed(images, batch=batch, layout=form.layout)
        self.student = copy.deepcopy(until(student, cut) if cut else student).to(memory_format=form.layout).train()
        self.extra = [copy.deepcopy(module).to(memory_format=form.layout).train() for module in extra]
        if teacher is not None:
            teacher = copy.deepcopy(until(teacher, cut) if cut else teacher).eval().requires_grad_(False)
            teacher = (folded(teacher) if form.fold else teacher).requires_grad_(False)
            teacher = teacher.to(torch.bfloat16 if form.bf16 else torch.float32, memory_format=form.layout)
        self.teacher = teacher
        parameters = [*self.student.parameters(), *(p for module in self.extra for p in module.parameters())]
        self.optimizer = torch.optim.SGD(parameters, lr=0.01, momentum=0.9, weight_decay=1e-4, fused=True)

    def step(self, rows: Sequence[int] | None = None) -> Tensor:
        """One training step, on the next batch or on these rows; the loss before it."""
        loss = self.loss(*self.feed(rows))
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.after()
        return loss

    def loss(self, images: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
        """The loss of a batch."""
        return F.cross_entropy(self.study(images), labels)

    def after(self) -> None:
        """What has to wait for backward."""

    @torch.no_grad()
    def teach(self, images: Tensor) -> Tensor:
        """What the teacher says."""
        assert self.teacher is not None
        return self.teacher(images.to(torch.bfloat16) if self.form.bf16 else images).float()

    def study(self, images: Tensor) -> Tensor:
        """What the student says."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.form.bf16):
            return self.student(images).float()


class KD(Loop):
    """Half cross-entropy, half KL at temperature 4."""

    def loss(self, images: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
        teacher = F.softmax(self.said(images, rows) / TEMPERATURE, dim=1)
        student = self.study(images)
        kl = F.kl_div(F.log_softmax(student / TEMPERATURE, dim=1), teacher, reduction="batchmean")
        return 0.5 * F.cross_entropy(student, labels) + 0.5 * TEMPERATURE**2 * kl

    def said(self, images: Tensor, rows: Tensor) -> Tensor:
        """The teacher's logits."""
        return self.teach(images)


class CachedKD(KD):
    """KD whose teacher's logits lie in memory as float16, an array by sample."""

    def __init__(self, logits: Tensor, student: nn.Module, **arguments):
        super().__init__(student, None, **arguments)
        self.logits = logits

    def said(self, images: Tensor, rows: Tensor) -> Tensor:
        return self.logits[rows].float()


class Hint(Loop):
    """Mean squared error between the teacher's map and what a regressor makes of the student's."""

    def loss(self, images: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.form.bf16):
            regressed = self.extra[0](self.student(images))
        return F.mse_loss(regressed.float(), self.teach(images))


class CRD(Loop):
    """Cross-entropy and CRD; both banks lie sorted by class, and one product scores all of a bank.

    Args:
        labels: The class of every sample.
        banks: (N, D) the student's and the teacher's, sorted by class.
        negatives: K.
        gather: The straightforward form instead: every row that is wanted is copied, then multiplied.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        *,
        labels: Tensor,
        banks: tuple[Tensor, Tensor],
        negatives: int,
        gather: bool = False,
        **arguments,
    ):
        super().__init__(student, teacher, **arguments)
        self.negatives, self.gather = negatives, gather
        self.row_of = torch.argsort(torch.argsort(labels, stable=True))
        self.of_class = torch.bincount(labels)
        self.start = torch.cumsum(self.of_class, 0) - self.of_class
        self.banks, self.z = [bank.clone() for bank in banks], [None, None]
        self.drawn: Tensor | None = None  # instead of negatives of its own, once
        self.pooled: dict[str, Tensor] = {}
        for name, network in (("student", self.student), ("teacher", self.teacher)):
            network.fc.register_forward_pre_hook(lambda _, args, name=name: self.pooled.update({name: args[0]}))

    def loss(self, images: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
        self.teach(images)
        cross_entropy = F.cross_entropy(self.study(images), labels)
        # The order of the banks: each embedding is held against the bank of the other network.
        embeddings = [
            F.normalize(head(self.pooled[name].float()), dim=1)
            for head, name in zip(self.extra, ("student", "teacher"), strict=True)
        ]
        rows = self.row_of[rows]
        candidates = torch.cat([rows[:, None], self.draw(rows, labels)], dim=1)
        contrast = self.contrast(embeddings[0], 1, candidates) + self.contrast(embeddings[1], 0, candidates)
        self.seen = rows, [embedding.detach() for embedding in embeddings]
        return cross_entropy + CRD_WEIGHT * contrast

    def draw(self, rows: Tensor, labels: Tensor) -> Tensor:
        """K rows of other classes for every sample."""
        if self.drawn is not None:
            drawn, self.drawn = self.drawn, None
            return drawn
        start, count = self.start[labels, None], self.of_class[labels, None]
        drawn = (torch.rand(len(rows), self.negatives) * (len(self.row_of) - count)).long()
        return drawn + (drawn >= start) * count

    def contrast(self, embedding: Tensor, side: int, candidates: Tensor) -> Tensor:
        """One side of the loss."""
        bank = self.banks[side]
        if self.gather:
            copied = bank.index_select(0, candidates.flatten()).view(*candidates.shape, -1)
            similarity = (copied @ embedding[:, :, None]).squeeze(2)
        else:
            similarity = (embedding @ bank.T).gather(1, candidates)
        scores = (similarity / CRD_TEMPERATURE).exp()
        if self.z[side] is None:
            self.z[side] = scores.detach().mean() * len(bank)
        scores = scores / self.z[side]
        share = self.negatives / len(bank)
        found = (scores[:, 0] / (scores[:, 0] + share + CRD_EPS)).log().sum()
        refused = (share / (scores[:, 1:] + share + CRD_EPS)).log().sum()
        return -(found + refused) / len(embedding)

    @torch.no_grad()
    def after(self) -> None:
        """Moves the rows of the batch; backward has read the banks until now."""
        rows, embeddings = self.seen
        for bank, embedding in zip(self.banks, embeddings, strict=True):
            bank[rows] = F.normalize(CRD_MOMENTUM * bank[rows] + (1 - CRD_MOMENTUM) * embedding, dim=1)

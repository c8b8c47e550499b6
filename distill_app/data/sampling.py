"""Samplers, batch samplers and collate functions of the config: what makes up an epoch and a batch."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DistributedSampler

from distill_app.config.build import Builder, untargeted
from distill_app.config.plan import StagePlan
from distill_app.config.schema import DatasetConf
from distill_app.data.order import EpochOrder, Order, rank_share, refuse_small
from distill_app.errors import ConfigError, DataError
from distill_app.seeds import generator_kept, permutation, stable_hash
from distill_app.world import ALONE, World

# What constructors get if they have parameters of these names.
SAMPLER = ("data_source", "dataset", "num_samples", "num_classes", "labels", "seed", "epoch", "generator")
BATCH_SAMPLER = (*SAMPLER, "sampler", "batch_size", "drop_last")


def sampling_problems(conf: DatasetConf, *, key: str, builder: Builder) -> Iterator[str]:
    """What is wrong with the samplers and the collate function of a data set's config."""
    for name, context in (("sampler", SAMPLER), ("batch_sampler", BATCH_SAMPLER)):
        node, place = getattr(conf, name), f"{key}.{name}"
        if node is None:
            continue
        problems = builder.problems(node, key=place, context=context)
        if not problems and _is_distributed(builder.locate(node["_target_"], key=place)):
            problems = [f"{place}: a sampler that divides samples among processes; the program does that by itself"]
        yield from problems
    if conf.collate is not None:
        yield from collate_problems(conf.collate, key=f"{key}.collate", builder=builder)


def _is_distributed(target: Any) -> bool:
    return isinstance(target, type) and issubclass(target, DistributedSampler)


@dataclass
class Sampling:
    """The samplers of a stage, built anew for every epoch with a seed of that epoch.

    So what they yield is a function of (seed, stage, epoch) and nothing has to be stored: torch's, numpy's and Python's
    own random numbers are those of the epoch too while they are built and run.

    Args:
        plan: The stage.
        builder: Builds from config.
        samples: Of the stage: positions are those among them.
        labels: Of these samples, (N,), if they have any.
        seed: Of the run.
    """

    plan: StagePlan
    builder: Builder
    samples: Any
    labels: np.ndarray | None
    seed: int

    def positions(self, epoch: int) -> np.ndarray:
        """The samples of an epoch by their positions, in the order of the config's sampler."""
        key = f"{self.plan.data_key}.sampler"
        with self._random(epoch) as seed:
            sampler = self.builder.build(self.plan.data.sampler, key=key, **self._context(epoch, seed))
            return _positions(list(sampler), len(self.samples), key=key, what="a sampler gives")

    def batches(self, epoch: int) -> list[np.ndarray]:
        """The batches of an epoch, as the config's batch sampler makes them."""
        key, conf = f"{self.plan.data_key}.batch_sampler", self.plan.conf
        if self.plan.data.sampler is not None:
            order = self.positions(epoch)
        else:
            order = permutation(len(self.samples), "order", self.seed, self.plan.name, epoch)
        more = {"sampler": order.tolist(), "batch_size": conf.batch_size, "drop_last": conf.drop_last}
        with self._random(epoch) as seed:
            context = self._context(epoch, seed) | more
            sampler = self.builder.build(self.plan.data.batch_sampler, key=key, **context)
            return [
                _positions(list(batch), len(self.samples), key=key, what="a batch sampler gives lists of")
                for batch in sampler
            ]

    def _context(self, epoch: int, seed: int) -> dict[str, Any]:
        context = {
            "data_source": self.samples,
            "dataset": self.samples,
            "num_samples": len(self.samples),
            "num_classes": self.plan.data.num_classes,
            "labels": self.labels,
            "seed": seed,
            "epoch": epoch,
            "generator": torch.Generator().manual_seed(seed),
        }
        return {name: value for name, value in context.items() if value is not None}

    @contextmanager
    def _random(self, epoch: int) -> Iterator[int]:
        seed = stable_hash(self.seed, "sampler", self.plan.name, epoch) % 2**32
        states = random.getstate(), np.random.get_state()
        with generator_kept():
            torch.default_generator.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed)
            try:
                yield seed
            finally:
                random.setstate(states[0])
                np.random.set_state(states[1])


def _positions(values: list[Any], count: int, *, key: str, what: str) -> np.ndarray:
    try:
        array = np.asarray(values, dtype=np.int64) if values else np.empty(0, np.int64)
        fits = array.ndim == 1 and np.array_equal(array, np.asarray(values)) if values else True
    except (TypeError, ValueError):
        fits = False
    if not fits or (len(array) and not (array.min() >= 0 and array.max() < count)):
        raise DataError(
            f"{key}: {what} positions among the {count} training samples of the stage, whole numbers from 0 to "
            f"{count - 1}; these begin with {values[:5]!r}"
        )
    return array


def training_order(
    plan: StagePlan,
    samples: Any,
    *,
    labels: np.ndarray | None,
    builder: Builder,
    seed: int,
    views: int | None,
    world: World = ALONE,
    groups: np.ndarray | None = None,
) -> Order:
    """The order in which a stage sees its training samples.

    Args:
        plan: The stage.
        samples: Its training samples.
        labels: Of these samples, (N,), if they have any.
        builder: Builds from config.
        seed: Of the run.
        views: As in `Order`.
        world: Of which processes this is one.
        groups: Of these samples, (N,): batches are filled up with those of one group.

    Raises:
        ConfigError: A sampler that cannot be built.
        DataError: A sampler that gives something else than positions.
    """
    sampling = Sampling(plan, builder, samples, labels, seed)
    if plan.data.batch_sampler is not None:
        key = f"{plan.data_key}.batch_sampler"
        return BatchOrder(sampling.batches, key=key, views=views, world=world)
    sampler, count = None, len(samples)
    if plan.data.sampler is not None:
        sampler = _EqualEpochs(sampling.positions, key=f"{plan.data_key}.sampler")
        count = len(sampler(0))
        if not count:
            raise DataError(f"{plan.data_key}.sampler: gives no samples")
    return EpochOrder(
        count,
        batch_size=plan.conf.batch_size,
        seed=seed,
        stage=plan.name,
        shuffle=True,
        drop_last=plan.conf.drop_last,
        world=world,
        views=views,
        sampler=sampler,
        groups=groups,
    )


class _EqualEpochs:
    """What an epoch consists of, the last one kept; every epoch has to have as much of it as the first."""

    def __init__(self, of: Callable[[int], Any], *, key: str):
        self._of, self._key = of, key
        self._kept: tuple[int, Any] = (0, of(0))
        self._count = len(self._kept[1])

    def __call__(self, epoch: int) -> Any:
        if self._kept[0] != epoch:
            self._kept = (epoch, self._of(epoch))
        count = len(self._kept[1])
        if count != self._count:
            raise DataError(
                f"{self._key}: gives {self._count} in epoch 0 and {count} in epoch {epoch}; learning rate schedules "
                f"need the same number in every epoch"
            )
        return self._kept[1]


class BatchOrder(Order):
    """Batches as a batch sampler makes them, each cut into one slice per rank.

    Args:
        batches: Epoch -> positions, batch by batch.
        key: Of the batch sampler, for messages.
        views: As in `Order`.
        world: Of which processes this is one.

    Raises:
        DataError: No batches, an empty one, or one with fewer samples than there are ranks.
    """

    def __init__(
        self,
        batches: Callable[[int], list[np.ndarray]],
        *,
        key: str,
        views: int | None,
        world: World = ALONE,
    ) -> None:
        super().__init__(views=views, world=world)
        self._of, self._key = _EqualEpochs(batches, key=key), key
        self.num_samples = sum(len(batch) for batch in self._of(0))
        if not self.num_samples:
            raise DataError(f"{key}: gives no batches")

    @property
    def sizes(self) -> list[int]:
        """How many samples each batch of this epoch has, over all ranks."""
        sizes = [len(batch) for batch in self._of(self.epoch)]
        if 0 in sizes:
            raise DataError(f"{self._key}: batch {sizes.index(0)} of epoch {self.epoch} is empty")
        refuse_small(sizes, world=self.world, remedy=f"let {self._key} give larger ones")
        return sizes

    def __len__(self) -> int:
        return len(self._of(self.epoch))

    def _batches(self) -> Callable[[int], np.ndarray]:
        batches = self._of(self.epoch)
        return lambda batch: rank_share(batches[batch], self.world)


def collate_of(conf: DatasetConf, *, key: str, builder: Builder, default: Callable[[list[Any]], Any]) -> Any:
    """What makes a batch of a list of samples: the config's, else the task's.

    Raises:
        ConfigError: It cannot be built.
    """
    if conf.collate is None:
        return default
    key = f"{key}.collate"
    if problems := collate_problems(conf.collate, key=key, builder=builder):
        raise ConfigError(problems)
    is_class = isinstance(builder.locate(conf.collate["_target_"], key=key), type)
    return builder.build(conf.collate, key=key) if is_class else builder.function(conf.collate, key=key)


def collate_problems(conf: Any, *, key: str, builder: Builder) -> list[str]:
    """What is wrong with the config of a collate function: a function, or a class of callable objects."""
    if errors := untargeted(conf, key=key):
        return errors
    try:
        target = builder.locate(conf["_target_"], key=key)
    except ConfigError as error:
        return error.errors
    if not isinstance(target, type):
        return builder.problems(conf, key=key, positional=1)
    if not any("__call__" in vars(kind) for kind in target.__mro__):
        return [f"{key}: objects of {conf['_target_']} cannot be called with a list of samples"]
    return builder.problems(conf, key=key)

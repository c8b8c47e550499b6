"""The data of one stage: training samples within the label budget, the split that judges epochs, the test set."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.utils.data import default_collate

from distill_app.config.build import Builder
from distill_app.config.cached import AUGMENTATION, views_of
from distill_app.config.plan import StagePlan
from distill_app.config.schema import CacheConf, DatasetConf, RuntimeConf
from distill_app.data.loading import Loader, make_loader, with_place
from distill_app.data.order import EpochOrder
from distill_app.data.resident import LIMIT, Images, Mismatch, NotResident, ResidentLoader, held_transforms
from distill_app.data.samples import Samples
from distill_app.data.split import budget, hold_out, labels_of
from distill_app.errors import DataError
from distill_app.words import warn


@dataclass
class StageData:
    """Loaders of a stage, and what its losses may ask for."""

    train: Loader | ResidentLoader
    order: EpochOrder
    judge: Loader | ResidentLoader
    judged_on: str  # validation, or test where nothing is held out
    labels: np.ndarray  # of the training samples, in their order
    indices: np.ndarray  # of the training samples in the underlying data set
    identity: dict[str, Any] = field(default_factory=dict)

    def example_batch(self, task: Any, *, device: torch.device, count: int = 2) -> dict[str, Any]:
        """The first training samples, as a task prepares them."""
        samples = self.train.dataset
        keys = [(position % len(samples), 0) for position in range(count)]  # type: ignore[arg-type]
        batch = default_collate(samples.__getitems__(keys))  # type: ignore[attr-defined]
        return prepared(with_place(batch, view=0), task, device=device)

    def arguments(self, *, num_classes: int) -> dict[str, Any]:
        """What constructors of losses and adapters may ask for by name."""
        return {
            "num_classes": num_classes,
            "num_samples": len(self.indices),
            "labels": self.labels,
            "sample_indices": self.indices,
        }


def prepared(batch: Mapping[str, Any], task: Any, *, device: torch.device) -> dict[str, Any]:
    """A batch of a loader as its task prepares it, with its place kept for the host."""
    return {**task.prepare(batch, device=device), "view": batch["view"], "rows": batch["rows"]}


class DataSource:
    """Builds data sets from config, each once, and the loaders of the stages over them.

    Args:
        builder: Builds from config.
        runtime: Workers, policies for corrupt images.
        device: Where batches go.
        seed: Of the run; splits do not depend on it, so that seeds are compared on the same images.
        cache: Stages that read from the teacher cache go through a fixed number of views, of a seed of its own.
    """

    def __init__(
        self,
        *,
        builder: Builder,
        runtime: RuntimeConf,
        device: torch.device,
        seed: int,
        cache: CacheConf | None = None,
    ):
        self._builder, self._runtime, self._device, self._seed = builder, runtime, device, seed
        self._cache = cache or CacheConf()
        self._built: dict[str, Any] = {}
        self._resident: dict[str, Images] = {}
        self._evaluation: dict[str, Loader | ResidentLoader] = {}
        self._stages: dict[str, StageData] = {}

    def stage(self, plan: StagePlan) -> StageData:
        """The loaders of a stage, made when it is first asked for.

        Raises:
            ConfigError: A data set or transform cannot be built.
            DataError: A budget or split that the data cannot give, or images that cannot be held on the device where
                `resident: true` asks for it.
        """
        if plan.name not in self._stages:
            self._stages[plan.name] = self._stage(plan)
        return self._stages[plan.name]

    def _stage(self, plan: StagePlan) -> StageData:
        conf, key = plan.data, plan.data_key
        dataset = self._dataset(conf.train, key=f"{key}.train")
        labels = labels_of(dataset)
        train, validation = np.arange(len(labels)), np.arange(0)
        if conf.validation_fraction:
            train, validation = hold_out(labels, fraction=conf.validation_fraction)
        train = budget(labels, train, per_class=plan.conf.labels_per_class)
        views = views_of(plan, self._cache)
        drawn = (self._seed, plan.name) if views is None else (self._cache.seed, AUGMENTATION)
        samples = self._samples(dataset, train, conf.train_transform, drawn, key=f"{key}.train_transform")
        for wrapper, where in plan.wrappers.values():
            samples = self._builder.build(wrapper, samples, key=where, num_classes=conf.num_classes)
        order = EpochOrder(
            len(train),
            batch_size=plan.conf.batch_size,
            seed=self._seed,
            stage=plan.name,
            shuffle=True,
            drop_last=plan.conf.drop_last,
            views=views,
        )
        loader = self._loader(samples, order, conf=conf, key=key)
        judge = self._judge(plan, dataset, validation)
        identity = {
            "dataset": conf.name,
            "train": len(train),
            "validation": len(validation),
            "labels_per_class": plan.conf.labels_per_class,
            "root": conf.root,
            "label_counts": np.bincount(labels[train], minlength=conf.num_classes).tolist(),
        }
        return StageData(
            loader, order, judge, "validation" if len(validation) else "test", labels[train], train, identity
        )

    def close(self) -> None:
        """Ends the processes that load images."""
        for loader in (*self._evaluation.values(), *(data.train for data in self._stages.values())):
            loader.close()

    def test(self, plan: StagePlan) -> Loader | ResidentLoader:
        """The test set of a stage's data."""
        conf, key = plan.data, plan.data_key
        dataset = self._dataset(conf.test, key=f"{key}.test")
        return self._evaluation_loader(plan, dataset, np.arange(len(dataset)), name=f"test {conf.test}")

    def _judge(self, plan: StagePlan, dataset: Any, validation: np.ndarray) -> Loader | ResidentLoader:
        if not len(validation):
            return self.test(plan)
        name = f"validation {plan.data.validation_fraction} {plan.data.train}"
        return self._evaluation_loader(plan, dataset, validation, name=name)

    def _evaluation_loader(
        self, plan: StagePlan, dataset: Any, indices: np.ndarray, *, name: str
    ) -> Loader | ResidentLoader:
        conf = plan.data
        cache = f"{name} {conf.eval_transform} {conf.resident}"
        if cache not in self._evaluation:
            key = f"{plan.data_key}.eval_transform"
            samples = self._samples(dataset, indices, conf.eval_transform, (self._seed, plan.name), key=key)
            order = EpochOrder(len(indices), batch_size=256, seed=self._seed, stage=name, shuffle=False)
            self._evaluation[cache] = self._loader(samples, order, conf=conf, key=plan.data_key)
        return self._evaluation[cache]

    def _loader(self, samples: Any, order: EpochOrder, *, conf: DatasetConf, key: str) -> Loader | ResidentLoader:
        """Batches made on the device where that is possible, else sample by sample."""
        wanted, reason = str(conf.resident).lower(), ""
        if wanted != "false":
            try:
                return self._resident_loader(samples, order, limit=LIMIT if wanted == "auto" else None)
            except NotResident as error:
                if wanted == "true":
                    raise DataError(
                        f"{key}.resident: true was given, but {error}; set {key}.resident=auto to load sample by "
                        f"sample where images cannot be held on the device"
                    ) from error
                if isinstance(error, Mismatch):
                    warn(f"{key}.resident: images are loaded sample by sample, which is slower: {error}")
                reason = f", since {error}"
        loader = make_loader(samples, order=order, num_workers=self._runtime.num_workers, device=self._device)
        loader.how += reason
        return loader

    def _resident_loader(self, samples: Any, order: EpochOrder, *, limit: int | None) -> ResidentLoader:
        transforms = held_transforms(samples)
        # Data sets live as long as this object: each has one id.
        name = f"{id(samples.dataset)} {transforms}"
        if name not in self._resident:
            self._resident[name] = Images.read(samples.dataset, transforms, device=self._device, limit=limit)
        return ResidentLoader(samples, self._resident[name], order=order)

    def _dataset(self, conf: dict[str, Any], *, key: str) -> Any:
        name = repr(conf)
        if name not in self._built:
            self._built[name] = self._builder.build(conf, key=key)
        return self._built[name]

    def _samples(
        self, dataset: Any, indices: np.ndarray, transforms: list[Any], drawn: tuple[int, str], *, key: str
    ) -> Samples:
        """Samples whose augmentation is drawn by a seed and a name."""
        return Samples(
            dataset,
            indices=indices,
            transforms=[self._builder.build(conf, key=f"{key}[{i}]") for i, conf in enumerate(transforms)],
            seed=drawn[0],
            stage=drawn[1],
            corrupt=self._runtime.corrupt_images,
            max_skipped=self._runtime.max_skipped,
        )

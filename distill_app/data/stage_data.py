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
from distill_app.data.labels import class_names, labels_of
from distill_app.data.loading import Loader, make_loader, with_place
from distill_app.data.notes import class_notes, reading_notes
from distill_app.data.order import EpochOrder
from distill_app.data.resident import LIMIT, Images, Mismatch, NotResident, ResidentLoader, held_transforms
from distill_app.data.samples import Samples
from distill_app.data.split import budget, hold_out
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


@dataclass(frozen=True)
class TrainingSet:
    """Which images of the training data set a stage trains on, and which judge its epochs."""

    dataset: Any
    labels: np.ndarray  # of all its images
    train: np.ndarray  # indices, within the label budget
    validation: np.ndarray


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
        self._labels: dict[int, np.ndarray] = {}
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
        chosen, order = self.training_set(plan), self.order(plan)
        loader = self._loader(self.samples(plan, chosen.train), order, conf=conf, key=key)
        judge = self._judge(plan, chosen.dataset, chosen.validation)
        train, labels = chosen.train, chosen.labels[chosen.train]
        identity = {
            "dataset": conf.name,
            "train": len(train),
            "validation": len(chosen.validation),
            "labels_per_class": plan.conf.labels_per_class,
            "root": conf.root,
            "classes": class_names(chosen.dataset),
            "label_counts": np.bincount(labels, minlength=conf.num_classes).tolist(),
        }
        judged_on = "validation" if len(chosen.validation) else "test"
        return StageData(loader, order, judge, judged_on, labels, train, identity)

    def dataset(self, plan: StagePlan, part: str) -> Any:
        """The data set that `train` or `test` of a stage's data names, built once.

        Raises:
            ConfigError: It cannot be built.
        """
        return self._dataset(getattr(plan.data, part), key=f"{plan.data_key}.{part}")

    def notes(self, plan: StagePlan) -> list[str]:
        """What of the data of a stage may be a mistake: files that are not read, classes without images.

        Raises:
            ConfigError: A data set cannot be built.
        """
        datasets = {part: self.dataset(plan, part) for part in ("train", "test")}
        notes = [f"{plan.data_key}.{part}: {text}" for part, data in datasets.items() for text in reading_notes(data)]
        classes = class_notes(datasets["train"], datasets["test"], num_classes=plan.data.num_classes)
        return notes + [f"{plan.data_key}: {text}" for text in classes]

    def training_set(self, plan: StagePlan) -> TrainingSet:
        """Which images a stage trains on, and which judge its epochs.

        Raises:
            ConfigError: The data set cannot be built.
            DataError: A budget or split that the data cannot give.
        """
        conf, key, per_class = plan.data, plan.data_key, plan.conf.labels_per_class
        dataset = self.dataset(plan, "train")
        labels = self._labels_of(dataset)
        train, validation = np.arange(len(labels)), np.arange(0)
        if conf.validation_fraction:
            fraction = conf.validation_fraction
            train, validation = hold_out(labels, fraction=fraction, key=f"{key}.validation_fraction")
        of_data = per_class == conf.student_labels_per_class
        where = f"{key}.student_labels_per_class" if of_data else f"{plan.key}.labels_per_class"
        return TrainingSet(dataset, labels, budget(labels, train, per_class=per_class, key=where), validation)

    def order(self, plan: StagePlan) -> EpochOrder:
        """The order in which a stage sees its training samples.

        Raises:
            DataError: There are none, or none is left by `drop_last`.
        """
        return EpochOrder(
            len(self.training_set(plan).train),
            batch_size=plan.conf.batch_size,
            seed=self._seed,
            stage=plan.name,
            shuffle=True,
            drop_last=plan.conf.drop_last,
            views=views_of(plan, self._cache),
        )

    def samples(self, plan: StagePlan, chosen: np.ndarray) -> Any:
        """The training samples of a stage, augmented, with what its wrappers add.

        Args:
            plan: The stage.
            chosen: Indices in the training data set.

        Raises:
            ConfigError: A transform or wrapper cannot be built.
        """
        conf, dataset, key = plan.data, self.dataset(plan, "train"), f"{plan.data_key}.train_transform"
        drawn = (self._seed, plan.name) if views_of(plan, self._cache) is None else (self._cache.seed, AUGMENTATION)
        samples: Any = self._samples(dataset, chosen, conf.train_transform, drawn, key=key)
        for wrapper, where in plan.wrappers.values():
            samples = self._builder.build(wrapper, samples, key=where, num_classes=conf.num_classes)
        return samples

    def test_samples(self, plan: StagePlan) -> Samples:
        """The test images of a stage's data, as they are evaluated.

        Raises:
            ConfigError: The data set or a transform cannot be built.
        """
        dataset = self.dataset(plan, "test")
        return self._evaluation_samples(plan, dataset, np.arange(len(dataset)))

    def close(self) -> None:
        """Ends the processes that load images."""
        for loader in (*self._evaluation.values(), *(data.train for data in self._stages.values())):
            loader.close()

    def test(self, plan: StagePlan) -> Loader | ResidentLoader:
        """The test set of a stage's data."""
        dataset = self.dataset(plan, "test")
        return self._evaluation_loader(plan, dataset, np.arange(len(dataset)), name=f"test {plan.data.test}")

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
            samples = self._evaluation_samples(plan, dataset, indices)
            order = EpochOrder(len(indices), batch_size=256, seed=self._seed, stage=name, shuffle=False)
            self._evaluation[cache] = self._loader(samples, order, conf=conf, key=plan.data_key)
        return self._evaluation[cache]

    def _evaluation_samples(self, plan: StagePlan, dataset: Any, indices: np.ndarray) -> Samples:
        key = f"{plan.data_key}.eval_transform"
        return self._samples(dataset, indices, plan.data.eval_transform, (self._seed, plan.name), key=key)

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

    def _labels_of(self, dataset: Any) -> np.ndarray:
        # Some data sets have to be read for them.
        if id(dataset) not in self._labels:
            self._labels[id(dataset)] = labels_of(dataset)
        return self._labels[id(dataset)]

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

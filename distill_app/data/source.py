"""All data of a run: data sets, each built once, and the loaders of the stages over them."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import default_collate
from torchvision.transforms import v2

from distill_app.config.build import Builder
from distill_app.config.cached import AUGMENTATION, views_of
from distill_app.config.plan import StagePlan
from distill_app.config.schema import CacheConf, RuntimeConf
from distill_app.data.labels import class_names
from distill_app.data.loading import Collate, Loader, make_loader
from distill_app.data.notes import class_notes, reading_notes
from distill_app.data.order import EpochOrder, Order
from distill_app.data.resident import LIMIT, Images, Mismatch, NotResident, ResidentLoader, held_transforms
from distill_app.data.samples import Samples
from distill_app.data.sampling import collate_of, training_order
from distill_app.data.split import spread
from distill_app.data.stage_data import StageData, one_by_one
from distill_app.data.training_set import TrainingSet, own_validation, training_set
from distill_app.errors import DataError
from distill_app.words import warn
from distill_app.world import ALONE, World


class DataSource:
    """Builds data sets from config, each once, and the loaders of the stages over them.

    Args:
        builder: Builds from config.
        runtime: Workers, policies for corrupt images.
        device: Where batches go.
        seed: Of the run; splits do not depend on it, so that seeds are compared on the same images.
        task_of: Makes the task of a stage's data.
        cache: Stages that read from the teacher cache go through a fixed number of views, of a seed of its own.
        world: Among whose processes batches are shared out.
    """

    def __init__(
        self,
        *,
        builder: Builder,
        runtime: RuntimeConf,
        device: torch.device,
        seed: int,
        task_of: Callable[[StagePlan, Builder], Any],
        cache: CacheConf | None = None,
        world: World = ALONE,
    ):
        self._world = world
        self._builder, self._runtime, self._device, self._seed = builder, runtime, device, seed
        self._cache = cache or CacheConf()
        self._built: dict[str, Any] = {}
        self._task_of = task_of
        self._tasks: dict[str, Any] = {}
        self._labels: dict[tuple[int, str], np.ndarray | None] = {}
        self._resident: dict[str, Images] = {}
        self._evaluation: dict[str, Loader | ResidentLoader] = {}
        self._stages: dict[str, StageData] = {}

    @property
    def passes_over(self) -> bool:
        """Whether images that cannot be read are passed over."""
        return self._runtime.corrupt_images == "skip"

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
        conf = plan.data
        chosen, order = self.training_set(plan), self.order(plan)
        loader = self._loader(plan, self.samples(plan, chosen.train), order)
        judge = self._judge(plan, chosen.dataset, chosen.validation)
        train, labels = chosen.train, None if chosen.labels is None else chosen.labels[chosen.train]
        identity = {
            "dataset": conf.name,
            "train": len(train),
            "validation": len(chosen.validation),
            "labels_per_class": plan.conf.labels_per_class,
            "root": conf.root,
            "classes": class_names(chosen.dataset),
            "split": getattr(chosen.dataset, "division", None),
            "label_counts": None if labels is None else np.bincount(labels, minlength=conf.num_classes).tolist(),
        }
        self.task(plan).classes = identity["classes"]
        judged_on = "validation" if len(chosen.validation) else "test"
        task, collate = self.task(plan), self._collate(plan)
        return StageData(task, loader, order, judge, judged_on, labels, train, collate, identity)

    def task(self, plan: StagePlan) -> Any:
        """The task of a stage's data, built once.

        Raises:
            ConfigError: It cannot be built.
        """
        if plan.data_key not in self._tasks:
            self._tasks[plan.data_key] = self._task_of(plan, self._builder)
        return self._tasks[plan.data_key]

    def _collate(self, plan: StagePlan) -> Callable[[list[Any]], Any]:
        task, key = self.task(plan), plan.data_key
        function = collate_of(plan.data, key=key, builder=self._builder, default=task.collate)
        return function if function is default_collate else Collate(function, key=f"{key}.collate")

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
        notes += [f"{plan.data_key}: {text}" for text in classes]
        if (most := self._runtime.max_eval_batches) is not None:
            count = f"{most} batch{'es' * (most > 1)} of {plan.data.eval_batch_size} images"
            notes.append(f"runtime.max_eval_batches={most}: epochs and results are judged on {count} at most")
        if (fraction := plan.data.validation_fraction) and own_validation(datasets["train"]) is not None:
            notes.append(
                f"{plan.data_key}.validation_fraction: {fraction:g} is not used, the data have a part for that"
            )
        return notes

    def training_set(self, plan: StagePlan) -> TrainingSet:
        """Which images a stage trains on, and which judge its epochs.

        Raises:
            ConfigError: The data set cannot be built.
            DataError: A budget or split that the data cannot give.
        """
        dataset = self.dataset(plan, "train")
        return training_set(plan, dataset, self._labels_of(plan, dataset), task=self.task(plan))

    def order(self, plan: StagePlan) -> Order:
        """The order in which a stage sees its training samples.

        Raises:
            ConfigError: A sampler that cannot be built.
            DataError: There are no samples, none is left by `drop_last`, or a sampler gives something else.
        """
        chosen = self.training_set(plan)
        labels = None if chosen.labels is None else chosen.labels[chosen.train]
        sampled = plan.data.sampler is not None or plan.data.batch_sampler is not None
        samples = self.samples(plan, chosen.train) if sampled else chosen.train
        groups = self.task(plan).groups(chosen.dataset)
        return training_order(
            plan,
            samples,
            labels=labels,
            builder=self._builder,
            seed=self._seed,
            views=views_of(plan, self._cache),
            world=self._world,
            groups=None if groups is None else groups[chosen.train],
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
        samples: Any = self._samples(plan, dataset, chosen, conf.train_transform, drawn, key=key)
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

    def test_one_by_one(self, plan: StagePlan, *, count: int) -> Iterator[dict[str, Any]]:
        """The first test samples of a stage's data, prepared, each as a batch of its own.

        Raises:
            ConfigError: The data set or a transform cannot be built.
        """
        samples, collate = self.test_samples(plan), self._collate(plan)
        return one_by_one(samples, self.task(plan), collate=collate, device=self._device, count=count)

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
        cache = f"{name} {conf.eval_transform} {conf.resident} {conf.eval_batch_size} {conf.collate} {conf.task}"
        if cache not in self._evaluation:
            size, most = conf.eval_batch_size, self._runtime.max_eval_batches
            indices = indices if most is None else spread(indices, most * size)
            samples = self._evaluation_samples(plan, dataset, indices)
            order = EpochOrder(
                len(indices), batch_size=size, seed=self._seed, stage=name, shuffle=False, world=self._world
            )
            self._evaluation[cache] = self._loader(plan, samples, order)
        return self._evaluation[cache]

    def _evaluation_samples(self, plan: StagePlan, dataset: Any, indices: np.ndarray) -> Samples:
        key = f"{plan.data_key}.eval_transform"
        drawn, transforms = (self._seed, plan.name), plan.data.eval_transform
        return self._samples(plan, dataset, indices, transforms, drawn, key=key, skip="leave_out")

    def _loader(self, plan: StagePlan, samples: Any, order: Order) -> Loader | ResidentLoader:
        """Batches made on the device where that is possible, else sample by sample."""
        wanted, key, reason, collate = str(plan.data.resident).lower(), plan.data_key, "", self._collate(plan)
        if wanted != "false":
            try:
                transforms = held_transforms(samples, collate=collate)
                return self._resident_loader(samples, order, transforms, limit=LIMIT if wanted == "auto" else None)
            except NotResident as error:
                if wanted == "true":
                    raise DataError(
                        f"{key}.resident: true was given, but {error}; set {key}.resident=auto to load sample by "
                        f"sample where images cannot be held on the device"
                    ) from error
                if isinstance(error, Mismatch):
                    warn(f"{key}.resident: images are loaded sample by sample, which is slower: {error}")
                reason = f", since {error}"
        workers = self._runtime.num_workers
        loader = make_loader(samples, order=order, num_workers=workers, device=self._device, collate=collate)
        loader.how += reason
        return loader

    def _resident_loader(
        self, samples: Any, order: Order, transforms: list[Any], *, limit: int | None
    ) -> ResidentLoader:
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

    def _labels_of(self, plan: StagePlan, dataset: Any) -> np.ndarray | None:
        # Some data sets have to be read for them.
        known = id(dataset), plan.data_key
        if known not in self._labels:
            self._labels[known] = self.task(plan).labels(dataset)
        return self._labels[known]

    def _samples(
        self,
        plan: StagePlan,
        dataset: Any,
        indices: np.ndarray,
        transforms: list[Any],
        drawn: tuple[int, str],
        *,
        key: str,
        skip: str = "skip",
    ) -> Samples:
        """Samples whose augmentation is drawn by a seed and a name; `skip` is what is done where images are skipped."""
        task = self.task(plan)
        built = [self._builder.build(conf, key=f"{key}[{i}]") for i, conf in enumerate(transforms)]
        if plan.data.channels == 1 and not task.joint_transforms:
            built += [v2.PILToTensor(), v2.Grayscale()]
        return Samples(
            dataset,
            indices=indices,
            transforms=built,
            joint=task.joint_transforms,
            finish=task.finish,
            seed=drawn[0],
            stage=drawn[1],
            corrupt=skip if self._runtime.corrupt_images == "skip" else self._runtime.corrupt_images,
            max_skipped=self._runtime.max_skipped,
        )

"""torchdistill's side of the benchmark: its distillation box, driven by the loop of its own examples."""

import logging
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import RandomSampler

from .images import ImagesInMemory, normalized

TEMPERATURE = 4.0


class Torchdistill:
    """A distillation box over copies of networks.

    The loop body is that of torchdistill's examples: a metric logger around its data loader, forward, backward and
    step, the loss fetched after every step. Images are normalised as a batch, as on the other sides, and its
    transforms are not timed. The teacher stays in train mode, where it leaves it.

    Args:
        teacher: Its own copy.
        student: Its own copy.
        images: The samples.
        batch: Samples a step.
        config: Of the box, from the functions below.
        loader: Further entries of its data loader.
    """

    def __init__(
        self,
        teacher: nn.Module,
        student: nn.Module,
        *,
        images: ImagesInMemory,
        batch: int,
        config: Mapping[str, Any],
        loader: Mapping[str, Any] | None = None,
    ):
        logging.getLogger("torchdistill").setLevel(logging.ERROR)
        # Importing these fills torchdistill's registries.
        import torchdistill.losses.mid_level
        import torchdistill.models.adaptation
        import torchdistill.models.wrapper  # noqa: F401
        from torchdistill.core.distillation import get_distillation_box

        sampler = {"class_or_func": RandomSampler, "kwargs": {}}
        sizes = {"batch_size": batch, "num_workers": 0, "drop_last": True}
        train = {"dataset_id": "train", "sampler": sampler, "kwargs": sizes, **(loader or {})}
        full = {
            "num_epochs": 10**6,
            "train_data_loader": train,
            "optimizer": {"key": "SGD", "kwargs": {"lr": 0.01, "momentum": 0.9, "weight_decay": 1e-4}},
            **config,
        }
        self.box = get_distillation_box(
            teacher, student, {"train": images}, full, torch.device("cpu"), None, distributed=False, lr_factor=1
        )
        self._batches = self._endless()
        self.fetched: Any = None  # images, labels and what else the data set gives

    def fetch(self) -> None:
        """Gets the next batch ahead of the step, so that a timing of the step leaves it out."""
        self.fetched = next(self._batches)

    def step(self) -> Tensor:
        """One training step, across the borders of epochs; the loss before it."""
        if self.fetched is None:
            self.fetch()
        (images, targets, extra), self.fetched = self.fetched, None
        began = time.time()
        loss = self.box.forward_process(normalized(images), targets, extra)
        self.box.post_forward_process(loss=loss)
        self._log.update(loss=loss.item(), lr=self.box.optimizer.param_groups[0]["lr"])
        self._log.meters["img/s"].update(len(images) / (time.time() - began))
        if torch.isnan(loss) or torch.isinf(loss):
            raise ValueError(f"torchdistill diverged: {loss}")
        return loss

    def epoch(self) -> None:
        """As many steps as an epoch has."""
        for _ in range(len(self.box.train_data_loader)):
            self.step()

    def _endless(self) -> Iterator[Any]:
        from torchdistill.misc.log import MetricLogger, SmoothedValue

        epoch = 0
        while True:
            self.box.pre_epoch_process(epoch=epoch)
            self._log = MetricLogger(delimiter="  ")
            self._log.add_meter("lr", SmoothedValue(window_size=1, fmt="{value}"))
            self._log.add_meter("img/s", SmoothedValue(window_size=10, fmt="{value}"))
            yield from self._log.log_every(self.box.train_data_loader, 1000, f"epoch {epoch}")
            self.box.post_epoch_process()
            epoch += 1


def _model(*, trained: bool, **entries: Any) -> dict[str, Any]:
    hooks = {"input": entries.pop("inputs", []), "output": entries.pop("outputs", [])}
    return {
        "forward_proc": "forward_batch_only",
        "sequential": [],
        "wrapper": None,
        "requires_grad": trained,
        "forward_hook": hooks,
        **entries,
    }


def _weighted(**terms: dict[str, Any]) -> dict[str, Any]:
    return {"key": "WeightedSumLoss", "kwargs": {"sub_terms": terms}}


def _on(criterion: str, *, source: str, target: dict[str, Any], weight: float = 1.0) -> dict[str, Any]:
    """A criterion of torch between a module's output in the student and a target."""
    read = {"is_from_teacher": False, "module_path": source, "io": "output"}
    return {
        "criterion": {"key": criterion, "kwargs": {"reduction": "mean"}},
        "criterion_wrapper": {"key": "SimpleLossWrapper", "kwargs": {"input": read, "target": target}},
        "weight": weight,
    }


def kd_config() -> dict[str, Any]:
    """Half cross-entropy, half KL at temperature 4."""
    read = {"module_path": ".", "module_io": "output"}
    kwargs = {f"{side}_{key}": value for side in ("student", "teacher") for key, value in read.items()}
    kwargs |= {"temperature": TEMPERATURE, "alpha": 0.5, "reduction": "batchmean"}
    term = {"criterion": {"key": "KDLoss", "kwargs": kwargs}, "weight": 1.0}
    return {"teacher": _model(trained=False), "student": _model(trained=True), "criterion": _weighted(kd=term)}


def hint_config(path: str, *, channels: tuple[int, int], pruned: list[str]) -> dict[str, Any]:
    """Hint training at a module of both networks.

    Args:
        path: Of the module.
        channels: Of its output, in the student and in the teacher.
        pruned: The modules that run, listed by hand; empty: both networks run in full, and the regressor sits in a
            wrapper, which is torchdistill's extension point for it.
    """
    target = {"is_from_teacher": True, "module_path": path, "io": "output"}
    if pruned:
        kwargs = {"num_input_channels": channels[0], "num_output_channels": channels[1], "kernel_size": 1}
        regressor = {"key": "ConvReg", "kwargs": {**kwargs, "stride": 1, "padding": 0}}
        chain, read = [*pruned, "+regressor"], "+regressor"
        student = _model(trained=True, sequential=chain, adaptations={"regressor": regressor}, outputs=[read])
        teacher = _model(trained=False, sequential=pruned, outputs=[path])
    else:
        _register_hint_wrapper()
        read = "regressor"
        wrapper = {"key": "BenchmarkHint", "kwargs": {"path": path, "channels": channels}}
        outputs = [f"student_model.{path}", read]
        student = _model(trained=True, auxiliary_model_wrapper=wrapper, frozen_modules=[], outputs=outputs)
        teacher = _model(trained=False, outputs=[path])
    return {
        "teacher": teacher,
        "student": student,
        "criterion": _weighted(hint=_on("MSELoss", source=read, target=target)),
    }


def _register_hint_wrapper() -> None:
    from torchdistill.models.adaptation import ConvReg
    from torchdistill.models.wrapper import AuxiliaryModelWrapper, register_auxiliary_model_wrapper

    class BenchmarkHint(AuxiliaryModelWrapper):
        def __init__(self, path: str, channels: tuple[int, int], student_model: nn.Module, **_: Any):
            super().__init__()
            self.student_model, self.path = student_model, f"student_model.{path}"
            self.regressor = ConvReg(*channels, 1, 1, 0)

        def forward(self, images: Tensor) -> Tensor:
            return self.student_model(images)

        def secondary_forward(self, io_dict: Mapping[str, Any]) -> None:
            self.regressor(io_dict[self.path]["output"])

    register_auxiliary_model_wrapper(BenchmarkHint)


def crd_config(*, features: tuple[int, int], samples: int, negatives: int) -> dict[str, Any]:
    """Cross-entropy and CRD on the pooled features.

    Args:
        features: Of the student's and the teacher's pooling.
        samples: N.
        negatives: K.
    """

    def side(width: int, **entries: Any) -> dict[str, Any]:
        linear = {"in_features": width, "out_features": 128, "bias": True}
        kwargs = {"input_module_path": "model.avgpool", "linear_kwargs": linear, "power": 2}
        wrapper = {"key": "Linear4CRD", "kwargs": kwargs}
        outputs = ["model.avgpool", "normalizer"]
        return _model(
            trained=True,
            **entries,
            forward_proc="forward_batch_supp_dict",
            auxiliary_model_wrapper=wrapper,
            outputs=outputs,
        )

    paths = {"teacher_norm_module_path": "normalizer", "student_norm_module_path": "normalizer"}
    kwargs = paths | {
        "student_empty_module_path": "empty",
        "input_size": 128,
        "output_size": samples,
        "num_samples": samples,
        "num_negative_samples": negatives,
        "temperature": 0.07,
        "momentum": 0.5,
        "eps": 1e-7,
    }
    crd = {"criterion": {"key": "CRDLoss", "kwargs": kwargs}, "weight": 0.8}
    terms = {"ce": _on("CrossEntropyLoss", source=".", target={"uses_label": True}), "crd": crd}
    return {
        "teacher": side(features[1], frozen_modules=["model"]),
        "student": side(features[0], inputs=["empty"]),
        "criterion": _weighted(**terms),
    }


def crd_loader(*, negatives: int) -> dict[str, Any]:
    """The data set that draws K negatives for every sample it is asked for."""
    kwargs = {"num_negative_samples": negatives, "mode": "exact", "ratio": 1.0}
    return {"dataset_wrapper": {"key": "CRDDatasetWrapper", "kwargs": kwargs}}


class FilePerSample:
    """The cache of torchdistill 1.1.4: its box writes a file for every sample, its data set reads them.

    Args:
        folder: Where the files go.
        samples: How many there are.
        classes: The width of logits.
    """

    def __init__(self, folder: Path, *, samples: int, classes: int):
        self.folder = folder
        images = ImagesInMemory(samples, image_size=1, num_classes=classes, stored=1)
        # The logits go in as the images, and out as what the teacher says of them.
        teacher, student = nn.Identity(), nn.Linear(classes, classes)
        loader = {"cache_output": str(folder)}
        self.box = Torchdistill(teacher, student, images=images, batch=1, config=kd_config(), loader=loader).box
        self.data = self.box.train_data_loader.dataset

    def write(self, rows: np.ndarray, values: np.ndarray) -> None:
        """Stores logits."""
        from torchdistill.datasets.wrapper import default_idx2subpath

        paths = [str(self.folder / f"{default_idx2subpath(row)}.pt") for row in rows.tolist()]
        self.box.get_teacher_output(torch.from_numpy(values).float(), None, {"cache_file_path": paths})

    def read(self, rows: np.ndarray, _: np.ndarray) -> None:
        """Loads logits."""
        for row in rows.tolist():
            self.data[row]

    def bytes(self) -> dict[str, float]:
        """The mean size of its files, and what they take on the disk."""
        stats = [file.stat() for file in self.folder.rglob("*.pt")]
        sizes, blocks = sum(stat.st_size for stat in stats), 512 * sum(stat.st_blocks for stat in stats)
        return {"torchdistill_bytes": sizes / len(stats), "torchdistill_disk_bytes": blocks / len(stats)}

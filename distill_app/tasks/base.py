"""A task: what a batch is, how a network is asked about it, and how answers are judged."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import default_collate
from torchvision.transforms.v2.functional import pil_to_tensor

from distill_app.networks.taps import map_tensors
from distill_app.runs.metrics import Metric

Batch = dict[str, Any]
Sums = dict[str, Any]


class Task:
    """What belongs to a task and to nothing else; a task of your own derives from this or from one of its kinds.

    In the config: `dataset.task: {_target_: mypackage.MyTask}`. A constructor gets `normalize`, `num_classes` and
    `image_size` of the data set if it has parameters of these names.

    Attributes:
        metrics: What `figures` gives, and how it is shown; the first one leads: it decides which epoch is best.
        answer: The tap that is evaluated, where a network has a tap of this name; `output.KEY`: what the network
            returns, or the entry KEY of it where it returns a mapping; None: whatever the network returns.
        joint_transforms: The transforms of the data set are called with (input, target) and return both, as
            torchvision's v2 transforms do with boxes and masks; else they get the input alone.
        own_sizes: Networks take a list of images of any sizes with values in [0, 1], and resize and normalise them by
            themselves; else a batch of images of one size, normalised as the data set says.
        classes: What the classes are called; known once the data are opened, where they say it.
    """

    metrics: Sequence[Metric] = ()
    answer: str | None = "logits"
    joint_transforms: bool = False
    own_sizes: bool = False
    classes: Sequence[str] | None = None

    @property
    def leading(self) -> Metric | None:
        """The metric that decides; None where there is none, and the total loss decides."""
        return self.metrics[0] if self.metrics else None

    def labels(self, dataset: Any) -> np.ndarray | None:
        """The one label of every item, int64 (N,), for label budgets and splits of equal shares.

        None where items have no such label: then there are no budgets, and splits are drawn from all items alike.
        """
        return None

    def label_problems(self, dataset: Any) -> list[str]:
        """What is wrong with the targets of a data set, a message each, without its config key."""
        return []

    def groups(self, dataset: Any) -> np.ndarray | None:
        """Which items of a data set shall come in training batches together, a number for each of them, int64 (N,).

        None: all may be mixed, as they come.
        """
        return None

    def varies(self, dataset: Any) -> str | None:
        """Why activations of a sample differ in size from batch to batch, and what to set; None where they do not.

        What of them is kept for another batch, as the cache does, has to have one size.

        Args:
            dataset: The training data set.
        """
        return None

    def sizes_vary(self, sizes: Collection[tuple[int, int]]) -> str | None:
        """The same of images of these sizes, each a height and a width: some of a training set, behind the transforms.

        Asked where the task collates in a way of its own; otherwise all images have one size.
        """
        return None

    def scales_apart(
        self,
        network: nn.Module,
        *,
        name: str,
        trained: Sequence[tuple[int, int]],
        judged: Sequence[tuple[int, int]],
    ) -> str | None:
        """What may be a mistake in how large a network sees things in training and in an evaluation; None: nothing.

        Asked where networks take images in their own sizes.

        Args:
            network: One that the stage trains.
            name: Of it.
            trained: Height and width of some training images, behind the transforms.
            judged: The same of images that judge epochs.
        """
        return None

    def rows_vary(self, network: nn.Module, path: str) -> str | None:
        """Why the module of a network has other numbers of rows for other samples; None where it has not.

        What does is not kept for another batch: which rows are those of a sample would not be known. Where this shows
        on the first samples it is found without being told.

        Args:
            network: The whole of it.
            path: Of the module, empty for the network itself.
        """
        return None

    def notes(self) -> list[str]:
        """What is to be told at the end of a stage of the samples that were made; by default nothing."""
        return []

    def finish(self, sample: dict[str, Any]) -> dict[str, Any]:
        """The last step of making a sample, after the transforms: a PIL image becomes uint8 (3, H, W)."""
        image = sample["input"]
        return sample | {"input": pil_to_tensor(image.convert("RGB"))} if isinstance(image, Image.Image) else sample

    # Static here and a method wherever it needs one: the program asks whether it is the plain one.
    collate = staticmethod(default_collate)

    def prepare(self, batch: Mapping[str, Any], *, device: torch.device) -> Batch:
        """Moves a batch to the device; what else is to be done to every batch belongs here."""
        return {
            key: map_tensors(value, lambda tensor: tensor.to(device, non_blocking=True)) for key, value in batch.items()
        }

    def call(self, network: nn.Module, batch: Mapping[str, Any], *, name: str) -> Any:
        """Runs a network on a prepared batch and returns what the network returns.

        Args:
            network: In training and in evaluation alike; what it returns is the program's business.
            batch: Prepared.
            name: Of the network: `student`, `teacher` or another. Networks may be asked in different ways.
        """
        return network(batch["input"])

    def ask(self, network: nn.Module, batch: Mapping[str, Any], *, name: str) -> Any:
        """The same in an evaluation, where a network may be asked in another way than in training; by default `call`.

        Args:
            network: Returns its answer: the tap `answer`, or whatever the network returns.
            batch: Prepared.
            name: Of the network.
        """
        return self.call(network, batch, name=name)

    def class_logits(self, tap: str) -> int | None:
        """How many class logits a tap holds that are read by their softmax; None: it holds others, or none."""
        return None

    @property
    def scores(self) -> str | None:
        """What answers are to whoever asks a trained network: `softmax` or `sigmoid`, by which they become
        probabilities of classes, `pixels`, whose classes have a softmax each, or `objects`; None: no classes.
        """
        return "softmax" if self.class_logits(self.answer or "output") is not None else None

    def misfit(self, answer: Any, batch: Mapping[str, Any]) -> str | None:
        """Why answers of this shape cannot be judged by the targets (`gives 1000 logits ...`); None where they can.

        Asked for networks that no stage of the run trains: a teacher may have learnt other classes.
        """
        return None

    def mismatch(self, answer: Any, other: Any) -> str | None:
        """Why the answers of two networks cannot be compared; None where they can."""
        return None

    def start(self) -> Sums:
        """Sums over no samples.

        Numbers and tensors are added up over batches and processes, lists are joined. What is kept in them is exact:
        figures of sums that were merged are figures over all samples.
        """
        raise NotImplementedError(f"{type(self).__name__} needs a method `start`: the sums of an evaluation")

    def add(self, sums: Sums, answer: Any, batch: Mapping[str, Any]) -> None:
        """Adds a batch to the sums, in place.

        Args:
            sums: What `start` gave, with the batches so far.
            answer: What the network says: the tap `answer`, or what `call` returned.
            batch: Prepared.
        """
        raise NotImplementedError(f"{type(self).__name__} needs a method `add`: what a batch adds to the sums")

    def compare(self, sums: Sums, answer: Any, other: Any, batch: Mapping[str, Any]) -> None:
        """Adds to the sums how an answer compares with that of the teacher, in place; by default nothing."""

    def figures(self, sums: Sums) -> dict[str, Any]:
        """Metric name -> number, or a list of numbers such as one for each class; None where it is not defined."""
        raise NotImplementedError(f"{type(self).__name__} needs a method `figures`: metrics from the sums")

    def draw(self, batch: Mapping[str, Any], answer: Any) -> list[Tensor]:
        """Pictures of answers, uint8 (3, H, W), one for each sample; by default none, and then nobody is asked.

        Args:
            batch: Prepared.
            answer: What a network says of it in an evaluation; None: the truth is drawn, from the batch's targets.
        """
        return []

    @property
    def draws(self) -> bool:
        """Whether there are pictures of answers."""
        return type(self).draw is not Task.draw

    def details(self, sums: Sums) -> dict[str, Any]:
        """What else there is to say of an evaluation, such as figures of single classes; by default nothing.

        Plain values by name. They are written beside the figures, and stand in no table. `per_class` is a list of
        mappings from figure to value, one for each class in the order of labels.
        """
        return {}


def merged(parts: Sequence[Sums]) -> Sums:
    """The sums of several processes, or of several parts of a data set, as one."""
    whole: Sums = {}
    for part in parts:
        for name, value in part.items():
            whole[name] = whole[name] + value if name in whole else value
    return whole


def tensor_answer(answer: Any, *, shape: str) -> Tensor:
    """The answer, if it is one tensor.

    Raises:
        TypeError: It is something else.
    """
    if not isinstance(answer, Tensor):
        raise TypeError(f"the answer of a network is a {type(answer).__name__}, and a tensor {shape} is needed")
    return answer

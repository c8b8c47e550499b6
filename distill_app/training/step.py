"""One training step as one module: forwards of what is trained, adapters, loss terms, weighted sum. Torch only."""

import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from distill_app.config.addresses import fetch
from distill_app.networks.hooks import TappedModel
from distill_app.networks.modes import untouched
from distill_app.networks.run import Call, Namespace
from distill_app.networks.taps import map_tensors
from distill_app.training.precision import Precision
from distill_app.world import is_shared, part_of, whole


class NoGradient(Exception):
    """The forward of a step went well, and its backward does not."""


@dataclass
class Slot:
    """An adapter and the addresses of its positional arguments (one address, or a list handed on as a list)."""

    module: nn.Module
    source: Any
    trained: bool
    fills: str | None = None  # the key of the batch that its output stands for; it then runs before what is trained


@dataclass
class Term:
    """A criterion, the addresses of its keyword arguments, and its weight: a number or a function of the epoch."""

    loss: nn.Module
    inputs: dict[str, Any]
    weight: float | Callable[[float], float] = 1.0

    def weight_at(self, epoch: float) -> float:
        """The weight at a time in epochs; 2.5 is halfway through the third."""
        return float(self.weight(epoch)) if callable(self.weight) else float(self.weight)


def needs_whole_batch(loss: nn.Module) -> bool:
    """Whether the mean of a criterion over parts of a batch is not its value on the batch.

    Criteria that relate samples to each other have an attribute `whole_batch = True`. Of torch's own these are the
    sums, and the means that are weighted by classes.
    """
    marked = getattr(loss, "whole_batch", None)
    if marked is not None:
        return bool(marked)
    return getattr(loss, "reduction", None) == "sum" or isinstance(getattr(loss, "weight", None), Tensor)


class Step(nn.Module):
    """The trainable part of a stage: total = sum_j weight_j * loss_j(inputs_j).

    Networks that are not trained stay outside; what they say of a batch is handed to `forward` by name.

    Args:
        networks: Name -> the networks that are trained.
        adapters: Name -> slot, sources before readers.
        terms: Name -> loss term.
        call: How the task runs a network on a batch.
        precision: In which networks and adapters run; terms get float32.
        eval_only: Blocks of the networks whose mode stays eval while the rest trains.
    """

    def __init__(
        self,
        *,
        networks: Mapping[str, TappedModel],
        adapters: Mapping[str, Slot],
        terms: Mapping[str, Term],
        call: Call,
        precision: Precision,
        eval_only: Sequence[nn.Module] = (),
    ):
        super().__init__()
        self.networks = nn.ModuleDict(networks)
        self.adapters = nn.ModuleDict({name: slot.module for name, slot in adapters.items()})
        self.losses = nn.ModuleDict({name: term.loss for name, term in terms.items()})
        self._slots, self._terms, self._call, self._precision = dict(adapters), dict(terms), call, precision
        self._filling = {name: slot for name, slot in adapters.items() if slot.fills is not None}
        self._reading = {name: slot for name, slot in adapters.items() if slot.fills is None}
        self.eval_only = list(eval_only)

    def train(self, mode: bool = True) -> "Step":
        """Train mode for what is trained; frozen blocks and frozen adapters stay in eval mode."""
        super().train(mode)
        frozen = [slot.module for slot in self._slots.values() if not slot.trained]
        for module in (*self.eval_only, *frozen):
            module.eval()
        return self

    def forward(
        self, batch: Mapping[str, Any], activations: Mapping[str, Any], *, epoch: float = 0.0
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Runs the step.

        Args:
            batch: The prepared batch.
            activations: Network -> taps, of the networks that are not trained.
            epoch: The time in epochs, for weights that follow a schedule.

        Returns:
            The weighted total, a scalar, and the unweighted value of every term by name.
        """
        namespace: Namespace = {"batch": batch, **activations}
        with self._precision.forward():
            if self._filling:
                batch = self._filled(namespace)
            for name, network in self.networks.items():
                namespace[name] = self._call(network, batch, name=name)
            run_adapters(self._reading, namespace)
        if self._precision.reduced:
            namespace = self._precision.for_losses(namespace)
        values = {name: term.loss(**self._arguments(term, namespace)) for name, term in self._terms.items()}
        return self._weighted(values, epoch), values

    def _filled(self, namespace: Namespace) -> Mapping[str, Any]:
        """The batch with what adapters make of it and of networks that are not trained."""
        run_adapters(self._filling, namespace)
        made = {str(slot.fills): namespace["adapters"][name] for name, slot in self._filling.items()}
        namespace["batch"] = {**namespace["batch"], **made}
        batch: Mapping[str, Any] = namespace["batch"]
        return batch

    @staticmethod
    def _arguments(term: Term, namespace: Namespace) -> dict[str, Any]:
        """What a term reads; one that is no mean over samples gets those of all ranks."""
        arguments: dict[str, Any] = fetch(term.inputs, namespace)
        if is_shared() and needs_whole_batch(term.loss):
            arguments = map_tensors(arguments, whole)
        return arguments

    def weights_at(self, epoch: float) -> dict[str, float]:
        """The weight of every term at a time in epochs."""
        return {name: term.weight_at(epoch) for name, term in self._terms.items()}

    def _weighted(self, values: Mapping[str, Tensor], epoch: float) -> Tensor:
        """The weighted sum; on small networks every operation that changes nothing would show."""
        weights = self.weights_at(epoch)
        parts = [value if weights[name] == 1.0 else weights[name] * value for name, value in values.items()]
        return functools.reduce(operator.add, parts)

    def idle_terms(self, batch: Mapping[str, Any], activations: Mapping[str, Any]) -> list[str]:
        """The names of terms whose value and gradient are exactly zero on a batch: they teach nothing there."""
        parameters = [parameter for parameter in self.parameters() if parameter.requires_grad]
        with untouched(self), torch.enable_grad():
            _, values = self(batch, activations)
            zero = {name: value for name, value in values.items() if not value.detach().any()}
            return [name for name, value in zero.items() if not _pulls(value, parameters)]

    def inputs_of(self, term: str) -> dict[str, Any]:
        """The addresses that a term reads, by argument."""
        return dict(self._terms[term].inputs)

    def unread_parameters(self, batch: Mapping[str, Any], activations: Mapping[str, Any]) -> list[str]:
        """The names of trainable parameters on which no loss term depends, found by one backward of all terms.

        Weights play no part: a term that a schedule holds at zero for now still reads its tensors.

        Raises:
            NoGradient: The backward failed.
        """
        named = [(name, parameter) for name, parameter in self.named_parameters() if parameter.requires_grad]
        with untouched(self), torch.enable_grad():
            _, values = self(batch, activations)
            total = torch.stack([value.float() for value in values.values()]).sum()
            if not total.requires_grad:
                return [name for name, _ in named]
            try:
                gradients = torch.autograd.grad(total, [parameter for _, parameter in named], allow_unused=True)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # backwards of other people's functions fail in any way
                raise NoGradient(str(error)) from error
        return [name for (name, _), gradient in zip(named, gradients, strict=True) if gradient is None]

    def without_gradient(self, batch: Mapping[str, Any], activations: Mapping[str, Any]) -> dict[str, Exception]:
        """The terms whose backward fails by itself, and how."""
        found: dict[str, Exception] = {}
        parameters = [parameter for parameter in self.parameters() if parameter.requires_grad]
        with untouched(self), torch.enable_grad():
            _, values = self(batch, activations)
            for name, value in values.items():
                try:
                    _pulls(value, parameters)
                except Exception as error:
                    found[name] = error
        return found


def _pulls(value: Tensor, parameters: Sequence[nn.Parameter]) -> bool:
    if not value.requires_grad:
        return False
    gradients = torch.autograd.grad(value, parameters, allow_unused=True, retain_graph=True)
    return any(bool(gradient.any()) for gradient in gradients if gradient is not None)


def run_adapters(slots: Mapping[str, Slot], namespace: Namespace) -> None:
    """Runs adapters in order and adds their outputs to the namespace as `adapters.<name>`."""
    outputs = namespace.setdefault("adapters", {})
    for name, slot in slots.items():
        values = fetch(slot.source, namespace)
        if is_shared() and getattr(slot.module, "whole_batch", False):
            # Every rank computes with all rows, and goes on with its own: what reads them gathers them where it has to.
            outputs[name] = map_tensors(slot.module(map_tensors(values, whole)), _own)
        else:
            outputs[name] = slot.module(values)


def _own(rows: Tensor) -> Tensor:
    """This rank's rows of those of the whole batch."""
    return rows[part_of(len(rows))]

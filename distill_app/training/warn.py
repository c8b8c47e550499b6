"""What of a stage works and is not what anybody wants, told with the plan and in the log."""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from torch import Tensor

from distill_app.cache.fingerprint import base_samples
from distill_app.config.addresses import fetch
from distill_app.data.looks import sizes_behind
from distill_app.data.stage_data import StageData
from distill_app.networks.network import Network
from distill_app.networks.run import Namespace
from distill_app.training.step import Step

SAMPLES = 16  # on which a term may be zero by chance no more


def idle_terms(
    step: Step,
    examples: Namespace,
    *,
    example: Callable[[int], Mapping[str, Any]],
    activations: Callable[[Mapping[str, Any]], Namespace],
    more: bool,
    sparing: Collection[str] = (),
) -> Iterator[str]:
    """Terms that teach nothing: their value and gradient are exactly zero on the first images.

    Args:
        step: The step, in train mode.
        examples: An example activation of all that is read.
        example: Makes a prepared batch of so many samples.
        activations: What networks outside of the step say of it.
        more: Whether those can say it of more than the examples.
        sparing: Terms that are zero before the first step and not after it.
    """
    batch = examples["batch"]
    idle = step.idle_terms(batch, activations(batch))
    if idle and more:
        batch = example(SAMPLES)
        idle = step.idle_terms(batch, activations(batch))
    for name in (name for name in idle if name not in sparing):
        reason = _reason(fetch(step.inputs_of(name), examples))
        yield f"term {name} teaches nothing: its value and gradient are exactly zero on the first images{reason}"


def scales_apart(networks: Mapping[str, Network], data: StageData) -> Iterator[str]:
    """Networks that see things in another size in training than in an evaluation.

    Args:
        networks: Those that the stage trains.
        data: Its samples, and its task.
    """
    if not data.task.own_sizes:
        return
    judge: Any = data.judge.dataset
    trained, judged = sizes_behind(base_samples(data)), sizes_behind(judge)
    for name, network in networks.items():
        text = data.task.scales_apart(network.module, name=name, trained=trained, judged=judged)
        if text is not None:
            yield text


def _reason(inputs: Mapping[str, Any]) -> str:
    """What is known to make a term zero."""
    tensors = {name: value for name, value in inputs.items() if isinstance(value, Tensor)}
    points = [name for name, value in tensors.items() if value.dim() == 4 and value.shape[-2:] == (1, 1)]
    if points:
        return f", since its maps are of 1 x 1 ({', '.join(points)}), where no place differs from another"
    floats = [value for value in tensors.values() if value.is_floating_point()]
    if len(floats) == 2 and floats[0].shape == floats[1].shape and floats[0].equal(floats[1]):
        return ", since both of its inputs are the same"
    return ""

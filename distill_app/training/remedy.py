"""What helps where a loss cannot take what it reads: told behind the reason, before the first batch."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from distill_app.config.plan import StagePlan
from distill_app.config.schema import LossTermConf
from distill_app.networks.run import Namespace


def remedy(conf: LossTermConf, values: Mapping[str, Any], plan: StagePlan, examples: Namespace) -> str:
    """What to type, as far as it can be seen from shapes; empty if nothing can.

    Args:
        conf: The term.
        values: What it reads of example images, by argument.
        plan: Its stage.
        examples: An example of all that the stage reads.
    """
    return _whole_labels(conf, values, plan) or _one_row_each(conf, values, plan, examples) or _suggestion(conf, values)


def _whole_labels(conf: LossTermConf, values: Mapping[str, Any], plan: StagePlan) -> str:
    """If labels are shares of classes, what makes them so."""
    mixed = [
        argument
        for argument, source in conf.inputs.items()
        if source == "batch.target" and isinstance(values[argument], Tensor) and values[argument].is_floating_point()
    ]
    if not mixed:
        return ""
    if not plan.wrappers:
        return "; the data have several labels for each image, and it may need one class for each"
    return (
        "; labels are shares of all classes here, since a wrapper mixes samples, and it may need one class for each "
        "sample: leave the wrapper out of this stage (wrappers.NAME=null)"
    )


def _one_row_each(conf: LossTermConf, values: Mapping[str, Any], plan: StagePlan, examples: Namespace) -> str:
    """If there are several rows for each label, as of several views of an image, what has one."""
    labels = next((values[name] for name, source in conf.inputs.items() if source == "batch.target"), None)
    if "views" in conf.loss or not isinstance(labels, Tensor) or not labels.dim():
        return ""
    count, hints = len(labels), []
    for argument, source in conf.inputs.items():
        rows = values[argument]
        if not isinstance(rows, Tensor) or not rows.dim() or len(rows) <= count or len(rows) % count:
            continue
        adapter = _of_as_many(source, count, plan, examples)
        select = f"a distill_app.adapters.SelectView with views: {len(rows) // count} and source: {source}"
        hints.append(f"inputs.{argument}=adapters.{adapter}" if adapter else f"inputs.{argument} of {select}")
    return f"; the first view of each image: {' '.join(hints)}" if hints else ""


def _of_as_many(source: Any, count: int, plan: StagePlan, examples: Namespace) -> str | None:
    """An adapter of this very source that gives so many rows."""
    for name in plan.adapters:
        conf, output = plan.conf.adapters.get(name), examples.get("adapters", {}).get(name)
        same = conf is not None and conf.source == source
        if same and isinstance(output, Tensor) and output.shape[:1] == (count,):
            return name
    return None


def _suggestion(conf: LossTermConf, values: Mapping[str, Any]) -> str:
    """If two activations differ in shape, the adapter that would bring one to the other."""
    maps = {
        argument: value for argument, value in values.items() if isinstance(value, Tensor) and value.dim() in (2, 4)
    }
    if len(maps) != 2:
        return ""
    # A map can become a vector; no adapter makes a map of a vector.
    (first, a), (second, b) = sorted(maps.items(), key=lambda item: -item[1].dim())
    if a.shape == b.shape:
        return ""
    if len(a) != len(b):
        return (
            f"; {conf.inputs[first]} has {len(a)} rows and {conf.inputs[second]} {len(b)}: they are not of the same "
            f"samples or regions, and no adapter can make them so"
        )
    kind = "ConvRegressor" if b.dim() == 4 else "LinearProjector"
    return (
        f"; an adapter can bring {conf.inputs[first]} to the shape of {conf.inputs[second]}: "
        f"adapters: {{fit: {{module: {{_target_: distill_app.adapters.{kind}}}, source: {conf.inputs[first]}, "
        f"target: {conf.inputs[second]}}}}} and inputs.{first}: adapters.fit"
    )

"""Taps of a network that nobody wrote down: stem, stage1 to stage4, pooled and logits, from one recorded forward.

The names are those of the files in `conf/model/taps`: stage4 is the last map, stage3 the one of twice its side, and so
on; where a network has fewer sizes, the first one stands in for the stages that are not there, and where it has one
size alone, as a ViT, each stage is a quarter of its blocks.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from distill_app.networks.taps import shapes_in, tensors_in
from distill_app.networks.tracing import Call, Map, Trace, map_of

STAGES = ("stage1", "stage2", "stage3", "stage4")
NAMES = ("stem", *(f"{stage}{end}" for stage in STAGES for end in ("", "_pre")), "tokens", "pooled", "logits")
_PASSIVE = ("Pool", "Dropout", "DropPath", "Identity", "Flatten")  # in the name of a class that computes no feature
_ACTIVATIONS = ("lu", "lu6", "swish", "sigmoid", "tanh", "mish", "softplus", "softsign", "shrink")  # at their end


@dataclass
class Found:
    """Tap name -> path, and for those that are not there the reason."""

    taps: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


def find_taps(module: nn.Module, trace: Trace, *, num_classes: int | None = None) -> Found:
    """Finds the taps of a network.

    What the network says of itself goes first, as those of timm do: `feature_info` names the modules at the end of each
    size, `get_classifier()` the last layer, `num_prefix_tokens` the tokens in front of the patches. What it does not
    say is read off the trace: a stage ends where the side of the maps changes next, the logits are what the network
    returns, and `pooled` is what the layer that gives them takes.

    Args:
        module: The network.
        trace: A forward of it.
        num_classes: How many logits there are, for a network that returns several tensors; None: not known.
    """
    found, reader = Found(), _Reader(module, trace)
    logits = _logits(trace, num_classes, found)
    classifier = None if logits is None else _own_classifier(reader) or _last_layer(trace, logits)
    _pooled(classifier, found)
    _stages(reader, classifier, found)
    return Found({name: found.taps[name] for name in NAMES if name in found.taps}, found.missing)


@dataclass(frozen=True)
class _Reader:
    """A network and its trace."""

    module: nn.Module
    trace: Trace

    @property
    def prefix(self) -> int | None:
        """How many tokens are no patches."""
        count = getattr(self.module, "num_prefix_tokens", None)
        return count if isinstance(count, int) else None

    def map(self, call: Call, channels: int | None = None) -> Map | None:
        """How its output lies over the images, if a tap of its module would read this very call."""
        if self.trace.of(call.module) is not call:
            return None
        found = map_of(call.output, prefix=self.prefix, channels=channels)
        if found is None and self.prefix:  # patches alone, before tokens are put in front or after they are taken off
            found = map_of(call.output, prefix=0, channels=channels)
        return found

    def level(self, call: Call) -> int | None:
        """How often the side of the images has been halved in its output."""
        found = self.map(call)
        return None if found is None else found.level(self.trace.side)


def _logits(trace: Trace, num_classes: int | None, found: Found) -> Tensor | None:
    """The tensor of the logits; notes where they are tapped."""
    outputs = tensors_in(trace.root.output)
    fitting = [
        each
        for each in outputs
        if each.flatten(1).shape[1:] == (num_classes,) or (num_classes is None and each.flatten(1).dim() == 2)
        if each.dim() > 1
    ]
    if not fitting:
        wanted = "" if num_classes is None else f" of {num_classes} classes"
        found.missing["logits"] = f"it returns no logits{wanted}"
        return None
    logits = fitting[0]
    calls = [call for call in trace.root if call.path and call.output is logits and trace.of(call.module) is call]
    own = [call for call in calls if _has_own(call)]
    if not calls and not isinstance(trace.root.output, Tensor):
        found.missing["logits"] = "no module gives one of the tensors that it returns"
        return logits
    path = (own[-1:] or calls[:1] or [trace.root])[0].path
    found.taps["logits"] = path + (":flat" if logits.dim() > 2 else "")
    return logits


def _pooled(classifier: Call | None, found: Found) -> None:
    """What the classifier takes, a vector of each image."""
    if classifier is None or not classifier.inputs:
        found.missing["pooled"] = "no layer gives as many numbers as there are classes"
        return
    vector = classifier.inputs[0]
    if vector.dim() != 2 and not (vector.dim() == 4 and vector.shape[2:] == (1, 1)):
        found.missing["pooled"] = f"the classifier {classifier.path} takes {shapes_in(vector)}, no vector of each image"
        return
    found.taps["pooled"] = f"{classifier.path}:in" + (":flat" if vector.dim() > 2 else "")


def _own_classifier(reader: _Reader) -> Call | None:
    """The call of the classifier that a network names itself; the first of several."""
    named: Any = getattr(reader.module, "get_classifier", None)
    try:
        given = named() if callable(named) else None
    except Exception:  # code of any network, asked for a hint
        return None
    for each in given if isinstance(given, list | tuple) else (given,):
        call = reader.trace.of(each) if isinstance(each, nn.Module) else None
        if call is not None and call.path and not isinstance(each, nn.Identity):
            return call
    return None


def _last_layer(trace: Trace, logits: Tensor) -> Call | None:
    """The last module with parameters that gives one number, or one map, of each class."""
    count = logits.flatten(1).shape[1]
    calls = [
        call
        for call in trace.root
        if _has_own(call) and isinstance(call.output, Tensor) and call.output.dim() > 1
        if len(call.output) == len(logits) and count in (call.output.shape[1], call.output.flatten(1).shape[1])
    ]
    return calls[-1] if calls else None


def _has_own(call: Call) -> bool:
    """Whether the module itself has parameters, not those within it alone."""
    return next(call.module.parameters(recurse=False), None) is not None


def _stages(reader: _Reader, classifier: Call | None, found: Found) -> None:
    units = list(_units(reader, reader.trace.root))
    ahead = list(reader.trace.root)
    ahead = ahead[: ahead.index(classifier)] if classifier in ahead else ahead
    units = [unit for unit in units if unit in ahead and (classifier is None or classifier not in list(unit))]
    points = _told(reader) or _levels(reader, units)
    if not points:
        found.missing.update(dict.fromkeys(("stem", *STAGES), "no module gives maps over the image"))
        return
    if callable(getattr(reader.module, "reroll", None)):
        found.missing.update(dict.fromkeys(("stem", *STAGES), "its tokens are not in the order of the patches"))
        return
    stem = _stem(reader, units, points) if len(points) < 5 else points[-5]
    if len(points) == 1:
        points = _quarters(reader, points[0]) or points
    stages = [stem] * (4 - len(points)) + points[-4:]
    found.taps["stem"] = _spec(reader, stem)
    for name, call in zip(STAGES, stages, strict=True):
        found.taps[name] = _spec(reader, call)
        found.taps[f"{name}_pre"] = _before_activation(reader, call)
    last = stages[-1].output
    if isinstance(last, Tensor) and last.dim() == 3:
        calls = [call for call in ahead if isinstance(call.output, Tensor) and call.output.shape == last.shape]
        calls = [call for call in calls if not _is_passive(call)] or calls
        outer = min(call.path.count(".") for call in calls)
        found.taps["tokens"] = _path([call for call in calls if call.path.count(".") == outer][-1])


def _path(call: Call) -> str:
    return call.path + (":clone" if call.changed else "")


def _spec(reader: _Reader, call: Call) -> str:
    """The tap of a call as a map."""
    found = reader.map(call)
    return _path(call) + (found.option if found is not None else "")


def _before_activation(reader: _Reader, call: Call) -> str:
    """The tap of what the activation takes with which a call ends; of its output where it ends without one."""
    for inner in reversed(list(call)):
        if (
            not inner.children
            and inner.output is call.output
            and type(inner.module).__name__.lower().endswith(_ACTIVATIONS)
            and inner.inputs
            and inner.inputs[0].shape == inner.output.shape
            and reader.trace.of(inner.module) is inner
        ):
            found = reader.map(call)
            return f"{inner.path}:in{found.option if found is not None else ''}"
    return _spec(reader, call)


def _told(reader: _Reader) -> list[Call]:
    """The last module of each size that `feature_info` names, nothing where it does not fit what ran."""
    info: Any = getattr(reader.module, "feature_info", None)
    entries = getattr(info, "info", info)
    if not isinstance(entries, Sequence) or isinstance(entries, str):
        return []
    sizes: dict[int, Call] = {}
    calls = []
    for entry in entries:
        try:
            call = reader.trace.of(reader.module.get_submodule(str(entry["module"])))
        except (AttributeError, KeyError, TypeError):
            return []
        lies = None if call is None else reader.map(call, channels=entry.get("num_chs"))
        if call is None or lies is None:
            return []
        sizes[lies.level(reader.trace.side)] = call
        calls.append(call)
    points = list(sizes.values()) if len(sizes) > 1 else calls[-1:]
    return points[:-1] if len(points) > 1 and _is_passive(points[-1]) else points


def _units(reader: _Reader, call: Call) -> Iterator[Call]:
    """The modules through which the maps go, as large as they can be while each halves the side once at most."""
    for child in call.children:
        before = next((lies for tensor in child.inputs[:1] if (lies := map_of(tensor, prefix=reader.prefix))), None)
        after = reader.map(child)
        shrinks = after is None or before is None or before.side > 2.5 * after.side
        if child.children and shrinks:
            yield from _units(reader, child)
        elif after is not None and isinstance(child.output, Tensor):
            yield child


def _levels(reader: _Reader, units: Sequence[Call]) -> list[Call]:
    """The last unit of each size, up to the pooling over the whole map."""
    groups: dict[int, Call] = {}
    trunk = _trunk(reader, units)
    while trunk and _is_passive(trunk[-1]):
        trunk = trunk[:-1]
    for unit in trunk:
        level = reader.level(unit)
        if level is not None and (level not in groups or not _is_passive(unit)):
            groups[level] = unit
    return [groups[level] for level in sorted(groups)]


def _trunk(reader: _Reader, units: Sequence[Call]) -> list[Call]:
    """The units in front of the one that pools over the whole map."""
    found = []
    for unit in units:
        lies, before = reader.map(unit), map_of(unit.inputs[0], prefix=reader.prefix) if unit.inputs else None
        if lies is not None and lies.side == 1 and before is not None and before.side > 1 and _is_passive(unit):
            break
        found.append(unit)
    return found


def _is_passive(call: Call) -> bool:
    has_parameters = next(call.module.parameters(), None) is not None
    return not has_parameters and any(part in type(call.module).__name__ for part in _PASSIVE)


def _stem(reader: _Reader, units: Sequence[Call], points: Sequence[Call]) -> Call:
    """The first module that gives maps, as large as it can be without more than one of their sizes."""
    first = next((unit for unit in units if reader.level(unit) is not None), points[0])
    outer = [call for call in reader.trace.root if call.path and first in list(call)]
    same = [call for call in outer if reader.level(call) == reader.level(first) and not any(p in call for p in points)]
    stem = (same or [first])[0]
    return [unit for unit in units if unit.output is stem.output][-1] if stem.changed else stem


def _quarters(reader: _Reader, point: Call) -> list[Call]:
    """The last block of each quarter, where all maps are of one size; nothing where there are no four blocks."""
    runs: dict[tuple[str, type], list[Call]] = {}
    wanted = reader.map(point)
    for call in reader.trace.root:
        lies = reader.map(call)
        same = lies is not None and wanted is not None and (lies.side, lies.channels) == (wanted.side, wanted.channels)
        if same and next(call.module.parameters(), None) is not None:
            runs.setdefault((call.path.rpartition(".")[0], type(call.module)), []).append(call)
    blocks = max(runs.values(), key=lambda calls: (len(calls), -calls[0].path.count(".")), default=[])
    count = len(blocks)
    return [blocks[-(-count * part // 4) - 1] for part in (1, 2, 3, 4)] if count >= 4 else []

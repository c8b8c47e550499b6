"""Auxiliary wrappers and adaptations, which are modules beside a network: adapters here."""

from collections.abc import Callable
from typing import Any

from distill_app.migration.ledger import Node
from distill_app.migration.wiring import Side, Wires

OURS = "distill_app.adapters"
LAYOUT = {"kernel_size": 1, "stride": 1, "padding": 0}  # of convolutions, as torch has them


def auxiliary(node: Node, side: Side, wires: Wires) -> bool:
    """Takes over the auxiliary wrapper of a network; whether the network itself runs.

    Args:
        node: `auxiliary_model_wrapper`, `special` in version 0.
        side: The network that it wraps.
        wires: The stage; gets the adapters.
    """
    key, arguments = node.text("key", "type"), node.get("kwargs", "params")
    if key == "EmptyModule":
        arguments.use() if not arguments else None
        return False
    build = WRAPPERS.get(key)
    if build is None:
        node.leave(f"{key!r} is no auxiliary wrapper that is known here; what it trains is an adapter")
        return True
    _shorter(node)
    side.within = ("teacher_model", "student_model", "model")
    try:
        build(arguments, side, wires)
    except LookupError as error:
        node.leave(f"{key} cannot be read: {error}")
        return True
    arguments.flag("find_unused_parameters", default=None)
    arguments.rest("an argument that has no counterpart here")
    return True


def _shorter(node: Node) -> None:
    """A shorter form of the network: it runs as far as something is read anyhow."""
    node.texts("sequential")


def _input(node: Node, side: Side) -> str:
    """The address of `input_module: {path, io}`, or of `input_module_path`."""
    if node.has("input_module"):
        place = node.get("input_module")
        return side.address(place.text("path"), entry=place.edge("io"))
    return side.address(node.text("input_module_path"))


def _paraphraser(node: Node, side: Side, wires: Wires) -> None:
    minimal = node.get("minimal")
    _shorter(minimal)
    minimal.use() if not minimal else None
    source, given = _input(node, side), node.get("paraphraser_kwargs", "paraphraser_params")
    kept, decoded = float(given.number("k")), node.flag("uses_decoder", default=True)
    norm = _factor_sizes(given)
    given.whole("num_input_channels", default=None)
    module = {"_target_": f"{OURS}.FactorEncoder", "k": kept, "norm": norm}
    encoder = wires.adapter("encoder", module, source)
    _file(node.get("paraphraser_ckpt"))
    if decoded:
        module = {"_target_": f"{OURS}.FactorDecoder", "norm": norm}
        side.adapters["paraphraser"] = wires.adapter("decoder", module, encoder, source)
    else:
        side.adapters["paraphraser"] = encoder


def _factor_sizes(given: Node) -> bool:
    """Whether there are batch norms; all kernels are 3x3."""
    for name, only in (("kernel_size", 3), ("stride", 1), ("padding", 1)):
        if given.whole(name, default=only) != only:
            given.get(name).leave(f"convolutions have {name} {only} here")
    return given.flag("uses_bn", default=True)


def _translator(node: Node, side: Side, wires: Wires) -> None:
    source, given = _input(node, side), node.get("translator_kwargs", "translator_params")
    norm = _factor_sizes(given)
    kept = given.whole("num_output_channels", least=1) / given.whole("num_input_channels", least=1)
    module: dict[str, Any] = {"_target_": f"{OURS}.FactorEncoder", "norm": norm}
    if wires.teacher is not None and "paraphraser" in wires.teacher.adapters:
        side.adapters["translator"] = wires.adapter("translator", module, source, wires.teacher.adapters["paraphraser"])
    else:
        side.adapters["translator"] = wires.adapter("translator", module | {"k": kept}, source)


def _connectors(node: Node, side: Side, wires: Wires) -> None:
    for name, child in node.get("connectors").items():
        source, path = wires.read(child, teacher=side.role == "teacher"), f"connector_dict.{name}"
        batch_norm = child.get("bn2d_kwargs", "bn_params")
        norm = bool(batch_norm)
        batch_norm.whole("num_features", default=None)
        batch_norm.use() if not batch_norm else batch_norm.rest("batch norms of connectors have torch's defaults here")
        conv = child.get("conv2d_kwargs", "conv_params")
        side.adapters[path] = _regressor(name, conv, source, wires, path, norm=norm, activation=False)


def _extent(conv: Node, name: str, default: int) -> int | list[int]:
    """A number for both directions, or one for each."""
    if isinstance(conv.get(name).value, list):
        return [int(each) for each in conv.numbers(name)]
    return conv.whole(name, default=default)


def _regressor(
    name: str, conv: Node, source: str, wires: Wires, path: str, *, norm: bool, activation: bool, bias: bool = True
) -> str:
    """A convolution, with a batch norm and a ReLU or without."""
    size, stride, padding = (_extent(conv, name, start) for name, start in LAYOUT.items())
    bias = conv.flag("bias", default=bias)
    ends = ("in_channels", "out_channels") if conv.has("in_channels") else ("num_input_channels", "num_output_channels")
    before, after = (conv.whole(end, least=1) for end in ends)
    target = wires.partners.get(path)
    if target is not None and stride == 1 and isinstance(size, int) and size % 2 and padding == size // 2:
        module: dict[str, Any] = {"_target_": f"{OURS}.ConvRegressor", "pointwise": True, "bias": bias}
        module |= {"kernel_size": size} if size != 1 else {}
        module |= {key: True for key, value in (("norm", norm), ("activation", activation)) if value}
        return wires.adapter(name, module, source, target)
    sizes = {"kernel_size": size, "stride": stride, "padding": padding, "bias": bias}
    layers: list[dict[str, Any]] = [
        {"_target_": "torch.nn.Conv2d", "in_channels": before, "out_channels": after, **sizes}
    ]
    layers += [{"_target_": "torch.nn.BatchNorm2d", "num_features": after}] if norm else []
    layers += [{"_target_": "torch.nn.ReLU", "inplace": True}] if activation else []
    return wires.adapter(name, {"_target_": "torch.nn.Sequential", "_args_": layers}, source)


def _variational(node: Node, side: Side, wires: Wires) -> None:
    for name, child in node.get("regressors").items():
        source, path = wires.read(child, teacher=side.role == "teacher"), f"regressor_dict.{name}"
        given = child.get("kwargs", "regressor_kwargs") if child.has("kwargs", "regressor_kwargs") else child
        variance = {
            "init_variance": given.number("init_pred_var", default=5.0),
            "eps": given.number("eps", default=1e-5),
        }
        width, hidden = given.whole("out_channels"), given.whole("middle_channels")
        given.whole("in_channels", default=None)
        module: dict[str, Any] = {"_target_": f"{OURS}.VIDRegressor"}
        module |= {"hidden_channels": hidden} if hidden != width else {}
        if path not in wires.partners:
            child.leave("no term compares it with the teacher")
            continue
        address = wires.adapter(name, module, source, wires.partners[path])
        side.adapters[path], wires.variances[address] = address, variance


def _linear(path: str) -> Callable[[Node, Side, Wires], None]:
    def build(node: Node, side: Side, wires: Wires) -> None:
        source, given = _input(node, side), node.get("linear_kwargs", "linear_params")
        given.whole("in_features", default=None)
        module: dict[str, Any] = {"_target_": f"{OURS}.LinearProjector", "out_features": given.whole("out_features")}
        module |= {} if given.flag("bias", default=True) else {"bias": False}
        if node.number("power", default=2) != 2:
            node.get("power").leave("embeddings are divided by their L2 norm here")
        side.adapters[path] = wires.adapter(f"{side.role}_embedding", module, source)

    return build


def _self_supervised(node: Node, side: Side, wires: Wires) -> None:
    node.whole("feat_dim", default=None)
    node.flag("freezes_ss_module", default=None)
    _file(node.get("ss_module_ckpt"))
    module = {"_target_": f"{OURS}.SelfSupervisedHead"}
    side.adapters["ss_module"] = wires.adapter(f"{side.role}_head", module, _input(node, side))


def _variance(node: Node, side: Side, wires: Wires) -> None:
    node.whole("feat_dim", default=None)
    _file(node.get("var_estimator_ckpt"))
    source = _input(node, side)
    module = {"_target_": f"{OURS}.LogVarianceHead"}
    side.adapters["var_estimator"] = wires.adapter("log_variance", module, source, source)


def _review(node: Node, side: Side, wires: Wires) -> None:
    """From the deepest stage up, each reads the residual of the one before."""
    node.numbers("sizes")  # those of the maps themselves
    residual = None
    for place, child in enumerate(node.get("abfs").entries()[::-1]):
        path, given = f"abf_modules.{place}", child.get("kwargs", "params")
        source, widths = wires.read(child, teacher=False), given.whole("mid_channels", "mid_channel")
        own = given.whole("in_channels", "in_channel")
        given.whole("out_channels", "out_channel", default=None)
        if path not in wires.partners:
            child.leave("no term compares it with the teacher")
            continue
        if residual is None and widths > own:
            given.get("mid_channels", "mid_channel").leave(f"a fusion has at most as many channels as its map, {own}")
        module: dict[str, Any] = {"_target_": f"{OURS}.ReviewFusion"}
        module |= {"max_channels": widths} if residual is None and widths < min(own, 512) else {}
        sources: Any = source if residual is None else [source, residual]
        level = wires.adapter(
            f"review{5 - place}" if place < 5 else f"review_{place}", module, sources, wires.partners[path]
        )
        side.adapters[path], residual = f"{level}.feature", f"{level}.residual"


def _channels(node: Node, side: Side, wires: Wires) -> None:
    for name, child in node.get("embeddings").items():
        source, path = wires.read(child, teacher=False), f"embed_dict.{name}"
        child.whole("in_channels", default=None)
        child.whole("out_channels", default=None)
        if path not in wires.partners:
            child.leave("no term compares it with the teacher")
            continue
        module = {"_target_": f"{OURS}.ConvRegressor", "norm": True, "pointwise": True, "kernel_size": 3}
        side.adapters[path] = wires.adapter(name, module, source, wires.partners[path])


def _whitened(node: Node, side: Side, wires: Wires) -> None:
    """Linear layer and batch norm on the average of a map; the norm is part of the loss here."""
    source, linear, norm = _input(node, side), node.get("linear_kwargs"), node.get("norm_kwargs")
    norm.whole("num_features", default=None)
    if norm.flag("affine", default=True):
        norm.get("affine").leave("embeddings are normalised without a scale and a shift of their own here")
    wires.epsilon = float(norm.number("eps", default=1e-5))
    norm.number("momentum", default=None)  # of statistics that training does not use
    taps = side.network.taps
    if source == f"{side.role}.stage4" and taps.get("pooled") == "fc:in" and taps.get("stage4", "").startswith("layer"):
        source = f"{side.role}.pooled"
    else:
        source = wires.adapter(f"{side.role}_average", {"_target_": f"{OURS}.AveragedMap"}, source)
    if linear:
        linear.whole("in_features", default=None)
        module: dict[str, Any] = {"_target_": f"{OURS}.LinearProjector", "out_features": linear.whole("out_features")}
        module |= {} if linear.flag("bias", default=True) else {"bias": False}
        source = wires.adapter(f"{side.role}_projection", module, source)
    side.adapters["norm_layer"] = source


def _file(node: Node) -> None:
    if node.given():
        node.differ("adapters live as long as the run and are part of its checkpoints; no file of theirs is read")


WRAPPERS: dict[str, Callable[[Node, Side, Wires], None]] = {
    "Teacher4FactorTransfer": _paraphraser,
    "Student4FactorTransfer": _translator,
    "Connector4DAB": _connectors,
    "VariationalDistributor4VID": _variational,
    "Linear4CCKD": _linear("linear"),
    "Linear4CRD": _linear("normalizer"),
    "SSWrapper4SSKD": _self_supervised,
    "VarianceBranch4PAD": _variance,
    "Student4KnowledgeReview": _review,
    "Student4ICKD": _channels,
    "SRDModelWrapper": _whitened,
}


def sequence(entries: list[str], adaptations: Node, side: Side, wires: Wires) -> list[str] | None:
    """The modules that run in the place of a network; an adaptation at the end is an adapter.

    Returns:
        Their paths; None where it is the network itself, as far as something is read of it.
    """
    entries = list(entries)
    added = dict(adaptations.items())
    adaptations.use() if not adaptations else None
    while entries and entries[-1].startswith("+"):
        name = entries.pop().removeprefix("+")
        child = added.pop(name, Node(None, adaptations.ledger))
        kind = child.text("key", "type") if child else None
        if len(entries) and not entries[-1].startswith("+") and kind == "ConvReg":
            given = child.get("kwargs", "params")
            activation = given.flag("uses_relu", default=True)
            source = side.address(entries[-1])
            side.adapters[name] = _regressor(name, given, source, wires, name, norm=True, activation=activation)
        else:
            adaptations.get(name).leave("only a ConvReg behind the last module is an adapter here")
    for name in [entry.removeprefix("+") for entry in entries if entry.startswith("+")]:
        adaptations.get(name).leave("a module between those of a network; list it in redesign, by its _target_")
        added.pop(name, None)
    for name in added:
        adaptations.get(name).leave("no module of `sequential`")
    kept = [side.network.path(entry) for entry in entries if not entry.startswith("+")]
    return None if not kept or _is_the_beginning(kept, side) else kept


def _is_the_beginning(entries: list[str], side: Side) -> bool:
    """Whether a network of residual stages runs just these, up to the last."""
    if side.network.taps.get("pooled") != "fc:in" or side.network.taps.get("stem") != "relu":
        return False
    stages = [f"layer{number}" for number in (1, 2, 3, 4)]
    order = ["conv1", "bn1", "relu", "maxpool", *stages, "avgpool"]
    if side.network.taps.get("stage4") == "layer3":
        order = [name for name in order if name not in ("maxpool", "layer4")]
    return entries == order[: len(entries)]

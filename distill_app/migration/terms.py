"""The losses of torchdistill, one by one, as terms of this program's."""

from collections.abc import Callable
from typing import Any

from distill_app.migration.ledger import MOST, Node
from distill_app.migration.wiring import Wires

OURS = "distill_app.losses"


class Unlike(Exception):
    """Why a loss with these settings has no counterpart."""


def _both(node: Node, wires: Wires, kind: str = "", *, io: bool = True) -> dict[str, str]:
    """The addresses of `student_<kind>_path`, `teacher_<kind>_path`; without them, what the networks return."""
    found = {}
    for role in ("student", "teacher"):
        path, entry = f"{role}_{kind}_path" if kind else "", f"{role}_{kind}_io" if kind and io else ""
        place = node.text(path, default=".") if kind else "."
        found[role] = wires.side(teacher=role == "teacher").address(place, entry=bool(entry) and node.edge(entry))
    return found


def distillation(node: Node, weight: float, wires: Wires, name: str, *, target: str = "KLDivergence") -> None:
    """alpha CE + beta T^2 KL; without alpha it is KL alone, and without T^2."""
    kind = "module" if node.has("student_module_path") else ""
    inputs, temperature = _both(node, wires, kind), float(node.number("temperature"))
    alpha, beta = node.number("alpha", default=None), node.number("beta", default=None)
    reduction = node.text("reduction", default="batchmean")
    if reduction not in ("batchmean", "mean", "sum"):
        raise Unlike(f"reduction {reduction!r}")
    ours = {"temperature": temperature} | ({} if reduction == "batchmean" else {"reduction": reduction})
    if target != "KLDivergence" and reduction != "batchmean":
        raise Unlike(f"reduction {reduction!r} of standardised logits")
    if not alpha:
        if temperature != 1:
            node.differ(
                f"without alpha T^2 is left out there; here KL has it always, so its weight is divided by "
                f"{temperature:g}^2"
            )
        wires.term("kd" if name == "kd" else name, f"{OURS}.{target}", inputs, weight / temperature**2, **ours)
        return
    labels: dict[str, Any] = {"weight": node.numbers("weight")} if node.has("weight") else {}
    labels |= {"ignore_index": node.whole("ignore_index", least=-MOST)} if node.has("ignore_index") else {}
    labels |= {"label_smoothing": node.number("label_smoothing")} if node.has("label_smoothing") else {}
    labels |= {"reduction": reduction} if reduction == "sum" else {}
    ce = "ce" if "ce" not in wires.losses else f"{name}_ce"
    ends = {"input": inputs["student"], "target": "batch.target"}
    wires.term(ce, "torch.nn.CrossEntropyLoss", ends, weight * alpha, **labels)
    beta = 1 - alpha if beta is None else beta
    wires.term("kd" if "kd" not in wires.losses else name, f"{OURS}.{target}", inputs, weight * beta, **ours)


def _standardised(node: Node, weight: float, wires: Wires, name: str) -> None:
    if node.number("eps", default=1e-7) != 1e-7:
        node.get("eps").leave("standard deviations get 1e-7 added here")
    distillation(node, weight, wires, name, target="StandardizedKL")


def _pairs(node: Node, weight: float, wires: Wires, name: str, *, pairs: str, target: str, **arguments: Any) -> None:
    """A term for each pair of activations."""
    entries = list(node.get(pairs).items())
    for place, (_, pair) in enumerate(entries, start=1):
        sides = {role: wires.read(pair.get(role), teacher=role == "teacher") for role in ("student", "teacher")}
        factor = pair.number("weight", "factor", default=1)
        more = wires.variances.get(sides["student"], {}) if target == "VariationalInformation" else {}
        more = {
            key: value for key, value in more.items() if (key, value) not in (("init_variance", 5.0), ("eps", 1e-5))
        }
        own = name if len(entries) == 1 else f"{name}{place}"
        wires.term(own, f"{OURS}.{target}", sides, weight * factor, **arguments, **more)


def _attention(node: Node, weight: float, wires: Wires, name: str) -> None:
    mode = node.text("mode", default="code")
    if mode not in ("code", "paper"):
        raise Unlike(f"mode {mode!r}")
    arguments = {"norm": "p"} if mode == "paper" else {}
    _pairs(node, weight, wires, name.removesuffix("_loss"), pairs="at_pairs", target="AttentionTransfer", **arguments)


def _boundaries(node: Node, weight: float, wires: Wires, name: str) -> None:
    _reduced(node, "mean")
    margin = {"margin": float(node.number("margin"))}
    _pairs(node, weight, wires, name, pairs="feature_pairs", target="ActivationBoundary", **margin)


def _variational(node: Node, weight: float, wires: Wires, name: str) -> None:
    node.number("margin", default=None)  # which its loss does not read
    _pairs(node, weight, wires, name, pairs="feature_pairs", target="VariationalInformation")


def _flow(node: Node, weight: float, wires: Wires, name: str) -> None:
    """It pools maps to their maximum, and sums the norms of the columns of a difference."""
    entries = list(node.get("fsp_pairs").items())
    for place, (_, pair) in enumerate(entries, start=1):
        sides = {
            role: [wires.read(pair.get(f"{role}_{end}"), teacher=role == "teacher") for end in ("first", "second")]
            for role in ("student", "teacher")
        }
        factor, own = pair.number("weight", "factor", default=1), name if len(entries) == 1 else f"{name}{place}"
        wires.term(own, f"{OURS}.FlowOfSolution", sides, weight * factor, pool="max", reduction="columns")


def _channels(node: Node, weight: float, wires: Wires, name: str) -> None:
    node.differ(
        f"it divides by the batch twice; here once, so its weight is divided by {wires.batch_size}, which is exact for "
        f"whole batches"
    )
    _pairs(node, weight / wires.batch_size, wires, name, pairs="feature_pairs", target="ChannelCorrelation")


def _reduced(node: Node, *allowed: str) -> None:
    reduction = node.text("reduction", default=allowed[0])
    if reduction not in allowed:
        raise Unlike(f"reduction {reduction!r}; {' or '.join(allowed)} has a counterpart")


def _neighbours(node: Node, weight: float, wires: Wires, name: str) -> None:
    eps = float(node.number("eps", default=1e-7))
    inputs = _both(node, wires, "module")
    wires.term(name, f"{OURS}.ProbabilisticTransfer", inputs, weight, eps=None if eps == 1e-7 else eps)


def _factors(student: str, teacher: str) -> Callable[[Node, float, Wires, str], None]:
    def build(node: Node, weight: float, wires: Wires, name: str) -> None:
        _reduced(node, "mean")
        norm = node.number("p", default=1)
        if node.number("q", default=2) != 2:
            raise Unlike("q: factors are divided by their L2 norm here")
        ends = {
            "student": wires.side(teacher=False).address(node.text(f"{student}_path", default=student)),
            "teacher": wires.side(teacher=True).address(node.text(f"{teacher}_path", default="paraphraser")),
        }
        wires.term(name, f"{OURS}.FactorTransfer", ends, weight, p=norm)

    return build


def _relations(node: Node, weight: float, wires: Wires, name: str) -> None:
    _reduced(node, "mean")
    inputs = _both(node, wires, "output", io=False)
    distance, angle = (float(node.number(key)) for key in ("dist_factor", "angle_factor"))
    wires.term("distance", f"{OURS}.RelationalDistance", inputs, weight * distance)
    wires.term("angle", f"{OURS}.RelationalAngle", dict(inputs), weight * angle)


def _correlation(node: Node, weight: float, wires: Wires, name: str) -> None:
    _reduced(node, "batchmean")
    kernel = node.get("kernel_config", "kernel_params")
    kind = kernel.text("type", "key")
    arguments: dict[str, Any] = {"kernel": kind, "norm": "frobenius", "normalize": False}
    if kind == "gaussian":
        arguments |= {"gamma": kernel.number("gamma"), "order": kernel.whole("max_p")}
    elif kind != "bilinear":
        raise Unlike(f"kernel {kind!r}")
    wires.term(name, f"{OURS}.CorrelationCongruence", _both(node, wires, "linear", io=False), weight, **arguments)


def _similarity(node: Node, weight: float, wires: Wires, name: str) -> None:
    """It divides rows by their L1 norm."""
    _reduced(node, "batchmean")
    wires.term(name, f"{OURS}.SimilarityPreserving", _both(node, wires, "output", io=False), weight, p=1.0)


def _contrast(node: Node, weight: float, wires: Wires, name: str) -> None:
    inputs = _both(node, wires, "norm_module", io=False) | {"index": "batch.index"}
    node.text("student_empty_module_path", default=None)
    for key in ("input_size", "output_size", "num_samples"):
        node.whole(key, default=None)  # known from the data and the embeddings
    if wires.positives is None:
        raise Unlike("there is no CRDDatasetWrapper")
    arguments: dict[str, Any] = {"negatives": node.whole("num_negative_samples", least=1)}
    arguments |= {"mode": wires.positives} if wires.positives != "exact" else {}
    for key, default in (("temperature", 0.07), ("momentum", 0.5), ("eps", 1e-7)):
        value = float(node.number(key, default=default))
        arguments |= {key: value} if value != default else {}
    wires.term(name, f"{OURS}.ContrastiveRepresentation", inputs, weight, **arguments)


def _pretext(node: Node, weight: float, wires: Wires, name: str) -> None:
    _reduced(node, "mean")
    path, entry = node.text("module_path", default="ss_module"), node.edge("module_io")
    inputs = {"embedding": wires.side(teacher=True).address(path, entry=entry), "target": "batch.target"}
    wires.term(name, f"{OURS}.ContrastivePrediction", inputs, weight)


def _rotations(node: Node, weight: float, wires: Wires, name: str) -> None:
    """Labels and softened outputs of upright images, similarities of rotated ones, and their softened outputs."""
    _reduced(node, "batchmean")
    logits = _both(node, wires, "linear_module")
    heads = _both(node, wires, "ss_module")
    weights = node.numbers("loss_weights") or [1.0, 1.0, 1.0, 1.0]
    if len(weights) != 4:
        raise node.get("loss_weights").wrong("no list of four weights")
    select = {"_target_": "distill_app.adapters.SelectView"}
    upright = {role: wires.adapter(f"{role}_upright", select, address) for role, address in logits.items()}
    labels = {"input": upright["student"], "target": "batch.target"}
    wires.term("ce", "torch.nn.CrossEntropyLoss", labels, weight * weights[0])
    wires.term("kd", f"{OURS}.KLDivergence", upright, weight * weights[1], temperature=node.number("kl_temp"))
    similar, turned = (
        {"temperature": node.number(f"{key}_temp"), "keep": node.number(f"{key}_ratio")} for key in ("ss", "tf")
    )
    target = {"target": "batch.target"}
    wires.term("similarity", f"{OURS}.SimilarityKL", heads | target, weight * weights[2], **similar)
    ends = logits | target
    wires.term("rotated", f"{OURS}.RotatedKL", ends, weight * weights[3], **turned)


def _prime_aware(node: Node, weight: float, wires: Wires, name: str) -> None:
    _reduced(node, "mean")
    inputs = _both(node, wires, "embed_module")
    path, entry = node.text("module_path", default="var_estimator"), node.edge("module_io")
    inputs["log_variance"] = wires.student.address(path, entry=entry)
    eps = float(node.number("eps", default=1e-6))
    wires.term(name, f"{OURS}.PrimeAwareL2", inputs, weight, eps=None if eps == 1e-6 else eps)


def _context(node: Node, weight: float, wires: Wires, name: str) -> None:
    _reduced(node, "mean")
    sizes = node.numbers("output_sizes", "kernel_sizes") or [4, 2, 1]
    inputs = {role: [address] for role, address in _both(node, wires, "module").items()}
    wires.term(name, f"{OURS}.HierarchicalContext", inputs, weight, sizes=None if sizes == [4, 2, 1] else sizes)


def _affinity(node: Node, weight: float, wires: Wires, name: str) -> None:
    _reduced(node, "mean")
    wires.term(name, f"{OURS}.AffinityDistance", _both(node, wires, "module"), weight)


def _pearson(node: Node, weight: float, wires: Wires, name: str, *, kind: str = "module") -> None:
    inputs = _both(node, wires, kind)
    arguments = {"temperature": float(node.number("tau", default=1.0))}
    arguments |= {key: float(node.number(key, default=1.0)) for key in ("beta", "gamma")}
    eps = float(node.number("eps", default=1e-8))
    wires.term(name, f"{OURS}.PearsonDistance", inputs, weight, **arguments, **({} if eps == 1e-8 else {"eps": eps}))


def _pearson_of_features(node: Node, weight: float, wires: Wires, name: str) -> None:
    features = _both(node, wires, "feature_module")
    channels, space = (float(node.number(key, default=1.0)) for key in ("iota", "kappa"))
    _pearson(node, weight, wires, name, kind="logit_module")
    node.differ(
        "the correlation over channels is added there and so made small; `channels` is negative here for the same "
        "gradient, and the value differs by a constant: 1.0 makes it large, as DIST+ means it"
    )
    arguments = {"channels": -channels, "space": space}
    wires.term(f"{name}_features", f"{OURS}.FeatureCorrelation", features, weight, **arguments)


def _whitened(node: Node, weight: float, wires: Wires, name: str) -> None:
    _reduced(node, "batchmean")
    features, logits = _both(node, wires, "feature_module"), _both(node, wires, "linear_module")
    exponent, temperature = float(node.number("exponent", default=1.0)), float(node.number("temperature", default=1.0))
    if wires.epsilon is None:
        raise Unlike("its embeddings are normalised by SRDModelWrapper, which is not there")
    eps = None if wires.epsilon == 1e-4 else wires.epsilon
    wires.term("kd", f"{OURS}.KLDivergence", logits, weight / temperature**2, temperature=temperature)
    wires.term("srd", f"{OURS}.WhitenedLogDistance", features, weight, exponent=exponent, eps=eps)


def _instances(node: Node, weight: float, wires: Wires, name: str) -> None:
    temperature = float(node.number("temperature", default=4.0))
    inputs = _both(node, wires, "module")
    wires.term("kd", f"{OURS}.KLDivergence", inputs, weight / temperature**2, temperature=temperature)


def _directions(node: Node, weight: float, wires: Wires, name: str) -> None:
    inputs = _both(node, wires, "module")
    wires.term(name, f"{OURS}.DirectionDistance", inputs, weight, tikhonov=float(node.number("tikhonov", default=0.1)))


TERMS: dict[str, Callable[[Node, float, Wires, str], None]] = {
    "KDLoss": distillation,
    "LogitStdKDLoss": _standardised,
    "ATLoss": _attention,
    "AltActTransferLoss": _boundaries,
    "VIDLoss": _variational,
    "FSPLoss": _flow,
    "ChSimLoss": _channels,
    "PKTLoss": _neighbours,
    "FTLoss": _factors("translator", "paraphraser"),
    "KTALoss": _factors("feature_adapter", "knowledge_translator"),
    "AffinityLoss": _affinity,
    "RKDLoss": _relations,
    "CCKDLoss": _correlation,
    "SPKDLoss": _similarity,
    "CRDLoss": _contrast,
    "AuxSSKDLoss": _pretext,
    "SSKDLoss": _rotations,
    "PADL2Loss": _prime_aware,
    "HierarchicalContextLoss": _context,
    "DISTLoss": _pearson,
    "DISTPlusLoss": _pearson_of_features,
    "SRDLoss": _whitened,
    "SKDInstanceLoss": _instances,
    "SKDDirectionLoss": _directions,
}

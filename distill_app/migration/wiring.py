"""From module paths and hook lists to addresses."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from distill_app.migration.ledger import Ledger, Node
from distill_app.migration.networks import Network


@dataclass
class Side:
    """One of the two networks in a stage: what the paths of its configs lead to.

    Attributes:
        role: student or teacher.
        network: The network.
        within: What an auxiliary wrapper puts in front of paths of the network itself.
        adapters: Paths of modules beside the network -> their addresses.
    """

    role: str
    network: Network
    within: tuple[str, ...] = ()
    adapters: dict[str, str] = field(default_factory=dict)

    def address(self, path: str, *, entry: bool = False) -> str:
        """The address of what a module gives, or takes.

        Raises:
            LookupError: What goes into the whole network or into a module beside it is read nowhere here.
        """
        path = path.removeprefix("+")
        if entry and (path == "." or path in self.adapters):
            raise LookupError(f"the input of {path!r}, which no term reads here; name the module that gives it")
        if path in self.adapters:
            return self.adapters[path]
        for prefix in self.within:
            path = path.removeprefix(f"{prefix}.")
        return f"{self.role}.{self.network.tap(path, entry=entry)}"


@dataclass
class Wires:
    """A stage while it is put together.

    Attributes:
        ledger: Where what cannot be taken over is noted.
        student: The student's side; in a config without teacher the only one.
        teacher: The teacher's side.
        known: Adapters of the stages before.
        adapters: Those of this stage.
        losses: Its terms.
        wrappers: Its wrappers of samples.
        partners: The path of a module on the student's side -> the address that a term compares it with.
        batch_size: Of the stage.
        positives: How CRD's wrapper chooses positives; None where there is no such wrapper.
        variances: The adapter of VID -> what its variance begins with.
        epsilon: Of SRD's batch norms.
    """

    ledger: Ledger
    student: Side
    teacher: Side | None
    known: dict[str, Any]
    batch_size: int = 1
    adapters: dict[str, Any] = field(default_factory=dict)
    losses: dict[str, Any] = field(default_factory=dict)
    wrappers: dict[str, Any] = field(default_factory=dict)
    partners: dict[str, str] = field(default_factory=dict)
    positives: str | None = None
    variances: dict[str, dict[str, float]] = field(default_factory=dict)
    epsilon: float | None = None

    def side(self, *, teacher: bool) -> Side:
        """One of the two.

        Raises:
            LookupError: A config without a teacher reads it.
        """
        if not teacher:
            return self.student
        if self.teacher is None:
            raise LookupError("it reads a teacher, and the file has none")
        return self.teacher

    def read(self, node: Node, *, teacher: bool, path: tuple[str, ...] = ("path",), io: str = "io") -> str:
        """The address that `path` and `io` of a node mean."""
        place = node.text(*path)
        return self.side(teacher=teacher).address(place, entry=node.edge(io))

    def adapter(self, name: str, module: dict[str, Any], source: Any, target: str | None = None) -> str:
        """Declares an adapter and gives its address; a later stage finds that of an earlier one."""
        conf = {"module": module, "source": source} | ({"target": target} if target is not None else {})
        if self.known.get(name) == conf:
            return f"adapters.{name}"
        while name in self.adapters or name in self.known:
            name += "_"
        self.adapters[name] = conf
        return f"adapters.{name}"

    def term(self, name: str, target: str, inputs: dict[str, Any], weight: float, /, **arguments: Any) -> None:
        """Adds a weighted term; one of weight 0 says nothing."""
        if weight == 0:
            return
        while name in self.losses:
            name += "_"
        loss = {"_target_": target, **{key: value for key, value in arguments.items() if value is not None}}
        self.losses[name] = {"loss": loss, "inputs": inputs, "weight": weight}

    def pair_up(self, terms: Node) -> None:
        """Notes what each module of the student's side is compared with, for adapters that take its shape."""
        for path, entry in _pairs(terms):
            if self.teacher is not None:
                with suppress(LookupError):  # told with the term
                    self.partners.setdefault(path.removeprefix("+"), self.teacher.address(entry[0], entry=entry[1]))


def _pairs(terms: Node) -> Iterator[tuple[str, tuple[str, bool]]]:
    """The student's path and what of the teacher it is compared with; nothing counts as read by this."""
    for _, term in terms.items():
        arguments = term.get("criterion").get("kwargs", "params")
        wrapped = term.get("criterion_wrapper").get("kwargs") if term.has("criterion_wrapper") else term.get("params")
        if wrapped:
            ends = [wrapped.get("input"), wrapped.get("target")]
            for own, other in (ends, ends[::-1]):
                if other.get("is_from_teacher").value and not own.get("is_from_teacher").value:
                    yield str(own.get("module_path").value), _end(other, "module_path", "io")
        for _, pair in arguments.get("feature_pairs").items():
            yield str(pair.get("student").get("path").value), _end(pair.get("teacher"), "path", "io")
        if arguments.has("teacher_module_path"):
            end = _end(arguments, "teacher_module_path", "teacher_module_io")
            yield str(arguments.get("student_module_path").value), end


def _end(node: Node, path: str, io: str) -> tuple[str, bool]:
    return str(node.get(path).value), node.get(io).value == "input"

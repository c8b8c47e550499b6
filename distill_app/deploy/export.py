"""Writing a network to a file: made aside, read again, compared with the network, and only then put in its place."""

import hashlib
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distill_app.deploy.formats import FORMATS, quiet, require
from distill_app.errors import DistillError, ExportError, UsageError
from distill_app.networks.answers import entry_at, entry_of
from distill_app.networks.modes import evaluating
from distill_app.runs.files import UMASK, read_object, write_json, write_text
from distill_app.runs.statefile import weights_hash
from distill_app.words import first_line

KIND = "distill-app export"
BATCHES = (1, 2, 5)
SAMPLES = 8
TOLERANCE = 1e-4  # of answers, as a share of the largest one: kernels of other libraries sum in other orders
_MARK = "<!-- written by distill export -->"


@dataclass(frozen=True)
class Written:
    """An export that is there and right.

    Attributes:
        files: What was written, the network first.
        difference: The largest one to the network's own answers, as a share of the largest of these.
        classes: Whether its answers are classes of images, which `distill predict` tells.
    """

    files: list[Path]
    difference: float
    classes: bool


@dataclass(frozen=True)
class Target:
    """Where an export goes: a file with its companions beside it, or a folder with all of them.

    Attributes:
        file: Of the network.
        card: The model card.
        whole: Whether the folder is that of the export alone.
    """

    file: Path
    card: Path
    whole: bool

    @classmethod
    def of(cls, output: Path, *, to: str) -> "Target":
        """A path with a suffix is a file, any other a folder, and so is one that is there."""
        if output.suffix and not output.is_dir():
            return cls(output, output.with_suffix(".md"), whole=False)
        return cls(output / f"model{FORMATS[to].suffixes[0]}", output / "README.md", whole=True)

    @property
    def description(self) -> Path:
        """What says how images are prepared, what the classes are called, and what the network is."""
        return self.file.with_suffix(".json")

    def refuse_others(self, further: Sequence[str] = ()) -> None:
        """Refuses to replace a card, a description or a file that is no export's.

        Args:
            further: Names of files that will lie beside the network.

        Raises:
            UsageError: There is one.
        """
        for file in (self.file, self.description, self.card):
            if file.is_dir():
                raise UsageError(f"--output: {file} is a folder; name another file or folder")
        described = read_object(self.description) or {}
        if self.description.exists() and described.get("kind") != KIND:
            raise UsageError(f"--output: {self.description} is there and no export's; name another file or folder")
        if self.card.exists() and _MARK not in self.card.read_text(encoding="utf-8", errors="replace"):
            raise UsageError(f"--output: {self.card} is there and no export's; name another file or folder")
        for name in (self.file.name, *further):
            file = self.file.with_name(name)
            if file.exists() and self.file.name not in _named(described):
                raise UsageError(
                    f"--output: {file} is there, and no {self.description.name} beside it says that it is an export; "
                    f"remove it, or name another file or folder"
                )


def export(
    network: nn.Module,
    samples: Tensor,
    *,
    to: str,
    target: Target,
    about: Mapping[str, Any],
    card: Callable[[Mapping[str, Any]], str],
    architecture: Callable[[], nn.Module],
    beside: Callable[[Path], list[Path]] = lambda folder: [],
) -> Written:
    """Writes a network, its description and its card.

    Args:
        network: On the CPU; for formats of programs one that returns its answer.
        samples: Of its input, (batch, channels, height, width), with which it is verified.
        to: A format.
        target: Where.
        about: The description, without what is known only now.
        card: Makes the model card of the whole description.
        architecture: Builds the bare network anew, as who loads the weights will.
        beside: Makes further files in the folder of the verified export, before it is put in its place.

    Raises:
        ExportError: It cannot be exported, or what was exported answers something else; no file is left.
        NotInstalled: A package is not installed.
        UsageError: Files of others are in its place.
    """
    require(to)
    target.refuse_others()
    folder = target.file.parent
    made: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".export-", dir=folder) as place:
            file = Path(place, target.file.name)
            with evaluating(network), torch.no_grad():
                _write(network, samples, file, to=to, about=about)
                difference = verified(network, samples, file, to=to, architecture=architecture, key=_key(about))
            further = beside(Path(place)) if target.whole else []
            target.refuse_others([each.name for each in further])
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
            whole = {
                **about,
                "file": target.file.name,
                "earlier": [
                    name
                    for name in _named(read_object(target.description) or {})
                    if name != target.file.name and target.file.with_name(name).exists()
                ],
                "sha256": digest,
                "verified": _verification(samples, difference),
            }
            write_json(Path(place, target.description.name), whole)
            write_text(Path(place, target.card.name), f"{card(whole)}\n{_MARK}\n")
            for name in (target.file.name, *(each.name for each in further), target.description.name, target.card.name):
                os.chmod(Path(place, name), 0o666 & ~UMASK)
                os.replace(Path(place, name), folder / name)
                made.append(folder / name)
    except OSError as error:
        raise ExportError(f"cannot write to {folder}: {error.strerror or error}") from error
    return Written(made, difference, classes=about["scores"] is not None)


def _write(network: nn.Module, samples: Tensor, file: Path, *, to: str, about: Mapping[str, Any]) -> None:
    """Writes the bare file.

    Raises:
        ExportError: With why it cannot be written.
    """
    try:
        with quiet():
            FORMATS[to].write(network, samples[:2], file, about)
    except (DistillError, OSError):
        raise
    except Exception as error:  # exporters fail in as many ways as networks are written
        raise ExportError(f"{type(network).__name__} cannot be exported to {to}: {first_line(error)}") from error


def verified(
    network: nn.Module,
    samples: Tensor,
    file: Path,
    *,
    to: str,
    architecture: Callable[[], nn.Module],
    key: str = "",
) -> float:
    """The largest difference between what a file and the network answer, for batches of several sizes.

    It is a share of the largest answer, and may be rounding. Weights have to be the same bit for bit. Of networks that
    return a mapping the entry `key` is compared.

    Raises:
        ExportError: The file cannot be read or run, or answers something else.
    """
    try:
        with quiet():
            other = FORMATS[to].read(file, architecture)
    except Exception as error:
        raise ExportError(f"what was exported to {to} cannot be read again: {first_line(error)}") from error
    largest = 0.0
    for size in (*BATCHES, len(samples)):
        images = samples[:size]
        expected = _answer(entry_at(network(images), key))
        try:
            with quiet():
                answer = _answer(entry_at(other(images), key))
        except Exception as error:
            raise ExportError(
                f"what was exported to {to} does not run on a batch of {size}: {first_line(error)}"
            ) from error
        if answer.shape != expected.shape:
            shapes = f"{tuple(answer.shape)} in the place of {tuple(expected.shape)}"
            raise ExportError(f"what was exported to {to} is wrong: on a batch of {size} it answers {shapes}")
        scale = float(expected.abs().max()) or 1.0
        difference = float((answer.float() - expected.float()).abs().max()) / scale
        if not difference <= TOLERANCE:  # so that NaN is refused too
            raise ExportError(
                f"what was exported to {to} is wrong: on a batch of {size} its answers differ by {difference:.3g} of "
                f"the largest one, and {TOLERANCE:g} is allowed"
            )
        largest = max(largest, difference)
    if not FORMATS[to].is_program and weights_hash(other) != weights_hash(network):
        raise ExportError(f"what was exported to {to} is wrong: its weights are not those of the network")
    return largest


def _answer(value: object) -> Tensor:
    if not isinstance(value, Tensor):
        raise TypeError(f"the answer is a {type(value).__name__}, and one tensor is needed")
    return value.detach()


def _key(about: Mapping[str, Any]) -> str:
    return entry_of((about.get("answer") or {}).get("tap"))


def _verification(samples: Tensor, difference: float) -> dict[str, Any]:
    return {"images": len(samples), "batch_sizes": [*BATCHES, len(samples)], "largest_difference": difference}


def description_in(place: Path) -> tuple[Path, dict[str, Any]] | None:
    """The file of the export at a path, its own or its folder's, with its description; None where there is none."""
    candidates = sorted(place.glob("*.json")) if place.is_dir() else [place.with_suffix(".json")]
    for candidate in candidates:
        described = read_object(candidate) or {}
        if described.get("kind") != KIND or not _is_name(described.get("file")):
            continue
        file = candidate.with_name(described["file"])
        if place.is_dir() or file.name == place.name:
            return file, described
    return None


def _named(described: Mapping[str, Any]) -> list[str]:
    """The files of exports that a description names: its own, and those of other formats that it described before."""
    earlier = described.get("earlier")
    return [name for name in (described.get("file"), *(earlier if isinstance(earlier, list) else [])) if _is_name(name)]


def _is_name(value: object) -> bool:
    """Whether a description names a file beside itself, and not somewhere else."""
    return isinstance(value, str) and value == os.path.basename(value) != ""


def same_bytes(file: Path, described: Mapping[str, Any]) -> bool:
    """Whether a file is the one that was verified."""
    with open(file, "rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest() == described.get("sha256")

"""The halves of a network with a cut, as files: read again, to be verified or used."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distill_app.deploy.formats import ExportedProgram, quiet
from distill_app.deploy.preprocessing import Preprocessing
from distill_app.errors import UsageError
from distill_app.models.halves import halves
from distill_app.runs.files import read_object
from distill_app.words import unknown

KIND = "distill-app split"
PARTS = ("head", "tail")
DESCRIPTION, CARD = "split.json", "README.md"
PROGRAM, WEIGHTS = "torch_export", "safetensors"
SUFFIXES = {PROGRAM: ".pt2", WEIGHTS: ".safetensors"}
_LOADER = "torch.export.load"  # what `allow` has to name, since it runs what a file says

Architecture = Callable[[], nn.Module]


class Half(nn.Module):
    """One side of a cut, in eval mode.

    Args:
        module: The head, called with images, gives a message: tensors by name. The tail is called with these names.
        preprocessing: From an image to what the head takes.
    """

    def __init__(self, module: nn.Module, preprocessing: Preprocessing):
        super().__init__()
        self.module, self.preprocessing = module, preprocessing

    @torch.no_grad()
    def forward(self, *images: Any, **message: Tensor) -> Any:
        """Images to a message, or a message to the network's answer."""
        return self.module(*images, **message)


def read_half(file: Path, part: str, *, to: str, about: Mapping[str, Any], architecture: Architecture) -> nn.Module:
    """A half from its file.

    Args:
        file: Of the half.
        part: head or tail.
        to: PROGRAM or WEIGHTS.
        about: The description: of weights the shape of an `image`, (C, H, W), and `eight_bits`.
        architecture: Builds the whole network.

    Raises:
        UsageError: The weights are not those of the half of the architecture.
    """
    if to == PROGRAM:
        with quiet():
            return ExportedProgram(torch.export.load(file).module())
    from safetensors.torch import load_file

    example = [torch.zeros(tuple(about["image"])) for _ in range(2)]
    half = halves(architecture(), example, eight_bits=False)[PARTS.index(part)]
    if part == "head":
        half.eight_bits = bool(about.get("eight_bits"))
    try:
        half.load_state_dict(load_file(file))
    except RuntimeError as error:
        first = "; ".join(line.strip() for line in str(error).splitlines()[1:3])
        raise UsageError(
            f"{file} does not hold the {part} of the network that its description names: {first}"
        ) from None
    return half.eval()


def digest(file: Path) -> str:
    """The sha256 of a file."""
    with open(file, "rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def split_in(place: Path) -> dict[str, Any]:
    """The description of the split in a folder.

    Raises:
        UsageError: There is none.
    """
    described = read_object(place / DESCRIPTION) or {}
    if described.get("kind") != KIND:
        raise UsageError(f"{place} holds no split of distill export --to split")
    return described


def load_half(
    place: Path, part: str, described: Mapping[str, Any], *, allow: Sequence[str], architecture: Architecture
) -> Half:
    """A half of a split, ready to be called.

    Args:
        place: The folder of the split.
        part: head or tail.
        described: Its description.
        allow: Packages of which it may be built, and `torch.export.load` where its files are programs.
        architecture: Builds the whole network, without weights.

    Raises:
        UsageError: No such part, a file that is another one, or a program that nobody allowed.
    """
    if part not in PARTS:
        raise UsageError(f"part: {unknown('part', part, PARTS)}")
    to, told = str(described.get("format")), (described.get("parts") or {}).get(part) or {}
    if to not in SUFFIXES:
        raise UsageError(f"{place}: its description says the format {to!r}; there are {', '.join(SUFFIXES)}")
    file = place / f"{part}{SUFFIXES[to]}"
    if not file.is_file() or digest(file) != told.get("sha256"):
        raise UsageError(f"{file} is not the file that was exported: it is missing, damaged or another one")
    if to == PROGRAM and _LOADER not in allow:
        raise UsageError(f"{file} is a program, which {_LOADER} runs; if you trust it: allow=[{_LOADER!r}]")
    preprocessing = Preprocessing.of(described.get("preprocessing"), allow=allow, source=str(place / DESCRIPTION))
    return Half(read_half(file, part, to=to, about=described, architecture=architecture), preprocessing).eval()

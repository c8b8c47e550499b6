"""A network with a cut as two files, its head and its tail: made aside, read again, and compared with the whole."""

import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distill_app.deploy.export import Written
from distill_app.deploy.formats import FORMATS, METADATA, quiet
from distill_app.deploy.half import (
    DESCRIPTION,
    KIND,
    PARTS,
    PROGRAM,
    SUFFIXES,
    WEIGHTS,
    Architecture,
    digest,
    read_half,
)
from distill_app.errors import ExportError, UsageError
from distill_app.models.cut import bottleneck_of, has_bottleneck
from distill_app.models.halves import Images, Message, halves
from distill_app.networks.modes import evaluating
from distill_app.networks.taps import tensors_in
from distill_app.runs.files import UMASK, read_object, write_json, write_text
from distill_app.runs.statefile import clean_state_dict
from distill_app.words import first_line

CARD = "README.md"
_BATCHES = {PROGRAM: (1, 2, 5, 8), WEIGHTS: (1, 3)}  # detectors take seconds for an image
_TOLERANCE = 1e-4  # as a share of the largest answer


def refuse_uncut(net: nn.Module, *, name: str) -> None:
    """Refuses a network without a cut.

    Raises:
        UsageError: It has none.
    """
    if not has_bottleneck(net):
        raise UsageError(
            f"--to split: {name} has no cut: it is a {type(net).__name__} without a bottleneck. Train one with "
            f"method=ghnd or method=hnd, whose student is model@student=teacher_bottleneck"
        )


def format_for(images: Images) -> str:
    """How the halves of a network are written that takes such images.

    What takes a tensor becomes two programs, which need nothing but torch. What takes a list of images is a detector,
    which decides by values what it runs and how much: a program would be right for the images it was made with. Of it
    the weights are written, of each half its own.
    """
    return PROGRAM if isinstance(images, Tensor) else WEIGHTS


def export_split(
    net: nn.Module,
    images: Images,
    *,
    eight_bits: bool,
    folder: Path,
    about: Mapping[str, Any],
    card: Callable[[Mapping[str, Any]], str],
    architecture: Architecture,
) -> Written:
    """Writes the two halves of a network, with a description and a card.

    Args:
        net: On the CPU; has a bottleneck.
        images: Some of its input, with which the halves are verified.
        eight_bits: Whether what crosses the cut is quantised.
        folder: Where.
        about: The description, without what is known only now.
        card: Makes the card of the whole description.
        architecture: Builds the network anew, as who loads weights will.

    Raises:
        ExportError: It cannot be halved or written, or the halves answer something else than the whole; no file is
            left.
        UsageError: Files of others are in its place.
    """
    to, made = format_for(images), []
    about = {**about, "kind": KIND, "format": to, "eight_bits": eight_bits}
    names = {part: f"{part}{SUFFIXES[to]}" for part in PARTS}
    _refuse_others(folder, names.values())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".export-", dir=folder) as place:
            files = {part: Path(place, name) for part, name in names.items()}
            with _crossing(net, eight_bits=eight_bits), evaluating(net), torch.no_grad():
                message = _written(net, images, files, to=to, eight_bits=eight_bits, about=about)
                read = {
                    part: read_half(files[part], part, to=to, about=about, architecture=architecture) for part in PARTS
                }
                difference = _verified(net, images, read, to=to)
            whole = {
                **about,
                "message": {name: _told(tensor) for name, tensor in message.items()},
                "parts": {part: _file_told(files[part]) for part in PARTS},
                "verified": {"batch_sizes": _sizes(images, to), "largest_difference": difference},
            }
            write_json(Path(place, DESCRIPTION), whole)
            write_text(Path(place, CARD), card(whole))
            for name in (*names.values(), DESCRIPTION, CARD):
                os.chmod(Path(place, name), 0o666 & ~UMASK)
                os.replace(Path(place, name), folder / name)
                made.append(folder / name)
    except OSError as error:
        raise ExportError(f"cannot write to {folder}: {error.strerror or error}") from error
    return Written(made, difference, classes=False)  # a half alone predicts nothing


def _refuse_others(folder: Path, halves: Iterable[str]) -> None:
    described = read_object(folder / DESCRIPTION) or {}
    if folder.is_file() or any(folder.suffix in kind.suffixes for kind in FORMATS.values()):
        raise UsageError(f"--output: a split is a folder with two files and what describes them; {folder} is a file")
    strange = [name for name in (DESCRIPTION, CARD, *halves) if (folder / name).exists()]
    if strange and described.get("kind") != KIND:
        raise UsageError(f"--output: {folder / strange[0]} is there and no split's; name another folder")


@contextmanager
def _crossing(net: nn.Module, *, eight_bits: bool) -> Iterator[None]:
    """What crosses the cut of a whole network in 8 bits, or as it is, for the time of the block."""
    bottleneck = bottleneck_of(net)[1]
    before, bottleneck.quantized = bottleneck.quantized, eight_bits
    try:
        yield
    finally:
        bottleneck.quantized = before


def _written(
    net: nn.Module, images: Images, files: Mapping[str, Path], *, to: str, eight_bits: bool, about: Mapping[str, Any]
) -> Message:
    """Writes the bare files.

    Returns:
        What crosses for two images.

    Raises:
        ExportError: With why it cannot be written.
    """
    example = images[:2]
    try:
        head, tail = halves(net, example, eight_bits=eight_bits)
        message: Message = head(example)
        if to == WEIGHTS:
            for part, half in zip(PARTS, (head, tail), strict=True):
                _save_weights(half, files[part], about)
            return message
        with quiet():
            _save_program(_traced(head, example), (example,), {}, files["head"], about)
            receiving = _InEightBits(tail) if eight_bits else _AsItIs(tail)
            _save_program(receiving, (), message, files["tail"], about)
    except OSError:
        raise
    except Exception as error:  # networks fail to be halved or exported in as many ways as they are written
        raise ExportError(f"{type(net).__name__} cannot be split: {first_line(error)}") from error
    return message


class _AsItIs(nn.Module):
    """A tail whose arguments have names, as those of a program need them."""

    def __init__(self, tail: nn.Module):
        super().__init__()
        self.tail = tail

    def forward(self, crossing: Tensor) -> Any:
        return self.tail(crossing=crossing)


class _InEightBits(nn.Module):
    """The same of a tail that receives 8 bits."""

    def __init__(self, tail: nn.Module):
        super().__init__()
        self.tail = tail

    def forward(self, values: Tensor, scale: Tensor, low: Tensor) -> Any:
        return self.tail(values=values, scale=scale, low=low)


def _save_weights(half: nn.Module, file: Path, about: Mapping[str, Any]) -> None:
    from safetensors.torch import save_file

    # A tensor of two names is written twice: the format has no shared ones.
    state = {name: value.detach().cpu().contiguous().clone() for name, value in clean_state_dict(half).items()}
    save_file(state, file, metadata={"format": "pt", METADATA: json.dumps(dict(about))})


def _traced(head: nn.Module, example: Any) -> nn.Module:
    """The head as a graph: torch.export follows modules, and a forward that ends at the cut leaves it within some."""
    from torch.fx.experimental.proxy_tensor import make_fx

    trace = make_fx(
        lambda images: head(images), tracing_mode="symbolic", pre_dispatch=True, _allow_non_fake_inputs=True
    )
    return trace(example)


def _save_program(
    half: nn.Module, args: tuple[Any, ...], kwargs: Message, file: Path, about: Mapping[str, Any]
) -> None:
    batch = {0: torch.export.Dim.AUTO}  # a batch size that the network fixes is found when it is verified
    shapes: Any = dict.fromkeys(kwargs, batch) if kwargs else (batch,)
    program = torch.export.export(half, args, kwargs or None, dynamic_shapes=shapes, strict=False)
    torch.export.save(program, file, extra_files={f"{METADATA}.json": json.dumps(dict(about))})


def _verified(net: nn.Module, images: Images, read: Mapping[str, nn.Module], *, to: str) -> float:
    """The largest difference between what the halves, one behind the other, and the whole answer.

    What crosses goes through bytes, as between two machines.

    Raises:
        ExportError: They cannot be run, or answer something else.
    """
    from safetensors.torch import load, save

    largest = 0.0
    for size in _sizes(images, to):
        batch = images[:size]
        expected = tensors_in(net(batch))
        try:
            with quiet():
                answer = tensors_in(read["tail"](**load(save(read["head"](batch)))))
        except Exception as error:
            raise ExportError(f"the halves do not run on a batch of {size}: {first_line(error)}") from error
        shapes = [[tuple(tensor.shape) for tensor in tensors] for tensors in (answer, expected)]
        if shapes[0] != shapes[1]:
            raise ExportError(
                f"the halves are wrong: on a batch of {size} they answer {shapes[0]} in the place of {shapes[1]}"
            )
        for mine, theirs in zip(answer, expected, strict=True):
            largest = max(largest, _difference(mine, theirs, size))
    return largest


def _difference(mine: Tensor, theirs: Tensor, size: int) -> float:
    if not theirs.numel():
        return 0.0
    scale = float(theirs.abs().max()) or 1.0
    difference = float((mine.float() - theirs.float()).abs().max()) / scale
    if not difference <= _TOLERANCE:  # so that NaN is refused too
        raise ExportError(
            f"the halves are wrong: on a batch of {size} their answers differ by {difference:.3g} of the largest one, "
            f"and {_TOLERANCE:g} is allowed; something passes by the cut"
        )
    return difference


def _sizes(images: Images, to: str) -> list[int]:
    return [size for size in _BATCHES[to] if size <= len(images)]


def _told(tensor: Tensor) -> dict[str, Any]:
    shape: Sequence[Any] = ["batch", *tensor.shape[1:]]
    return {"dtype": str(tensor.dtype).removeprefix("torch."), "shape": shape}


def _file_told(file: Path) -> dict[str, Any]:
    return {"file": file.name, "sha256": digest(file), "bytes": file.stat().st_size}

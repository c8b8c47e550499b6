"""The files that an export may become: how each is written, and how it is read again to be verified or used."""

import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distill_app.errors import ExportError, NotInstalled, UsageError
from distill_app.extras import install, missing
from distill_app.runs.statefile import clean_state_dict, load_file, save_weights
from distill_app.words import unknown

METADATA = "distill_app"  # what the description is called in the metadata of a file
INPUT = "images"
_MOST_ONNX = 2**31 - 2**20  # bytes of one protobuf

Read = Callable[[Path, Callable[[], nn.Module]], nn.Module]


@dataclass(frozen=True)
class Format:
    """A kind of file.

    Attributes:
        suffixes: That say it, the first by default.
        write: Called with the network, an example of its input, the file and the description.
        read: From a file to what can be called; with what builds the bare architecture.
        is_program: It holds the network itself, and not its weights alone.
        packages: That it needs beside those of the program.
        code: What `--allow` has to name before such a file of somebody else's is read; empty: it runs no code.
    """

    suffixes: tuple[str, ...]
    write: Callable[[nn.Module, Tensor, Path, Mapping[str, Any]], None]
    read: Read
    is_program: bool = False
    packages: tuple[str, ...] = ()
    code: str = ""


class OnnxSession(nn.Module):
    """A network in a file of ONNX, run by onnxruntime on the processor."""

    def __init__(self, path: Path):
        super().__init__()
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name

    def forward(self, images: Tensor) -> Tensor:
        """(batch, channels, height, width) -> the answer."""
        return torch.from_numpy(self._session.run(None, {self._input: images.cpu().numpy()})[0])


class ExportedProgram(nn.Module):
    """A network in a file of torch.export, whose own module refuses to be asked for a mode: it has but one."""

    def __init__(self, program: nn.Module):
        super().__init__()
        self._program = [program]  # in a list: it is no part of this module

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """What it was exported with: (batch, channels, height, width) -> the answer."""
        return self._program[0](*inputs, **named)


def _write_state(network: nn.Module, example: Tensor, path: Path, about: Mapping[str, Any]) -> None:
    save_weights(network, path)


def _read_state(path: Path, architecture: Callable[[], nn.Module]) -> nn.Module:
    return _filled(architecture(), load_file(path), path)


def _write_safetensors(network: nn.Module, example: Tensor, path: Path, about: Mapping[str, Any]) -> None:
    from safetensors.torch import save_file

    # A tensor of two names is written twice: the format has no shared ones.
    state = {name: value.detach().cpu().contiguous().clone() for name, value in clean_state_dict(network).items()}
    save_file(state, path, metadata={"format": "pt", METADATA: json.dumps(about)})


def _read_safetensors(path: Path, architecture: Callable[[], nn.Module]) -> nn.Module:
    from safetensors.torch import load_file as load_safetensors

    return _filled(architecture(), load_safetensors(path), path)


def _filled(network: nn.Module, state: Mapping[str, Any], path: Path) -> nn.Module:
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        first = "; ".join(line.strip() for line in str(error).splitlines()[1:3])
        raise UsageError(
            f"{path} does not hold the weights of the architecture that its description names: {first}"
        ) from None
    return network.eval()


def _write_exported(network: nn.Module, example: Tensor, path: Path, about: Mapping[str, Any]) -> None:
    shapes = ({0: torch.export.Dim.AUTO},)  # a batch size that the network fixes is found when it is verified
    program = torch.export.export(network, (example,), dynamic_shapes=shapes, strict=False)
    torch.export.save(program, path, extra_files={f"{METADATA}.json": json.dumps(about)})


def _read_exported(path: Path, architecture: Callable[[], nn.Module]) -> nn.Module:
    return ExportedProgram(torch.export.load(path).module())


def _write_script(network: nn.Module, example: Tensor, path: Path, about: Mapping[str, Any]) -> None:
    program = torch.jit.trace(network, (example,), check_trace=False)
    torch.jit.save(program, str(path), _extra_files={f"{METADATA}.json": json.dumps(about)})


def _read_script(path: Path, architecture: Callable[[], nn.Module]) -> nn.Module:
    program: nn.Module = torch.jit.load(str(path), map_location="cpu")
    return program


def _write_onnx(network: nn.Module, example: Tensor, path: Path, about: Mapping[str, Any]) -> None:
    if sum(value.nbytes for value in network.state_dict().values()) > _MOST_ONNX:
        raise ExportError("a file of ONNX holds up to 2 GB, and this network is larger; take --to torch_export")
    import onnx

    program = torch.onnx.export(
        network,
        (example,),
        dynamo=True,
        input_names=[INPUT],
        output_names=["answer"],
        dynamic_shapes=({0: torch.export.Dim.AUTO},),
        verbose=False,
    )
    model = program.model_proto  # type: ignore[union-attr]
    # It is called after a symbol of torch's.
    names = {dims[0].dim_param for value in (*model.graph.input, *model.graph.output) if (dims := _dims(value))}
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for dim in _dims(value):
            if dim.dim_param and dim.dim_param in names:
                dim.dim_param = "batch"
    onnx.helper.set_model_props(model, {METADATA: json.dumps(about)})
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def _dims(value: Any) -> list[Any]:
    return list(value.type.tensor_type.shape.dim)


def _read_onnx(path: Path, architecture: Callable[[], nn.Module]) -> nn.Module:
    return OnnxSession(path)


FORMATS = {
    "state_dict": Format((".pt", ".pth", ".bin"), _write_state, _read_state),
    "safetensors": Format((".safetensors",), _write_safetensors, _read_safetensors),
    "torch_export": Format((".pt2",), _write_exported, _read_exported, is_program=True, code="torch.export.load"),
    "torchscript": Format((".ts", ".torchscript"), _write_script, _read_script, is_program=True, code="torch.jit.load"),
    "onnx": Format(
        (".onnx",), _write_onnx, _read_onnx, is_program=True, packages=("onnx", "onnxruntime", "onnxscript")
    ),
}


def format_of(to: str | None, output: Path | None) -> str:
    """Which format is asked for: by name, or else by the suffix of the file; a plain state dict by default.

    Raises:
        UsageError: There is no such format, or the suffix says another one or none.
    """
    if to is not None and to not in FORMATS:
        raise UsageError(f"--to: {unknown('format', to, [*FORMATS, 'split'])}")
    if output is None or not output.suffix or output.is_dir():
        return to or "state_dict"
    said = next((name for name, kind in FORMATS.items() if output.suffix.lower() in kind.suffixes), None)
    if said is None:
        allowed = ", ".join(f"{kind.suffixes[0]} ({name})" for name, kind in FORMATS.items() if to in (None, name))
        raise UsageError(f"--output: {output.name} ends in {output.suffix}, which says no format; allowed: {allowed}")
    if to is not None and said != to:
        raise UsageError(
            f"--output: {output.name} ends in {output.suffix}, which says {said}, and --to says {to}; name it "
            f"{output.with_suffix(FORMATS[to].suffixes[0]).name}, or take --to {said}"
        )
    return said


def require(name: str) -> None:
    """Refuses a format whose packages are not installed.

    Raises:
        NotInstalled: With what to type.
    """
    if absent := missing(*FORMATS[name].packages):
        raise NotInstalled(f"{name} needs {', '.join(absent)}: {install(absent[0])}")


@contextmanager
def quiet() -> Iterator[None]:
    """Exporters tell of what they do inside; what comes out is verified, and an error is told as one."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)

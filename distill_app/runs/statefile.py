"""One file of tensors and plain types: written whole or not at all, verified, read without running code."""

import hashlib
import json
import os
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import Tensor, nn

from distill_app.errors import CheckpointError, Unusable
from distill_app.runs.untrusted import damaged_member, open_regular, read_text, swells
from distill_app.words import unadvised

STATE, MANIFEST = "state.pt", "manifest.json"
_ATOMS = (type(None), bool, int, float, str)


def plain(state: Any, *, path: str = "state") -> Any:
    """Converts a state to what the weights-only loader takes: tensors, dicts, lists, tuples, numbers, text.

    NumPy scalars, paths and OmegaConf containers are converted, parameters detached. The module versions that
    a state dict carries along are kept.

    Raises:
        TypeError: Anything else, named by its path in the state.
    """
    if type(state) in _ATOMS:
        return state
    if isinstance(state, Tensor) and not hasattr(state, "full_tensor"):  # a part of one, as FSDP has them
        return state.detach()
    if isinstance(state, np.generic):
        item = state.item()
        if type(item) in _ATOMS:
            return item
    if isinstance(state, Path):
        return str(state)
    if isinstance(state, (DictConfig, ListConfig)):
        return plain(OmegaConf.to_container(state, resolve=True), path=path)
    if isinstance(state, Mapping):
        return _plain_mapping(state, path=path)
    if isinstance(state, (list, tuple)):
        items = [plain(value, path=f"{path}[{i}]") for i, value in enumerate(state)]
        return tuple(items) if isinstance(state, tuple) else items
    hint = "; use torch.from_numpy" if isinstance(state, np.ndarray) else ""
    kind = f"{type(state).__module__}.{type(state).__qualname__}"
    raise TypeError(f"{path} is a {kind}: a checkpoint holds tensors and plain types only{hint}")


def _plain_mapping(state: Mapping[Any, Any], *, path: str) -> dict[Any, Any]:
    for key in state:
        if type(key) not in (str, int):
            raise TypeError(f"{path} has the key {key!r} ({type(key).__name__}): keys are str or int")
    items = ((key, plain(value, path=f"{path}.{key}")) for key, value in state.items())
    versions = getattr(state, "_metadata", None)
    if versions is None:
        return dict(items)
    ordered = OrderedDict(items)
    ordered._metadata = plain(versions, path=f"{path}._metadata")  # type: ignore[attr-defined]
    return ordered


def save_weights(module: nn.Module, path: str | os.PathLike[str]) -> None:
    """Writes the state dict of the bare module atomically: no prefix of DDP, weight averaging or compile.

    Raises:
        CheckpointError: It could not be written; a file that was there is as it was.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_state(plain(clean_state_dict(module)), temporary)
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        raise CheckpointError(f"cannot save weights to {path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def clean_state_dict(module: nn.Module) -> dict[str, Tensor]:
    """The state dict with the names of the bare architecture, whatever wraps it or was compiled inside it."""
    wrappers = (
        nn.parallel.DistributedDataParallel,
        nn.DataParallel,
        torch.optim.swa_utils.AveragedModel,
    )
    while isinstance(module, wrappers) or hasattr(module, "_orig_mod"):
        module = module.module if isinstance(module, wrappers) else module._orig_mod  # type: ignore[assignment]
    state = module.state_dict()
    clean = OrderedDict((key.replace("_orig_mod.", ""), value) for key, value in state.items())
    versions = getattr(state, "_metadata", {})
    kept = {k.replace("_orig_mod.", "").removesuffix("._orig_mod"): v for k, v in versions.items()}
    clean._metadata = kept  # type: ignore[attr-defined]
    return clean


def weights_hash(module: nn.Module) -> str:
    """A hash of names, types, shapes and bytes of the state dict, whatever the device and memory layout."""
    hasher = hashlib.blake2b(digest_size=16)
    for name, value in sorted(clean_state_dict(module).items()):
        if isinstance(value, Tensor):
            value = value.detach().cpu().contiguous()
            hasher.update(f"{name} {value.dtype} {tuple(value.shape)};".encode())
            hasher.update(tensor_bytes(value))
    return hasher.hexdigest()


def tensor_bytes(tensor: Tensor) -> memoryview:
    """The bytes of a contiguous tensor on the host."""
    return tensor.reshape(-1).view(torch.uint8).numpy().data


def load_file(path: str | os.PathLike[str], *, map_location: str | torch.device = "cpu") -> dict[str, Any]:
    """Reads a state dict or checkpoint file, verified by the manifest where one lies beside it.

    Raises:
        CheckpointError: It is missing, damaged, or holds more than tensors and plain types.
    """
    path = Path(path)
    try:
        beside = path.name == STATE and path.with_name(MANIFEST).exists()
        return read_state(path, map_location=map_location, manifest=beside)
    except (Unusable, OSError) as error:
        text = error.strerror if isinstance(error, OSError) else None
        raise CheckpointError(f"cannot load {path}: {text or error}") from error


class _HashingFile:
    """A writer that computes sha256 of what was meant to be written, and remembers why writing failed."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.hash = file, hashlib.sha256()
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        self.hash.update(data)
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.file.flush()


def write_state(state: Any, path: Path, *, archive_checksums: bool = True) -> dict[str, Any]:
    with open(path, "wb") as file:
        writer = _HashingFile(file)
        try:
            with _archive_checksums(archive_checksums):
                torch.save(state, writer)  # type: ignore[arg-type]
        except RuntimeError:
            # torch answers a failed write with a complaint about positions in its archive.
            if writer.error is not None:
                raise writer.error from None
            raise
        file.flush()
        os.fsync(file.fileno())
        return {"sha256": writer.hash.hexdigest(), "size": file.tell()}


@contextmanager
def _archive_checksums(wanted: bool) -> Iterator[None]:
    """Whether torch.save computes checksums of its own: beside a manifest they are a fifth of the time for nothing."""
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(wanted)
    try:
        yield
    finally:
        torch.serialization.set_crc32_options(before)


def read_state(path: Path, *, map_location: str | torch.device, manifest: bool = True) -> dict[str, Any]:
    expected = path.with_name(MANIFEST)
    if manifest and path.parent.is_symlink():
        raise Unusable(f"{path.parent} is a symbolic link, which is not followed here")
    with open_regular(path) as file:
        if manifest:
            _verify(file, expected)
        if os.fstat(file.fileno()).st_size == 0:
            raise Unusable("the file is empty")
        if swells(file):
            raise Unusable("is a compressed archive, which no checkpoint is")
        if not manifest and (member := damaged_member(file)):
            raise Unusable(f"is damaged: {member} does not match its checksum")
        try:
            state = torch.load(file, map_location=map_location, weights_only=True)
        except Exception as error:
            why = f"{type(error).__name__}: {unadvised(error)[:200]}"
            raise Unusable(f"not a readable file of tensors and plain types ({why})") from None
    if not isinstance(state, dict):
        raise Unusable(f"holds a {type(state).__name__}, not a dict")
    return state


def _verify(file: BufferedIOBase, expected: Path) -> None:
    try:
        record = json.loads(read_text(expected))
        size, digest = int(record["size"]), str(record["sha256"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise Unusable(f"no readable manifest ({error})") from None
    actual = os.fstat(file.fileno()).st_size
    if actual != size:
        raise Unusable(f"{STATE} has {actual} bytes, its manifest says {size}")
    if hashlib.file_digest(file, "sha256").hexdigest() != digest:
        raise Unusable(f"{STATE} does not match the sha256 of its manifest")
    file.seek(0)


def sync_folder(folder: Path) -> None:
    # The name of a new file is safe only when its folder is on disk as well.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""Files of weights as other trainers write them: one state dict, alone or beside what else a trainer keeps.

Every file is untrusted input: tensors and plain types are read, and a file with any other object is refused. Nothing
in it is called but the constructors listed here, which do no more than hold values.
"""

import argparse
import collections
import datetime
import os
import pathlib
import pickletools
import re
import types
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from distill_app.errors import IrregularFile, WeightsError
from distill_app.runs.untrusted import open_regular, swells
from distill_app.words import some, unadvised, unknown

# Where trainers keep weights, the likelier first; averages only where nothing else is there or they are asked for.
NESTS = ("state_dict", "model_state_dict", "model", "net", "network", "module", "weights", "params")
AVERAGES = ("model_ema", "state_dict_ema", "ema_state_dict", "ema_model", "params_ema", "ema")
_DEEPEST = 3  # how many dicts lie around a state dict
_CLASS_IN_ERROR = re.compile(r"GLOBAL ([\w.]+)")
_UNTRUSTED = "which is not loaded because unpickling it could run code"


def read_weights(path: Path, *, key: str, names: Iterable[str], choice: str | None = None) -> tuple[dict, list[str]]:
    """The state dict in a file.

    Args:
        path: A file of torch.save, or of safetensors whatever its suffix.
        key: The config key of the network, for messages.
        names: What the network's own tensors are called: of several state dicts those count that have such names.
        choice: `checkpoint_key`: the dotted place of a state dict in the file, or of a part of one.

    Returns:
        The state dict, an OrderedDict with the version notes of modules where the file has them; and what was chosen
        or left out, for the log.

    Raises:
        WeightsError: The file is damaged, holds other objects than plain data, or no such state dict.
    """
    content = _content(path, key=key)
    found = dict(_states(content)) if isinstance(content, Mapping) else {}
    if not found:
        kind = f"a dict of {some(content)}" if isinstance(content, Mapping) else f"a {type(content).__name__}"
        raise WeightsError(f"{key}.checkpoint: {path} holds {kind}; allowed: a state dict, alone or within a dict")
    notes = []
    if choice is not None:
        place, state = choice, _chosen(found, choice, source=f"{key}.checkpoint_key", path=path)
    else:
        place, others = _default(found, set(names))
        state = found[place]
        if others:
            notes.append(f"of {', '.join([place, *others])} the weights under {place!r}; checkpoint_key chooses")
        elif place:
            notes.append(f"the weights under {place!r}")
    left = [name for name, value in state.items() if not isinstance(value, Tensor)]
    if left:
        notes.append(f"without {some(left)}, which are no tensors")
    return _tensors(state), notes


def _tensors(state: Mapping[str, Any]) -> dict[str, Tensor]:
    kept = collections.OrderedDict((name, value) for name, value in state.items() if isinstance(value, Tensor))
    if (versions := getattr(state, "_metadata", None)) is not None:
        kept._metadata = versions  # type: ignore[attr-defined]
    return kept


def _states(content: Mapping[Any, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every dict of a nest that has text as keys and tensors among its values, with its dotted place."""
    if not all(isinstance(name, str) for name in content):
        return
    if any(isinstance(value, Tensor) for value in content.values()):
        yield ".".join(path), content
    for name, value in content.items():
        if isinstance(value, Mapping) and len(path) < _DEEPEST:
            yield from _states(value, (*path, name))


def _default(found: Mapping[str, Mapping[str, Any]], own: set[str]) -> tuple[str, list[str]]:
    """The place of the weights, and the other places that hold as fitting ones."""
    share = {place: _explained(state, own) for place, state in found.items()}
    fitting = [place for place in found if share[place] >= 0.9 * max(share.values())]
    fitting.sort(key=_rank)
    return fitting[0], fitting[1:]


def _explained(state: Mapping[str, Any], own: set[str]) -> int:
    """How many of the network's names a state dict has, behind whatever prefix."""
    ends = {".".join(name.split(".")[start:]) for name in state for start in range(name.count(".") + 1)}
    return len(own & ends)


def _rank(place: str) -> int:
    """Weights come before what is unknown, that before averages."""
    words = set(place.split("."))
    if words & set(AVERAGES):
        return len(NESTS) + 1
    return min((NESTS.index(word) for word in words if word in NESTS), default=len(NESTS))


def _chosen(found: Mapping[str, Mapping[str, Any]], choice: str, *, source: str, path: Path) -> Mapping[str, Any]:
    """The state dict at a place, the only one below it, or the part of one whose names begin with the rest."""
    if choice in found:
        return found[choice]
    below = [place for place in found if place.startswith(f"{choice}.")]
    if below:
        return found[min(below, key=_rank)]
    for place, state in found.items():
        rest = choice.removeprefix(f"{place}.") if place else choice
        part = {name.removeprefix(f"{rest}."): value for name, value in state.items() if name.startswith(f"{rest}.")}
        if part:
            return part
    parts = [place for place in found if place] or sorted({name.split(".")[0] for name in found[""]})
    raise WeightsError(f"{source}: {unknown('place', choice, parts)} in {path}")


def _content(path: Path, *, key: str) -> Any:
    """All that is in a file."""
    try:
        with open_regular(path, links=True) as file, torch.serialization.safe_globals(plain_types()):
            if _is_safetensors(file):
                from safetensors.torch import load_file

                return load_file(path)
            if swells(file):
                raise WeightsError(
                    f"{key}.checkpoint: {path} is compressed, so that a small file may hold any size, which "
                    f"torch.save never does; unpack it, and save the weights with torch.save"
                )
            return torch.load(file, weights_only=True, map_location="cpu")
    except WeightsError:
        raise
    except IrregularFile as error:
        raise WeightsError(f"{key}.checkpoint: {error}") from error
    except OSError as error:
        raise WeightsError(f"{key}.checkpoint: {path} cannot be read ({error})") from error
    except Exception as error:  # a damaged or hostile file can fail in any part of the unpickler
        raise WeightsError(f"{key}.checkpoint: {path} {_refusal(path, error)}") from None


def _is_safetensors(file: BinaryIO) -> bool:
    """By its first bytes, the length of a header in JSON: such files are found under every suffix."""
    start = file.read(9)
    file.seek(0)
    size = os.fstat(file.fileno()).st_size
    return len(start) == 9 and start[8:] == b"{" and int.from_bytes(start[:8], "little") <= size


def _refusal(path: Path, error: Exception) -> str:
    """Why a file is not loaded, with the class of the object that stands in the way, and what to do."""
    text = str(error)
    if "TorchScript" in text:
        return "is a TorchScript program, not weights; save the state dict of the network it was made from"
    objects = _objects_in(path)
    named = _CLASS_IN_ERROR.search(text)
    strange = next(iter(objects), "") or (named[1] if named else "")
    if any(name.startswith("torch.nn.modules.") for name in objects):
        own = next((name for name in objects if not name.startswith("torch.")), strange)
        return (
            f"holds a whole network (of class {own}), {_UNTRUSTED}; if you trust the file, save its weights where the "
            f"class can be imported: torch.save(torch.load(FILE, weights_only=False).state_dict(), NEW_FILE)"
        )
    if strange:
        return (
            f"holds an object of class {strange}, {_UNTRUSTED}; save the weights alone, torch.save(net.state_dict(), "
            f"FILE); if you trust the file, take them out once: "
            f"torch.save(torch.load(FILE, weights_only=False)[KEY], NEW_FILE)"
        )
    return f"is damaged, or no file of weights ({type(error).__name__}: {unadvised(error)[:120]})"


def _objects_in(path: Path) -> list[str]:
    """The classes and functions that unpickling a file would look up and that are not loaded; nothing is run."""
    known = {name for entry in plain_types() for name in [entry[1] if isinstance(entry, tuple) else _full_name(entry)]}
    found: dict[str, None] = {}
    with suppress(Exception):  # behind its pickles a file of the old format has bare numbers
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
                with archive.open(name) as file:
                    _look_up(file, found)
        else:
            with open(path, "rb") as file:
                while True:
                    _look_up(file, found)
    harmless = ("torch._utils.", "torch.nn.parameter.", "collections.", "_codecs.encode", "torch.storage.")
    tensors = {f"torch.{name}" for name in dir(torch) if name.endswith("Storage") or name in ("Size", "device")}
    dtypes = {f"torch.{name}" for name in dir(torch) if isinstance(getattr(torch, name), torch.dtype)}
    return [name for name in found if name not in known | tensors | dtypes and not name.startswith(harmless)]


def _look_up(file: Any, found: dict[str, None]) -> None:
    """Adds what one pickle looks up, in order."""
    texts: list[str] = []
    for operation, argument, _ in pickletools.genops(file):
        if operation.name == "GLOBAL":
            found[_today(str(argument).replace(" ", "."))] = None
        elif operation.name == "STACK_GLOBAL" and len(texts) > 1:
            found[".".join(texts[-2:])] = None
        if isinstance(argument, str):
            texts.append(argument)


def _today(name: str) -> str:
    """torch writes the names of Python 2."""
    return {"__builtin__.long": "builtins.int"}.get(name, name.replace("__builtin__.", "builtins."))


@cache
def plain_types() -> list[Any]:
    """What may be constructed beside tensors: types that only hold values, as trainers keep them beside weights."""
    scalar, array = np.float64(0).__reduce__()[0], np.zeros(1).__reduce__()[0]
    numbers = [
        getattr(np.dtypes, name) for name in dir(np.dtypes) if name.endswith("DType") and not name.startswith("Object")
    ]
    # Of whichever system the file is from: a path that is never opened.
    paths = [
        (pure, f"{module}.{name}")
        for module in ("pathlib", "pathlib._local")
        for pure, names in (
            (pathlib.PurePosixPath, ("PosixPath", "PurePosixPath", "Path", "PurePath")),
            (pathlib.PureWindowsPath, ("WindowsPath", "PureWindowsPath")),
        )
        for name in names
    ]
    return [
        argparse.Namespace,
        types.SimpleNamespace,
        (_without_default, "collections.defaultdict"),
        *(getattr(datetime, name) for name in ("datetime", "date", "time", "timedelta", "timezone")),
        *((kind, f"builtins.{kind.__name__}") for kind in (dict, list, int, float, str, bool, tuple, frozenset)),
        *paths,
        (_number_type, "numpy.dtype"),
        np.ndarray,
        *numbers,
        *((scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
        *((array, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
    ]


def _without_default(*arguments: Any) -> collections.OrderedDict:
    """What a defaultdict is read as: torch's unpickler fills no other kinds of dict."""
    return collections.OrderedDict()


def _number_type(*arguments: Any) -> np.dtype:
    """numpy.dtype, but for arrays of objects."""
    made = np.dtype(*arguments)
    if made.hasobject:
        raise TypeError("an array of objects")
    return made


def _full_name(kind: Any) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"

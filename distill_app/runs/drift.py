"""What is different now from when a run was made: its code, packages, machine, data and files of weights."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from distill_app.runs.files import read_object, to_json
from distill_app.runs.records import environment, git_state
from distill_app.runs.starts import WEIGHTS, named_files, start_of
from distill_app.runs.untrusted import read_text
from distill_app.words import some

_MACHINE = {
    "machine": "architecture",
    "cpu": "processor",
    "gpus": "GPUs",
    "cuda": "CUDA",
    "cudnn": "cuDNN",
    "threads": "threads",
    "interop_threads": "threads between operators",
}
# Those of the recorded variables that decide how numbers are computed, where `threads` does not say it.
_VARIABLES = (
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "CUBLAS_WORKSPACE_CONFIG",
    "PYTHONHASHSEED",
    "WORLD_SIZE",
)


def drift(folder: Path, *, config: Mapping[str, Any], data: Mapping[str, Any]) -> Iterator[str]:
    """Yields, in words, what may keep a run from being the same again; and which of its records cannot be read.

    Args:
        folder: Of the run as it was made.
        config: The resolved config with which it runs again; the process is set up for it.
        data: What its stages see now.
    """
    for name in ("git.json", "env.json", "data.json"):
        then = read_object(folder / name)
        if then is None:
            what = "cannot be read" if (folder / name).exists() else "is missing"
            yield f"{folder / name} {what}, so what it says of then cannot be compared"
        elif name == "git.json":
            yield from _code(folder, then)
        elif name == "env.json":
            yield from _environment(then, _plain(environment(OmegaConf.create(dict(config)))))
        else:
            yield from _data(then, _plain(data))
    yield from _weights(folder, config)


def _plain(value: Any) -> Any:
    """A value as it would be read again."""
    return json.loads(to_json(value))


def _then_now(what: str, then: Any, now: Any) -> str:
    return f"{what}: {_shown(then)} then, {_shown(now)} now"


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)


def _code(folder: Path, then: Mapping[str, Any]) -> Iterator[str]:
    now, diff = git_state()
    if then.get("commit") is None:
        yield f"code: which it was then is not recorded ({then.get('reason') or 'no commit'})"
        return
    if then["commit"] != now["commit"]:
        yield _then_now("code, commit", str(then["commit"])[:12], str(now["commit"] or "none")[:12])
    try:
        before = read_text(folder / "git.diff") if (folder / "git.diff").exists() else ""
    except (OSError, ValueError):
        yield f"code: {folder / 'git.diff'} cannot be read, so changes that were not committed cannot be compared"
        return
    if before != diff:
        states = ["some" if text else "none" for text in (before, diff)]
        others = "others then than now" if before and diff else f"{states[0]} then, {states[1]} now"
        yield f"code, changes that are not committed: {others} (git.diff)"
    if then.get("diff_truncated") or now.get("diff_truncated"):
        yield "code: changes that are not committed were too many to be recorded in full"
    unknown = [_untracked(state) for state in (then, now)]
    if unknown[0] != unknown[1]:
        yield _then_now("code, files that git does not know", *(some(sorted(files)) or "none" for files in unknown))


def _untracked(state: Mapping[str, Any]) -> set[str]:
    """Files of code and config that are not recorded, since git does not know them."""
    changed = state.get("changed")
    lines = [str(line) for line in changed] if isinstance(changed, list) else []
    return {line[3:] for line in lines if line.startswith("?? ") and line.endswith((".py", ".yaml", "/"))}


def _environment(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    versions = [str(each.get("python") or "none").split()[0] for each in (then, now)]
    if versions[0] != versions[1]:
        yield _then_now("Python", *versions)
    yield from _packages(then, now)
    for key, name in _MACHINE.items():
        if key in then and then[key] != now.get(key):
            yield _then_now(name, then[key], now.get(key))
    for key, names in (("determinism", _mapping(now, "determinism")), ("variables", _VARIABLES)):
        before, after = _mapping(then, key), _mapping(now, key)
        for name in names:
            if before.get(name) != after.get(name):
                yield _then_now(name, before.get(name), after.get(name))


def _mapping(record: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """A part of a record that anybody may have written; empty where it is none."""
    value = record.get(key)
    return value if isinstance(value, Mapping) else {}


def _packages(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Versions that changed: those that figures stand on one by one, the others in a line."""
    before, after = _mapping(then, "packages"), _mapping(now, "packages")
    changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    leading = _mapping(now, "versions")
    for name in (name for name in changed if name in leading):
        yield _then_now(name, before.get(name), after.get(name))
    if rest := [name for name in changed if name not in leading]:
        yield f"other packages: {some(f'{name} {before.get(name)} then, {after.get(name)} now' for name in rest)}"


def _data(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for stage in {**then, **now}:
        before, after = then.get(stage), now.get(stage)
        if not isinstance(before, Mapping) or not isinstance(after, Mapping):
            yield f"data of stage {stage}: recorded {'now' if before is None else 'then'} alone"
            continue
        for key in {**before, **after}:
            if before.get(key) != after.get(key):
                yield f"data of stage {stage}, {_difference(key, before.get(key), after.get(key))}"


def _difference(key: str, then: Any, now: Any) -> str:
    """A difference in the identity of data; of lists only what differs."""
    if not isinstance(then, list) or not isinstance(now, list):
        return _then_now(key.replace("_", " "), then, now)
    gone, new = [each for each in then if each not in now], [each for each in now if each not in then]
    if key != "classes":
        places = [n for n, (a, b) in enumerate(zip(then, now, strict=False)) if a != b]
        return f"{key.replace('_', ' ')}: others at {some(places)}" if places else _then_now(key, len(then), len(now))
    told = [f"{some(gone)} gone"] * bool(gone) + [f"{some(new)} new"] * bool(new)
    return f"classes: {', '.join(told) or 'their order is another'}"


def _weights(folder: Path, config: Mapping[str, Any]) -> Iterator[str]:
    then = read_object(folder / WEIGHTS)
    for key, file in named_files(config):
        entry = (then or {}).get(key)
        if not isinstance(entry, Mapping):
            yield f"{key}: {file}; of then nothing is recorded ({folder / WEIGHTS})"
        elif entry.get("sha256") != start_of(file)["sha256"]:
            yield f"{key}: {file} has other content than then"

"""What makes an experiment: which keys of a config are settings, and in which of them configs differ.

Works on resolved configs as plain containers, also on those that somebody else has written.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

# The one list of keys that may differ from start to start of the same run, each with its reason; all below a key count.
NEUTRAL = {
    "launcher": "where a run is carried out",
    "dry_run": "a run is none",
    "runtime.device": "numbers differ by rounding alone, and an interrupted run may go on elsewhere",
    "runtime.num_workers": "batches do not depend on who loads them",
    "runtime.threads": "of one process, by the machine",
    "runtime.parallel": "where frozen weights lie; the same numbers",
    "runtime.compare_ranks_every": "looking changes no weight",
    "runtime.rank_timeout_s": "a limit",
    "runtime.log_every": "how often the log speaks",
    "runtime.keep_checkpoints": "what checkpoint.keep was called",
    "checkpoint": "when a run is saved, and how much of it is left over",
    "tracker": "where the log is shown besides",
    "runtime.tensorboard": "what tracker was called",
    "runtime.gradient_norms_every": "what the log tells beside losses; looking changes no weight",
    "runtime.allow": "whom the user trusts",
    "cache.folder": "a place; what is found there is known by its fingerprint",
    "cache.max_gb": "a limit",
    "cache.reuse": "a place; refused where something else lies there",
    "benchmark": "which published figures are shown; what it sets stands where it is set",
    "maps": "as benchmark",
    "setting@method": "as benchmark",
    "dataset.get": "what to type when data are not there",
    "method.about": "what is told of it",
    "prelude.about": "as that",
    "eval_batch_size": "the same figures",  # as the next one
    "resident": "the same batches, bit for bit",  # of every data set, wherever it stands in the config
}
_ABSENT = "null"
_EMPTY = ("null", "{}", "[]")
_MOST = 50_000


@dataclass(frozen=True)
class Change:
    """A setting in which two configs differ, both values as text."""

    key: str
    old: str
    new: str

    def __str__(self) -> str:
        # The name of a method or network stands for all of it, and is typed without .name.
        return f"{self.key.removesuffix('.name')}: {self.old} -> {self.new}"


def settings_of(config: Mapping[str, Any]) -> dict[str, str]:
    """All settings of a resolved config, key to value as text; lists count as one value.

    What is null or empty is left out, so that keys which a later version adds make no other experiment of an old one.
    """
    # Cut off: in a file of somebody else's, a few references to references make millions of keys.
    leaves = islice(_leaves(config, ""), _MOST)
    return {key: value for key, value in leaves if value not in _EMPTY and not is_neutral(key)}


def empties_of(config: Mapping[str, Any]) -> dict[str, str]:
    """The settings that are null or empty, which `settings_of` leaves out, key to value as text."""
    leaves = islice(_leaves(config, ""), _MOST)
    return {key: value for key, value in leaves if value in _EMPTY and not is_neutral(key)}


def fingerprint(config: Mapping[str, Any]) -> str:
    """A short hash of all settings but the seed: runs that share it may be averaged."""
    settings = settings_of(config)
    settings.pop("seed", None)
    return hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=3).hexdigest()


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    """The settings in which two resolved configs differ, those that follow from another one left out."""
    before, after = settings_of(old), settings_of(new)
    keys = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    values = {key: (before.get(key, _ABSENT), after.get(key, _ABSENT)) for key in keys}
    return [Change(key, *values[key]) for key in leading(values)]


def leading(values: Mapping[str, Sequence[str]]) -> list[str]:
    """The keys among those that differ from config to config from which the others follow.

    Whoever types `stage.lr` or `method=at` changes more keys than one. A key follows from a shorter one that ends alike
    and has the same values everywhere, and all of a method, network or target from its name.

    Args:
        values: Key -> its value in each config.
    """
    shortest = sorted(values, key=lambda key: (key.count("."), len(key), key))
    names = [key for key in shortest if key.rpartition(".")[2] in ("name", "_target_")]
    kept: list[str] = []
    for position, key in enumerate(shortest):
        owners = {name.rpartition(".")[0] for name in names if name != key}
        below_other = any(owner and key.startswith(f"{owner}.") for owner in owners)
        if not below_other and not any(_follows(key, other, values) for other in shortest[:position]):
            kept.append(key)
    return kept


def _follows(key: str, other: str, values: Mapping[str, Sequence[str]]) -> bool:
    ends = [each.rpartition(".")[2] for each in (key, other)]
    alike = ends[0].endswith(ends[1]) or ends[1].endswith(ends[0])
    return alike and tuple(values[key]) == tuple(values[other])


def listed(found: Iterable[Change], *, most: int = 12) -> str:
    """Changes as indented lines; a long list is cut."""
    found = list(found)
    lines = [f"  {change}" for change in found[:most]]
    return "\n".join([*lines, *([f"  and {len(found) - most} more"] if len(found) > most else [])])


def is_neutral(key: str) -> bool:
    """Whether a key, or one above it, may differ from start to start of the same run."""
    parts = key.split(".")
    prefixes = {".".join(parts[:end]) for end in range(1, len(parts) + 1)}
    return bool(prefixes & NEUTRAL.keys()) or parts[-1] in NEUTRAL


def _leaves(value: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for name, item in value.items():
            yield from _leaves(item, f"{key}.{name}" if key else str(name))
    else:
        yield key, _text(value)


def _text(value: Any) -> str:
    """A value as one would type it; 0.1 and 1e-1, or 1 and 1.0, are the same."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return value if isinstance(value, str) else json.dumps(value, default=str)

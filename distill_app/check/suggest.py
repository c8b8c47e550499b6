"""What to type in the place of a key that is not there: the one line that works, where there is one. No torch."""

import difflib
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from omegaconf import DictConfig

from distill_app.config.groups import groups, options_of
from distill_app.config.tree import mount_line
from distill_app.words import unknown

# What other programs call it: what our keys end in.
SYNONYMS = {
    "learning_rate": "lr",
    "wd": "weight_decay",
    "bs": "batch_size",
    "batch": "batch_size",
    "workers": "num_workers",
    "keep_checkpoints": "keep",
    "gpu": "device",
    "tau": "temperature",
    "ckpt": "checkpoint",
    "data_dir": "root",
    "data_path": "root",
}
MOST = 3  # lines in one message


def typed(line: str) -> str:
    """An override as it is typed in a shell, in quotes."""
    quoted = shlex.quote(line)
    return quoted if quoted != line else f"'{line}'"


@dataclass(frozen=True)
class Suggestions:
    """A composed config in which to look for what was meant.

    Args:
        cfg: The config.
        mounts: Its options by group and place, {"model@teacher": "resnet50"}; nothing where they are not known.
        config_dirs: Folders with config of the user's own.
    """

    cfg: DictConfig
    mounts: Mapping[str, str] = field(default_factory=dict)
    config_dirs: tuple[str, ...] = ()

    @cached_property
    def keys(self) -> list[str]:
        """All keys of the config."""
        return list(_keys(self.cfg, ""))

    @cached_property
    def groups(self) -> list[str]:
        """All config groups."""
        return groups(self.config_dirs)

    def hint(self, key: str, value: str) -> str:
        """`; write '...'` for what was meant by `key=value`, nothing where that cannot be known."""
        lines = [typed(line) for line in self.lines(key, value)]
        return f"; write {' or '.join(lines)}" if lines else ""

    def lines(self, key: str, value: str) -> list[str]:
        """The overrides that may have been meant, at most three, for a key that is not there or is no plain value."""
        if key in self.groups:
            return self._mounted(key, value)
        if line := self.mounted(key, value):
            return [line]
        return self._beside(key, value) or self._same_ending(key, value) or self._same_option(key, value)

    def mounted(self, key: str, value: str) -> str | None:
        """The override that chooses the option `value` of the group that belongs at `key`, if there is one."""
        line = mount_line(key, value, mounts=self.mounts or None, config_dirs=self.config_dirs)
        new = line is not None and line.startswith("+") and line.partition("@")[2].partition("=")[0]
        return None if line == f"{key}={value}" or (new and new not in self.keys) else line

    def key(self, key: str) -> str:
        """The words for a key that is not there, with its nearest match."""
        group, at, _ = key.partition("@")
        known = [f"{group}@{each}" for each in self.keys] if at else self.keys
        return unknown("key", key, known).split(" (there are")[0]

    def _mounted(self, group: str, value: str) -> list[str]:
        """A group typed as a key: where it is mounted, of the method's places first."""
        places = [mount for mount in self.mounts if mount.split("@")[0] == group]
        known = options_of(group, self.config_dirs)
        near = [name for each in value.split(",") for name in _nearest(each, known)]
        if not near:
            return []
        own = [place for place in places if "@prelude." not in place] or places
        return [f"{place}={','.join(near)}" for place in sorted(own, reverse=True)][:MOST]

    def _beside(self, key: str, value: str) -> list[str]:
        """A key in the same section that is nearly the same."""
        section, dot, last = key.rpartition(".")
        there = [each.rpartition(".")[2] for each in self.keys if each.rpartition(".")[0] == section]
        near = difflib.get_close_matches(last, there, n=1, cutoff=0.85) if dot else []
        return [f"{section}.{name}={value}" for name in near]

    def _same_ending(self, key: str, value: str) -> list[str]:
        """Keys that end as this one, those first that have more of its parts, then the shortest."""
        *parts, last = key.split(".")
        endings = {each.rpartition(".")[2] for each in self.keys}
        last = last if last in endings else SYNONYMS.get(last, last)
        # optimizer.weight_decay, model.teacher.checkpoint: of a group's name its places count
        places = [mount.partition("@")[2] for mount in self.mounts if mount.split("@")[0] in parts]
        found = [each for each in self.keys if each.rpartition(".")[2] == last and each != key]

        def rank(each: str) -> tuple[int, int, bool]:
            inside = any(each.startswith(f"{place}.") for place in places if place)
            return -len(set(parts) & set(each.split("."))) - inside, each.count("."), each.startswith("prelude.")

        least = min(map(rank, found), default=(0, 0, False))
        best = [each for each in found if rank(each) == least]
        if parts and least[0] == 0 and len(best) > 1:
            return []  # nothing but the ending is the same
        return [self.mounted(each, value) or f"{each}={value}" for each in best][:MOST]

    def _same_option(self, key: str, value: str) -> list[str]:
        """Where a value of this name could be chosen, whatever the key was meant to be."""
        offered = [mount for mount in self.mounts if self._offers(mount.split("@")[0], value)]
        mounts = [mount for mount in sorted(offered, reverse=True) if "@prelude." not in mount]
        named = [mount for mount in mounts if mount.rpartition("@")[2].split(".")[-1] in key]
        return [f"{mount}={value}" for mount in named or mounts][:MOST]

    def _offers(self, group: str, value: str) -> bool:
        return group in self.groups and set(value.split(",")) <= set(options_of(group, self.config_dirs))


def _nearest(name: str, known: Sequence[str]) -> list[str]:
    return [name] if name in known else difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)


def _keys(node: Any, prefix: str) -> Iterator[str]:
    if isinstance(node, DictConfig) and not (node._is_none() or node._is_missing() or node._is_interpolation()):
        for name in node:
            path = f"{prefix}.{name!s}" if prefix else str(name)
            yield path
            yield from _keys(node._get_node(name), path)

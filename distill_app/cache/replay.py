"""The teacher cache in a stage: frozen networks are run on a batch once, and from then on their rows are read.

What a stage gets is always what the stored row says, also in the batch that fills it: so neither an interruption nor
another run that fills the same rows changes a loss.
"""

import os
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

from distill_app.cache.codec import Codec, codec_of, uncached
from distill_app.cache.fingerprint import base_samples
from distill_app.cache.folders import Folders
from distill_app.cache.layout import Layout, room_of
from distill_app.cache.leaves import leaves, nested, nesting, refuse_varying
from distill_app.cache.notes import cache_notes
from distill_app.cache.store import Records, TapStore, tap_folder
from distill_app.cache.waiting import Waiting
from distill_app.config.cached import cached_taps, temperature_of
from distill_app.config.plan import StagePlan
from distill_app.config.schema import AppConf, CacheConf
from distill_app.data.looks import sizes_behind
from distill_app.data.stage_data import StageData
from distill_app.errors import CacheError
from distill_app.networks.network import Network
from distill_app.networks.run import Namespace
from distill_app.networks.taps import Tap, shapes_in
from distill_app.words import size_text, warn

_VIEWS = 4  # in which sizes are looked at


@dataclass
class _Tap:
    """A tensor of a tap: how it is stored and, once the weights are known, where."""

    codec: Codec
    layout: Layout
    store: TapStore | None = field(default=None)


@dataclass
class Found:
    """What the cache has of a batch: network -> tensor of a tap -> records."""

    view: int = 0
    rows: np.ndarray = field(default_factory=lambda: np.arange(0))
    records: dict[str, dict[str, Records]] = field(default_factory=dict)

    @property
    def whole(self) -> set[str]:
        """The networks that need not run: all rows of all their taps are there."""
        taps_of = self.records.items()
        return {name for name, taps in taps_of if all(records.arrays is not None for records in taps.values())}


class StageCache:
    """Stands between a stage and the networks that it does not train.

    Args:
        plan: The stage.
        app: The experiment.
        networks: By name.
        examples: An example activation of every tap that is read, and of `batch`.
        data: The samples.
        device: Where activations go.

    Raises:
        CacheError: A tap that cannot be cached, or more bytes than `cache.max_gb`.
    """

    def __init__(
        self,
        plan: StagePlan,
        *,
        app: AppConf,
        networks: Mapping[str, Network],
        examples: Namespace,
        data: StageData,
        device: torch.device,
    ):
        self._plan, self._app, self._networks, self._data, self._device = plan, app, networks, data, device
        self._conf: CacheConf = app.cache
        self._folders = Folders(plan, app, networks, data)
        self._waiting: list[Waiting] = []
        self._opened = False
        # Rows are those of the whole data set; a stage with fewer labels leaves holes between them.
        samples, views = len(base_samples(data).dataset), data.order.views or 1
        self._sparse = len(data.indices) < samples / 2
        count = len(examples["batch"]["index"])
        self._taps: dict[str, dict[str, _Tap]] = {}  # network -> tensor of a tap, by its address
        self._nestings: dict[str, dict[str, Any]] = {}  # network -> tap -> how its tensors lie in each other
        wanted = cached_taps(plan, app.cache)
        if wanted:
            self._refuse_sizes(views)
        for name, taps in wanted.items():
            self._nestings[name] = {tap: nesting(tap, examples[name][tap]) for tap in taps}
            self._taps[name] = {}
            for tap in taps:
                self._refuse_regions(name, tap)
                for leaf, example in (leaves(tap, examples[name][tap]) or {tap: None}).items():
                    codec = codec_of(
                        f"{name}.{leaf}",
                        example,
                        count=count,
                        classes=data.task.class_logits(leaf),
                        top_k=app.cache.top_k,
                        temperature=temperature_of(plan, name, tap),
                    )
                    self._taps[name][leaf] = _Tap(codec, Layout(views, samples, codec.arrays))
        self._refuse_too_large()

    def _refuse_sizes(self, views: int) -> None:
        task, samples = self._data.task, base_samples(self._data)
        problem = task.varies(samples.dataset)
        if problem is None and task.collate is not default_collate:  # which takes images of one size alone
            problem = task.sizes_vary(sizes_behind(samples, views=min(views, _VIEWS)))
        if problem is not None:
            raise CacheError(f"cache.enabled: {problem}; or set cache.enabled=false")

    def _refuse_regions(self, name: str, tap: str) -> None:
        network = self._networks[name]
        path = Tap.parse(tap, network.paths([tap])[tap]).path
        if (problem := self._data.task.rows_vary(network.module, path)) is not None:
            raise uncached(f"{name}.{tap}", problem)

    @property
    def _shapes(self) -> dict[str, dict[str, tuple[int, ...]]]:
        """Of the tensors of one sample."""
        return {
            name: {leaf: (of.codec.rows, *of.codec.shape) for leaf, of in taps.items()}
            for name, taps in self._taps.items()
        }

    def refuse_varying(self, say: Callable[[], Namespace]) -> None:
        """Refuses taps whose rows are not those of samples, before the first batch.

        Args:
            say: Gives what the networks say of one sample in the place of several.

        Raises:
            CacheError: There is such a tap.
        """
        if self._taps:
            refuse_varying(say(), nestings=self._nestings, shapes=self._shapes)

    @property
    def bytes(self) -> int:
        """What the stage takes on the disk, all taps together."""
        return sum(self._room(of) for taps in self._taps.values() for of in taps.values())

    def _room(self, of: _Tap, *, taken: bool = True) -> int:
        return room_of(of.layout, self._data.indices, sparse=self._sparse, taken=taken)

    def _refuse_too_large(self) -> None:
        if self.bytes > self._conf.max_gb * 1e9:
            raise CacheError(
                f"cache.max_gb: stage {self._plan.name!r} would fill {size_text(self.bytes)}, allowed are "
                f"{self._conf.max_gb:g} GB ({'; '.join(self.describe())}); lower cache.views, set cache.top_k for "
                f"logits, list in cache.taps what is worth it, or raise cache.max_gb"
            )

    def describe(self) -> list[str]:
        """A line for each tap: how much it takes; and for what of the config does nothing here, or not quite."""
        stages = {**self._app.prelude.stages, **self._app.method.stages}.values()
        adapters = {name: conf for stage in stages for name, conf in stage.adapters.items() if conf is not None}
        sources = {name: conf.source for name, conf in adapters.items()}
        classes = self._data.task.class_logits
        lines = cache_notes(self._plan, self._conf, sources=sources, is_logits=lambda tap: classes(tap) is not None)
        for name, taps in self._taps.items():
            for tap, of in taps.items():
                samples, layout, room = len(self._data.indices), of.layout, self._room(of)
                size = samples * layout.views * layout.row_bytes
                apart = f" ({size_text(room)} on the disk, with the room between them)" if room > 1.1 * size else ""
                rows = f"{samples:,} samples x {layout.views:,} views x {layout.row_bytes:,} bytes"
                lines.append(f"cache {name}.{tap}: {rows} = {size_text(size)}{apart}")
        return lines

    def open(self) -> list[str]:
        """Finds or makes the folders; the weights of the networks must be those of the training by now.

        Returns:
            What to tell the user; nothing when it was open already.

        Raises:
            CacheError: `cache.reuse` holds something else, there is no room, or what is there cannot be read.
        """
        if self._opened:
            return []
        notes: list[str] = []
        try:
            self._open(notes)
        except OSError as error:
            key = "reuse" if self._conf.reuse else "folder"
            raise CacheError(f"cache.{key}: cannot be used: {error}") from error
        self._require_room()
        self._opened = True
        return notes

    def _open(self, notes: list[str]) -> None:
        for name, taps in self._taps.items():
            folder, name_of_parts = self._folders.open(name, notes)
            for tap, of in taps.items():
                spec = self._networks[name].taps.get(tap.partition(".")[0], "")
                inside = tap_folder(tap, spec=[spec, of.codec.temperature], layout=of.layout)
                about = {"tap": tap, "spec": spec, "top_k": of.codec.top_k, "temperature": of.codec.temperature}
                salt = f"{name_of_parts}/{inside}"
                of.store = TapStore(folder / inside, layout=of.layout, salt=salt, about=about, sparse=self._sparse)
                rows = len(self._data.indices) * of.layout.views
                there = of.store.filled(self._data.indices)
                notes.append(f"cache {name}.{tap}: {there:,} of {rows:,} rows are in {of.store.folder}")

    def refuse_reuse(self, *, unknown: Collection[str] = ()) -> None:
        """Refuses a folder that cannot be reused, as soon as that is known.

        Args:
            unknown: Networks that will have other weights when the stage begins.

        Raises:
            CacheError: `cache.reuse` holds something else.
        """
        self._folders.refuse_reuse(self._taps, unknown=unknown)

    def _require_room(self) -> None:
        """Refuses to begin where a disk has less room than the rows that are not there will take."""
        needed: dict[int, float] = {}  # by disk
        for of in (tap for taps in self._taps.values() for tap in taps.values()):
            assert of.store is not None
            if not of.store.writable:
                continue
            folder, rows = of.store.folder, len(self._data.indices) * of.layout.views
            missing = 1 - of.store.filled(self._data.indices) / rows
            disk = os.stat(folder).st_dev
            needed[disk] = needed.get(disk, 0.0) + missing * self._room(of, taken=False)
            if (free := shutil.disk_usage(folder).free) < needed[disk]:
                raise CacheError(
                    f"cache.folder: {folder.parent} lies on a disk with {size_text(free)} left, and "
                    f"{size_text(needed[disk])} are to be filled; choose another cache.folder, lower cache.views, or "
                    f"set cache.top_k"
                )

    def find(self, batch: Mapping[str, Any]) -> "Found":
        """Looks up what there is of a batch.

        Args:
            batch: With `view`, and `rows` in the underlying data set, as the loaders attach them.
        """
        if not self._taps:
            return Found()
        self.flush()
        view, rows = batch["view"], batch["rows"]
        return Found(view, rows, {name: self._read(name, view, rows) for name in self._taps})

    def merge(self, found: "Found", computed: Namespace) -> Namespace:
        """What the rows say, in the place of what was computed; rows that are missing are stored on the way.

        Args:
            found: What `find` gave of the batch.
            computed: The taps of the networks that `found.whole` does not name.
        """
        values = dict(computed)
        for name, taps in found.records.items():
            if name in found.whole:
                stored = {tap: self._decoded(name, tap, records) for tap, records in taps.items()}
            else:
                own = values[name]
                said = {leaf: each for tap in self._nestings[name] for leaf, each in leaves(tap, own[tap]).items()}
                stored = {
                    tap: self._filled(name, tap, said.get(tap), found, good=records.good)
                    for tap, records in taps.items()
                }
            values[name] = {tap: nested(shape, stored) for tap, shape in self._nestings[name].items()}
        return values

    def _read(self, name: str, view: int, rows: np.ndarray) -> dict[str, Records]:
        found = {}
        for tap, of in self._taps[name].items():
            assert of.store is not None
            found[tap] = of.store.read(view, rows)
            if found[tap].damaged:
                warn(f"cache: {found[tap].damaged} damaged rows in {of.store.folder} are computed again")
        return found

    def _decoded(self, name: str, tap: str, records: Records) -> Tensor:
        arrays = {}
        for key, array in (records.arrays or {}).items():
            tensor = torch.from_numpy(array.astype(np.int32) if key == "indices" else array)
            if self._device.type == "cuda":
                tensor = tensor.pin_memory()
            arrays[key] = tensor.to(self._device, non_blocking=True)
        return self._taps[name][tap].codec.decode(arrays)

    def _filled(self, name: str, tap: str, value: Any, found: "Found", *, good: np.ndarray) -> Tensor:
        """Stores what is missing and returns what reading it would give."""
        of, view, rows = self._taps[name][tap], found.view, found.rows
        if (shape := shapes_in(value)) != (expected := (len(rows) * of.codec.rows, *of.codec.shape)):
            raise CacheError(
                f"cache.taps: {name}.{tap} is {shape or 'not there'} here, not {expected} as the first images were; "
                f"only taps of one size can be cached: {self._padding}list others in cache.taps, or set "
                f"cache.enabled=false"
            )
        arrays = of.codec.encode(value)
        if of.store is not None and of.store.writable and not good.all():
            self._waiting.append(Waiting.of(of.store, view, rows, ~good, arrays))
            if self._device.type != "cuda":
                self.flush()
        return of.codec.decode(arrays)

    @property
    def _padding(self) -> str:
        if not hasattr(self._data.task, "pad_to"):
            return ""
        return "set dataset.task.pad_to to a side that no image exceeds behind the transforms, "

    def flush(self) -> None:
        """Writes what has arrived from the GPU since."""
        waiting, self._waiting = self._waiting, []
        for item in waiting:
            if item.arrived is not None:
                item.arrived.synchronize()
            arrays = {key: tensor.numpy()[item.missing] for key, tensor in item.arrays.items()}
            try:
                item.store.write(item.view, item.rows[item.missing], arrays)
            except OSError as error:
                warn(f"cache: nothing more is written to {item.store.folder}: {error}")
                item.store.close()

    def close(self) -> None:
        """Writes what is left and gives the files back."""
        self.flush()
        for taps in self._taps.values():
            for tap in taps.values():
                if tap.store is not None:
                    tap.store.close()

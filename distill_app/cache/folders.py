"""Where the answers of a network lie: in a folder by the fingerprint of what they depend on, or in `cache.reuse`."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill_app.cache.fingerprint import fingerprint, nearest
from distill_app.cache.store import KIND, META, differences, digest, read_meta
from distill_app.config.plan import StagePlan
from distill_app.config.schema import AppConf
from distill_app.data.stage_data import StageData
from distill_app.errors import CacheError
from distill_app.networks.network import Network
from distill_app.runs.files import write_json


@dataclass(frozen=True)
class Folders:
    """The folders of the networks that a stage does not train.

    Attributes:
        plan: The stage.
        app: The experiment.
        networks: By name.
        data: The samples.
    """

    plan: StagePlan
    app: AppConf
    networks: Mapping[str, Network]
    data: StageData

    def open(self, name: str, notes: list[str]) -> tuple[Path, str]:
        """Finds or makes the folder of a network, whose weights must be those of the training by now.

        Args:
            name: The network.
            notes: Gets what to tell the user.

        Returns:
            The folder, and the digest of the fingerprint.

        Raises:
            CacheError: `cache.reuse` holds something else.
        """
        parts = self._parts(name)
        name_of_parts = digest(parts)
        if (reuse := self._reused(name, parts)) is not None:
            return reuse, name_of_parts
        folder = Path(self.app.cache.folder) / name_of_parts
        if read_meta(folder) is None:
            notes += nearest(folder.parent, name, parts)
            folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / META, {"kind": KIND, "network": name, "fingerprint": name_of_parts, "parts": parts})
        return folder, name_of_parts

    def refuse_reuse(self, names: Iterable[str], *, unknown: Collection[str] = ()) -> None:
        """Refuses a folder that cannot be reused, as soon as that is known.

        Args:
            names: The networks.
            unknown: Those that will have other weights when the stage begins.

        Raises:
            CacheError: `cache.reuse` holds something else.
        """
        for name in names if self.app.cache.reuse else ():
            self._reused(name, self._parts(name), weights=name not in unknown)

    def _parts(self, name: str) -> dict[str, Any]:
        return fingerprint(self.networks[name], plan=self.plan, app=self.app, data=self.data)

    def _reused(self, name: str, parts: dict[str, Any], *, weights: bool = True) -> Path | None:
        """The folder of `cache.reuse` if it is of this network; refused if the other parts are not these."""
        reuse = Path(self.app.cache.reuse) if self.app.cache.reuse else None
        there = read_meta(reuse) if reuse is not None else None
        if there is None or there.get("network") != name:
            return None
        differing = differences(parts, there.get("parts"))
        if differing := [text for text in differing if weights or not text.startswith("network.weights:")]:
            raise CacheError(
                f"cache.reuse: {reuse} was filled from something else: {'; '.join(differing)}. Make these the same, "
                f"or leave cache.reuse out to fill another one"
            )
        return reuse

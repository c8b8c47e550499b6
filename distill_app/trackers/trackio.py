"""Trackio: a local data base that `trackio show` opens, or a space on a hub."""

from collections.abc import Mapping
from typing import Any

from distill_app.extras import require
from distill_app.runs.naming import RunFacts
from distill_app.runs.outlets import Outlet
from distill_app.runs.scalars import scalars_of


class Trackio(Outlet):
    """A run of trackio for each run: scalars and config; a resumed run goes on with the same one.

    Args:
        project: Where runs lie.
        space: The space of a hub that they are sent to; None: the data base of this machine (TRACKIO_DIR).

    Raises:
        NotInstalled: Its package is not installed.
    """

    def __init__(self, *, project: str = "distill", space: str | None = None):
        require("trackio")
        self._project, self._space = project, space
        self._run: Any = None

    def open(self, run: RunFacts, *, identity: str | None) -> str:
        import trackio

        self._run = trackio.init(
            project=self._project,
            name=identity or run.name,
            group=run.group,
            space_id=self._space,
            config={"settings": dict(run.settings), "folder": str(run.folder)},
            resume="never" if identity is None else "allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
        return str(self._run.name)

    def add(self, record: Mapping[str, Any]) -> None:
        by_step: dict[int, dict[str, float]] = {}
        for tag, value, x in scalars_of(record):
            by_step.setdefault(x, {})[tag] = value
        for x, values in by_step.items():
            self._run.log(values, step=x)

    def close(self, *, state: str) -> None:
        self._run.finish()

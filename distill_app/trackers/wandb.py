"""Weights and Biases, on a server or offline."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distill_app.extras import require
from distill_app.runs.naming import RunFacts
from distill_app.runs.outlets import Outlet
from distill_app.runs.scalars import scalars_of

_MODES = (None, "online", "offline", "disabled", "shared")


class WandB(Outlet):
    """A run of wandb for each run: scalars, sample images, config; a resumed run goes on with the same one.

    The x axis of a figure is its own step or epoch (`define_metric`), so that nothing is out of order.

    Args:
        project: Where runs lie.
        entity: Whose project it is; None: as wandb is set up.
        mode: online, offline (files in the run's folder, for `wandb sync`) or disabled; None: as WANDB_MODE says.
        tags: Of the run.
        images: How many sample images of each stage it shows; 0: none.

    Raises:
        NotInstalled: Its package is not installed.
        ValueError: Another mode.
    """

    def __init__(
        self,
        *,
        project: str = "distill",
        entity: str | None = None,
        mode: str | None = None,
        tags: list[str] | None = None,
        images: int = 16,
    ):
        require("wandb")
        if mode not in _MODES:
            raise ValueError(f"mode is {mode!r}; allowed are {', '.join(str(each) for each in _MODES[1:])}, or null")
        self._project, self._entity, self._mode, self._tags = project, entity, mode, tags or []
        self.images = images
        self._run: Any = None
        self._known: set[str] = set()

    def open(self, run: RunFacts, *, identity: str | None) -> str:
        import wandb

        self._run = wandb.init(
            project=self._project,
            entity=self._entity,
            mode=self._mode,  # type: ignore[arg-type]  # one of _MODES
            name=run.name,
            group=run.group,
            tags=self._tags,
            config={**run.config, "settings": dict(run.settings)},
            dir=str(run.folder),
            id=identity,
            resume="allow",
            reinit="create_new",  # points of a sweep follow each other in one process
            settings=wandb.Settings(console="off", silent=True, save_code=False),
        )
        self._known = set()
        return str(self._run.id)

    def add(self, record: Mapping[str, Any]) -> None:
        kind, stage = record.get("kind"), record.get("stage")
        found = list(scalars_of(record))
        values = {tag: value for tag, value, _ in found}
        if kind == "test":
            self._run.summary.update(values)
            return
        axis = f"{stage}/epoch/at" if kind == "epoch" else f"{stage}/at"
        for tag in values.keys() - self._known:
            self._run.define_metric(tag, step_metric=axis)
        self._known |= values.keys()
        self._run.log({**values, axis: next((x for _, _, x in found), 0)})

    def picture(self, name: str, file: Path) -> None:
        import wandb

        self._run.log({f"samples/{name}": wandb.Image(str(file))})

    def close(self, *, state: str) -> None:
        self._run.finish(exit_code=0 if state in ("done", "preempted") else 1)

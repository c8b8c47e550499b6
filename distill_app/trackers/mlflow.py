"""MLflow, on a server or in a local store."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distill_app.extras import require
from distill_app.runs.naming import RunFacts
from distill_app.runs.outlets import Outlet
from distill_app.runs.scalars import scalars_of

_BATCH = 500  # metrics that are sent at once; the server takes 1000
_LONGEST = 500  # of a parameter
_ENDS = {"done": "FINISHED", "preempted": "KILLED"}


class MLflow(Outlet):
    """A run of MLflow for each run: metrics, settings as parameters, sample images and the config as artifacts.

    Args:
        uri: Of the server, or `sqlite:////path/mlflow.db`; None: as MLFLOW_TRACKING_URI says.
        experiment: Where runs lie; made where it is not there.
        tags: Of the run.
        images: How many sample images of each stage it shows; 0: none.

    Raises:
        NotInstalled: Its package is not installed.
    """

    def __init__(
        self,
        *,
        uri: str | None = None,
        experiment: str = "distill",
        tags: dict[str, str] | None = None,
        images: int = 16,
    ):
        require("mlflow")
        self._uri, self._experiment, self._tags, self.images = uri, experiment, tags or {}, images
        self._client: Any = None
        self._id = ""
        self._waiting: list[Any] = []

    def open(self, run: RunFacts, *, identity: str | None) -> str:
        from mlflow import MlflowClient
        from mlflow.entities import Param

        self._client, self._waiting = MlflowClient(tracking_uri=self._uri), []
        if identity is not None:
            self._id = identity
            self._client.update_run(self._id, status="RUNNING")
            return self._id
        found = self._client.get_experiment_by_name(self._experiment)
        place = found.experiment_id if found is not None else self._client.create_experiment(self._experiment)
        tags = {**self._tags, "group": run.group, "folder": str(run.folder)}
        self._id = str(self._client.create_run(place, run_name=run.name, tags=tags).info.run_id)
        parameters = [Param(_plain(key), value[:_LONGEST]) for key, value in run.settings.items()]
        self._client.log_batch(self._id, params=parameters[:100])
        self._client.log_dict(self._id, dict(run.config), "config.yaml")
        return self._id

    def add(self, record: Mapping[str, Any]) -> None:
        from mlflow.entities import Metric

        moment = (record.get("timing") or {}).get("time") or time.time()
        self._waiting += [Metric(_plain(tag), value, int(1000 * moment), x) for tag, value, x in scalars_of(record)]
        if len(self._waiting) >= _BATCH:
            self.flush()

    def picture(self, name: str, file: Path) -> None:
        self._client.log_artifact(self._id, str(file), artifact_path="samples")

    def flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        for first in range(0, len(waiting), _BATCH):
            self._client.log_batch(self._id, metrics=waiting[first : first + _BATCH])

    def close(self, *, state: str) -> None:
        self.flush()
        self._client.set_terminated(self._id, status=_ENDS.get(state, "FAILED"))


def _plain(name: str) -> str:
    """A name of the signs that MLflow takes."""
    return "".join(sign if sign.isalnum() or sign in "_-. :/" else "_" for sign in name)

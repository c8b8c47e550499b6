"""TensorBoard: a second form of `metrics.jsonl`, made of its records alone."""

import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from distill_app.words import warn

FOLDER = "tensorboard"
_NAME = "events.out.tfevents"


class Scalars:
    """The event files of a run, written record by record, without a thread that others would have to mind.

    A disk that takes no more ends it with a warning: a resumed run makes them anew.

    Args:
        folder: Of the run.
    """

    def __init__(self, folder: Path):
        self._folder = folder / FOLDER
        self._file: Any = None
        self._given_up = False

    def add(self, record: Mapping[str, Any]) -> None:
        """Writes a record."""
        moment = (record.get("timing") or {}).get("time") or time.time()
        for tag, value, x in scalars_of(record):
            self._try(partial(self._write, _event(tag, value, x, moment=moment)))

    def rebuild(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Writes all anew: a run that was killed leaves events of steps that it takes again."""
        self.close()
        for file in self._folder.glob(f"{_NAME}.*"):
            file.unlink(missing_ok=True)
        for record in records:
            with suppress(KeyError, TypeError):  # of an earlier version, or of somebody else
                self.add(record)
        self.flush()

    def flush(self) -> None:
        """Brings what there is to the disk."""
        if self._file is not None:
            self._try(self._file.flush)

    def close(self) -> None:
        """Ends the file; a further record begins another one."""
        if self._file is not None:
            file, self._file = self._file, None
            self._try(file.close)

    def _write(self, event: bytes) -> None:
        self._open().write(event)

    def _open(self) -> Any:
        if self._file is None:
            # Imported here: it takes a second, and runs without TensorBoard need not pay for it.
            from tensorboard.compat.proto.event_pb2 import Event
            from tensorboard.summary.writer.record_writer import RecordWriter

            self._folder.mkdir(parents=True, exist_ok=True)
            name = f"{_NAME}.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
            self._file = RecordWriter(open(self._folder / name, "wb"))  # noqa: SIM115
            self._file.write(Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())
        return self._file

    def _try(self, action: Callable[[], object]) -> None:
        if self._given_up:
            return
        try:
            action()
        except OSError as error:
            self._given_up, self._file = True, None
            warn(f"{self._folder}: nothing more is written ({error.strerror or error}); metrics.jsonl has it all")


def _event(tag: str, value: float, x: int, *, moment: float) -> bytes:
    from tensorboard.compat.proto.event_pb2 import Event
    from torch.utils.tensorboard.summary import scalar

    written: bytes = Event(wall_time=moment, step=x, summary=scalar(tag, value)).SerializeToString()
    return written


def scalars_of(record: Mapping[str, Any]) -> Iterator[tuple[str, float, int]]:
    """Tag, value and place on the x axis of everything in a record that is a number."""
    kind, stage, timing = record.get("kind"), record.get("stage"), record.get("timing") or {}
    clock = {name: timing[name] for name in timing if name != "time"}
    prefix: Any = stage
    if kind == "step":
        x = record["epoch"] * record["steps_per_epoch"] + record["step"]
        values = {"lr": record["lr"], "loss": record["total"], **clock}
        values |= {f"loss/{name}": value for name, value in record["losses"].items()}
        values |= {f"gradient_norm/{name}": value for name, value in record.get("gradient_norms", {}).items()}
    elif kind == "epoch":
        prefix, x, values = f"{stage}/epoch", record["epoch"], {**record["metrics"], **clock}
    else:
        prefix, x, values = f"test/{record.get('name', '')}", 0, {**record, **clock}
    for name, value in values.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{prefix}/{name}", value, x

"""TensorBoard: event files in the run's folder, a second form of `metrics.jsonl`."""

import os
import re
import socket
import struct
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from distill_app.runs.metrics import ABOUT
from distill_app.runs.naming import RunFacts
from distill_app.runs.outlets import Outlet
from distill_app.runs.samples import pictures
from distill_app.runs.scalars import scalars_of

FOLDER = "tensorboard"
_NAME = "events.out.tfevents"


class TensorBoard(Outlet):
    """`tensorboard --logdir outputs`: scalars, sample images, and settings with the final figures (hparams).

    The files are written without a thread that others would have to mind, in a folder that is named after method and
    overrides: TensorBoard calls runs by their folders. They are made anew at every start, since a run that was killed
    leaves events of steps that it takes again.

    Args:
        images: How many sample images of each stage it shows; 0: none.
        hparams: Whether the settings of a finished run stand beside its figures in a table.
    """

    anew = True

    def __init__(self, *, images: int = 16, hparams: bool = True):
        self.images, self._hparams = images, hparams
        self._file: Any = None
        self._run: RunFacts | None = None
        self._place = Path()
        self._results: dict[str, float] = {}

    def open(self, run: RunFacts, *, identity: str | None) -> None:
        self._end()
        self._run, self._results = run, {}
        for file in (run.folder / FOLDER).glob(f"**/{_NAME}.*"):
            file.unlink(missing_ok=True)
        for folder in sorted((run.folder / FOLDER).glob("**/"), reverse=True):
            if not any(folder.iterdir()):
                folder.rmdir()
        self._place = run.folder / FOLDER / (re.sub(r"[^\w.=,+@() -]", "_", run.name) or "run")
        for name, file in pictures(run.folder).items():
            self.picture(name, file)

    def add(self, record: Mapping[str, Any]) -> None:
        moment = (record.get("timing") or {}).get("time") or time.time()
        for tag, value, x in _known_scalars(record):
            self._write(_scalar(tag, value), step=x, moment=moment)
            if record.get("kind") == "test" and tag.rpartition("/")[2] not in ABOUT:
                self._results[tag] = value

    def picture(self, name: str, file: Path) -> None:
        self._write(_image(f"samples/{name}", file.read_bytes()), step=0, moment=file.stat().st_mtime)

    def flush(self) -> None:
        if self._file is not None:
            self._file.flush()

    def close(self, *, state: str) -> None:
        if state == "done" and self._hparams and self._results and self._run is not None:
            for summary in _hparams(self._run.settings, self._results):
                self._write(summary, step=0, moment=time.time())
        self._end()

    def _end(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            file.close()

    def _write(self, summary: Any, *, step: int, moment: float) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        event = Event(wall_time=moment, step=step, summary=summary)
        self._open().write(event.SerializeToString())

    def _open(self) -> Any:
        if self._file is None:
            # Imported here: it takes a second, and runs without TensorBoard need not pay for it.
            from tensorboard.compat.proto.event_pb2 import Event
            from tensorboard.summary.writer.record_writer import RecordWriter

            self._place.mkdir(parents=True, exist_ok=True)
            name = f"{_NAME}.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
            self._file = RecordWriter(open(self._place / name, "wb"))  # noqa: SIM115
            self._file.write(Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())
        return self._file


def _known_scalars(record: Mapping[str, Any]) -> Iterator[tuple[str, float, int]]:
    try:
        yield from scalars_of(record)
    except (KeyError, TypeError):  # of an earlier version, or of somebody else
        return


def _scalar(tag: str, value: float) -> Any:
    from torch.utils.tensorboard.summary import scalar

    return scalar(tag, value)


def _image(tag: str, png: bytes) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary

    width, height = struct.unpack(">II", png[16:24])
    image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=png)
    return Summary(value=[Summary.Value(tag=tag, image=image)])


def _hparams(settings: Mapping[str, str], results: Mapping[str, float]) -> tuple[Any, Any, Any]:
    from torch.utils.tensorboard.summary import hparams

    summaries: tuple[Any, Any, Any] = hparams({key: _typed(value) for key, value in settings.items()}, dict(results))
    return summaries


def _typed(text: str) -> bool | float | str:
    """A setting as a number where it is one, so that TensorBoard sorts by it."""
    if text in ("true", "false"):
        return text == "true"
    try:
        return float(text)
    except ValueError:
        return text

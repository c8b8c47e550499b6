"""TensorBoard: a second form of `metrics.jsonl`, made of its records alone."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

FOLDER = "tensorboard"


class Scalars:
    """The event files of a run, written record by record.

    Args:
        folder: Of the run.
    """

    def __init__(self, folder: Path):
        self._folder = folder / FOLDER
        self._writer: Any = None

    def add(self, record: Mapping[str, Any]) -> None:
        """Writes a record."""
        timing = record.get("timing") or {}
        for tag, value, x in scalars_of(record):
            self._open().add_scalar(tag, value, x, walltime=timing.get("time"))

    def rebuild(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Writes all anew: a run that was killed leaves events of steps that it takes again."""
        self.close()
        for file in self._folder.glob("events.out.tfevents.*"):
            file.unlink(missing_ok=True)
        for record in records:
            with suppress(KeyError, TypeError):  # of an earlier version, or of somebody else
                self.add(record)
        self.flush()

    def flush(self) -> None:
        """Brings what there is to the disk."""
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        """Ends the file; a further record begins another one."""
        if self._writer is not None:
            writer, self._writer = self._writer, None
            with suppress(OSError):  # a full disk was told where results were lost; these can be made again
                writer.close()

    def _open(self) -> Any:
        if self._writer is None:
            # Imported here: it takes a second, and runs without TensorBoard need not pay for it.
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self._folder), flush_secs=600)
        return self._writer


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

"""What a run says while it works: console, progress bar, train.log, metrics.jsonl, trackers. Rank 0 only.

`metrics.jsonl` is the source of truth: one object per line with `kind` (step, epoch, test), `stage`, `epoch`,
`step`. What depends on the clock lies under `timing`, so that without it two equal runs have equal records. TensorBoard
and other trackers (`runs.outlets`) get the same records.
"""

import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from distill_app.runs.files import finite
from distill_app.runs.journal import METRICS, Journal, JournalFile
from distill_app.runs.lines import CLOCK, WIDTH, duration, epoch_line, figure, in_line, leading_of
from distill_app.runs.live import LiveStage, on_terminal
from distill_app.runs.metrics import Metric
from distill_app.runs.outlets import Outlet, Outlets
from distill_app.runs.samples import place_of, place_of_answers, write_answers, write_samples
from distill_app.runs.status import Status


class Tracker:
    """Writes the log and the metrics of a run, and shows its progress.

    Epochs and steps are counted from 0, as everywhere in the code, and shown from 1. With `enabled=False`
    (every rank but the first) all methods do nothing. `progress=None` shows a bar when stderr is a terminal;
    without a bar there is a line per epoch, and in long epochs one in every `line_every` seconds.

    What cannot be written to train.log is lost and ends nothing; metrics.jsonl is what results are made of, and a full
    disk under it is an error.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike[str],
        *,
        outlets: Mapping[str, Outlet] | None = None,
        enabled: bool = True,
        progress: bool | None = None,
        line_every: float = 60.0,
    ) -> None:
        self.folder = Path(output_dir)
        self.enabled = enabled
        self._progress = on_terminal() if progress is None else progress
        self._line_every, self._line_at = line_every, time.monotonic()
        self._begun, self._first, self._count, self._values = self._line_at, 0, 0, ""
        self._outlets = Outlets(self.folder, (outlets or {}) if enabled else {})
        self._live: LiveStage | None = None
        self._best: float | None = None  # of the stage's leading metric
        self._epochs_over: list[Mapping[str, Any]] = []  # records of epochs before this process began
        self._stage, self._epochs, self._steps = "", 0, 0
        self._metrics_of_stage: list[Metric] = []
        if enabled:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._log = open(self.folder / "train.log", "a", encoding="utf-8", buffering=1)  # noqa: SIM115
            self._metrics = JournalFile(self.folder / METRICS)

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def count(self) -> int:
        """How many records there are, as far as this process knows."""
        return self._metrics.count if self.enabled else 0

    def info(self, text: str) -> None:
        """Says something on the console and in train.log."""
        self._say(text, level="INFO", stream="stdout")

    def warning(self, text: str) -> None:
        """Says something that the user should act on, on stderr and in train.log."""
        self._say(f"warning: {text}", level="WARNING", stream="stderr")

    def note(self, text: str, *, level: str = "WARNING") -> None:
        """Says something in train.log alone."""
        if self.enabled:
            self._write_log(level, text)

    def start_stage(
        self,
        name: str,
        *,
        epochs: int,
        steps_per_epoch: int,
        first_epoch: int = 0,
        first_step: int = 0,
        metrics: Sequence[Metric] = (),
    ) -> None:
        """Begins a stage, or goes on with it after a resume, at a step of an epoch; `metrics` say how figures show."""
        if not self.enabled:
            return
        self._end_live()
        self._stage, self._epochs, self._steps = name, epochs, steps_per_epoch
        self._metrics_of_stage = list(metrics)
        resumed = f", from epoch {first_epoch + 1}" if first_epoch or first_step else ""
        resumed += f", step {first_step + 1}" if first_step else ""
        self.info(f"stage {name}: {epochs} epochs of {steps_per_epoch} steps{resumed}")
        self._begun, self._values = time.monotonic(), ""
        self._first = self._count = first_epoch * steps_per_epoch + first_step
        self._best = None
        for record in self._epochs_over:
            if record.get("stage") == name and isinstance(record.get("metrics"), Mapping):
                self._note_best(record["metrics"])
        if self._progress:
            self._live = LiveStage(name, epochs=epochs, steps=steps_per_epoch, done=self._first)
            self._show_best()

    def advance(self, n: int = 1) -> None:
        """Moves the progress bar; where there is none, says now and then how far the stage is."""
        self._count += n
        if self._live is not None:
            self._live.advance(n)
        elif self.enabled and time.monotonic() - self._line_at >= self._line_every:
            self._print(self._progress_line(), stream="stdout")

    def saving(self, why: str) -> None:
        """Says that the run is saved before it ends."""
        self.info(f"{why}: saving")
        if self._live is not None:
            self._live.word = "saving"
            self._live.draw()

    def _progress_line(self) -> str:
        total = self._epochs * self._steps
        epoch, step = divmod(self._count - 1, max(1, self._steps))
        left = (time.monotonic() - self._begun) / (self._count - self._first) * (total - self._count)
        where = f"{self._stage} epoch {epoch + 1}/{self._epochs} step {step + 1}/{self._steps}"
        return f"{where}  {self._values}  {duration(left)} left of the stage".replace("    ", "  ")

    def step(
        self,
        *,
        epoch: int,
        step: int,
        losses: Mapping[str, float],
        total: float,
        lr: float,
        images_per_second: float,
        data_wait: float,
        batch_size: int,
        gradient_norms: Mapping[str, float] | None = None,
    ) -> None:
        """Records one log point; `step` counts within the epoch, `losses` are the terms by name, before weighting.

        `data_wait` is the share of the time since the last log point for which the training waited for data,
        `gradient_norms` are those of the weighted terms where they were asked for.
        """
        if not self.enabled:
            return
        values = {"total": total, "losses": dict(losses), "lr": lr, "batch_size": batch_size}
        values["steps_per_epoch"] = self._steps
        if gradient_norms:
            values["gradient_norms"] = dict(gradient_norms)
        where = {"kind": "step", "stage": self._stage, "epoch": epoch, "step": step}
        self._record({**where, **values}, timing={"images_per_second": images_per_second, "data_wait": data_wait})
        terms = [f"{name} {value:.4g}" for name, value in {"loss": total, **losses}.items()]
        shown = [*terms, f"lr {lr:.3g}"]
        wait = f"data wait {100 * data_wait:.0f}%"
        self._values = line = f"{' '.join(shown)} {images_per_second:.0f} images/s, {wait}"
        self._write_log("INFO", f"{self._stage} epoch {epoch + 1} step {step + 1}/{self._steps}: {line}")
        if self._live is not None:
            self._live.values([*shown, wait], images_per_second=images_per_second)

    def epoch(
        self,
        *,
        stage: str,
        epoch: int,
        metrics: Mapping[str, Any],
        timing: Mapping[str, float] | None = None,
    ) -> None:
        """Records the losses and figures of an epoch; figures are shown as the stage's metrics say."""
        if not self.enabled:
            return
        clock = {key: metrics[key] for key in metrics if key in CLOCK} | dict(timing or {})
        values = {key: value for key, value in metrics.items() if key not in CLOCK}
        self._record({"kind": "epoch", "stage": stage, "epoch": epoch, "metrics": values}, timing=clock)
        shown = [
            figure(k, v, self._metrics_of_stage)
            for k, v in {**values, **clock}.items()
            if in_line(k, v, self._metrics_of_stage)
        ]
        head = f"{stage} epoch {epoch + 1}/{self._epochs}"
        self._write_log("INFO", "  ".join([head, *shown]))
        self._note_best(values)
        width = WIDTH if self._live is None else min(WIDTH, self._live.width)
        line = epoch_line(head, values, clock, metrics=self._metrics_of_stage, best=self._best, width=width)
        self._print(line, stream="stdout")
        self._show_best()
        self._outlets.flush()

    def _note_best(self, values: Mapping[str, Any]) -> None:
        """Keeps the best of the figure that decides."""
        leading = leading_of(self._metrics_of_stage, values)
        value = values.get(leading[0]) if leading is not None else None
        if leading is not None and isinstance(value, int | float) and leading[1].better(value, self._best):
            self._best = value

    def _show_best(self) -> None:
        if self._live is not None and self._best is not None:
            self._live.best = f"best {self._metrics_of_stage[0].text(self._best)}"
            self._live.draw()

    def final(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Records the test results, one row per network (the table itself is `report.summary_table`)."""
        if not self.enabled:
            return
        self._end_live()
        for row in rows:
            clock = {key: row[key] for key in row if key in CLOCK}
            values = {key: value for key, value in row.items() if key not in (*CLOCK, "details")}
            self._record({"kind": "test", **values}, timing=clock)

    @property
    def wants_images(self) -> int:
        """How many sample images of each stage its trackers would like to show."""
        return self._outlets.images

    def samples(self, stage: str, images: Callable[[int], Any]) -> None:
        """Keeps some images that a stage trains on, and hands them to the trackers; those that are there stay.

        Args:
            stage: Its name.
            images: Gives as many, uint8 (N, 3, H, W); None where there are none.
        """
        path = place_of(self.folder, stage)
        if not path.exists():
            self._picture(path, images, write_samples)

    def answers(self, stage: str, columns: Callable[[int], Mapping[str, Any]]) -> None:
        """Keeps what networks say of some images at the end of a stage, side by side, and hands it to the trackers.

        Args:
            stage: Its name.
            columns: Gives for as many images what stands above -> pictures, uint8 (3, H, W); empty without pictures.
        """
        self._picture(place_of_answers(self.folder, stage), columns, write_answers)

    def _picture(self, path: Path, content: Callable[[int], Any], write: Callable[[Path, Any], None]) -> None:
        if not self.wants_images:
            return
        self._open_outlets()
        found = content(self.wants_images)
        if found is None or (isinstance(found, Mapping) and not found):
            return
        try:
            write(path, found)
        except OSError as error:
            self.warning(f"{path} cannot be written ({error.strerror or error}); no number depends on it")
            return
        self._outlets.picture(path.stem, path)

    def rewind(self, keep: Callable[[dict[str, Any]], bool], *, expected: int | None = None) -> None:
        """Drops the records that a resumed run will write again, those for which `keep` is false, and damaged lines.

        Args:
            keep: Says of a record whether it stays.
            expected: How many there were when the run was saved; fewer are told.
        """
        if not self.enabled:
            return
        path = self.folder / METRICS
        journal = Journal.read(path)
        kept = [record for record in journal.records if keep(record)]
        if loss := Journal(kept, journal.damaged).loss(expected):
            self.warning(f"{path}: {loss}; what is lost stays out, and changes nothing else of the run")
        self._epochs_over = [record for record in kept if record.get("kind") == "epoch"]
        self._metrics.keep(kept)
        self._outlets.open(kept)

    def sync(self) -> None:
        """Brings the records to the disk."""
        if self.enabled:
            self._metrics.sync()

    def take_over(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Writes down the records of another run, whose numbers are this one's too."""
        for record in records if self.enabled else ():
            self._write_record(record)

    def close(self) -> None:
        """Ends the bar and closes the files; calling it again is harmless."""
        if not self.enabled:
            return
        self._end_live()
        self._outlets.close(state=str(Status(self.folder).read().get("state")))
        for file in (self._log, self._metrics):
            # What a full disk has not taken was told when it was written; here it would hide what went wrong.
            with suppress(OSError):
                file.close()
        self.enabled = False

    def _open_outlets(self) -> None:
        """Tells the outlets of the run before its first record, where nobody has rewound it."""
        if not self._outlets.opened:
            self._outlets.open(Journal.read(self.folder / METRICS).records)

    def _say(self, text: str, *, level: str, stream: str) -> None:
        if not self.enabled:
            return
        self._write_log(level, text)
        self._print(text, stream=stream)

    def _print(self, text: str, *, stream: str) -> None:
        self._line_at = time.monotonic()
        if self._live is not None:
            self._live.write(text, stream=stream)
        else:
            print(text, file=getattr(sys, stream), flush=True)

    def _write_log(self, level: str, text: str) -> None:
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        with suppress(OSError, ValueError):
            self._log.writelines(f"{stamp} {level} {line}\n" for line in text.splitlines() or [""])

    def _record(self, record: dict[str, Any], *, timing: Mapping[str, float]) -> None:
        notes: dict[str, str] = {}
        clean = finite(record, notes=notes)
        if notes:
            clean["nonfinite"] = notes
        clean["timing"] = {**timing, "time": round(time.time(), 3)}
        self._write_record(clean)

    def _write_record(self, record: Mapping[str, Any]) -> None:
        self._open_outlets()
        self._metrics.append(record)
        self._outlets.add(record)

    def _end_live(self) -> None:
        if self._live is not None:
            self._live.close()
            self._live = None

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

from tqdm import tqdm

from distill_app.runs.files import finite, write_text
from distill_app.runs.journal import METRICS, Journal, sealed_line
from distill_app.runs.metrics import Metric
from distill_app.runs.outlets import Outlet, Outlets
from distill_app.runs.samples import place_of, write_samples
from distill_app.runs.status import Status

_CLOCK = ("seconds", "images_per_second", "data_wait")


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
        on_terminal = sys.stderr is not None and sys.stderr.isatty()
        self._progress = on_terminal if progress is None else progress
        self._line_every, self._line_at = line_every, time.monotonic()
        self._begun, self._first, self._count, self._values = self._line_at, 0, 0, ""
        self._outlets = Outlets(self.folder, (outlets or {}) if enabled else {})
        self._bar: Any = None
        self._process = os.getpid()
        self.count = 0  # of the records
        self._stage, self._epochs, self._steps = "", 0, 0
        self._metrics_of_stage: list[Metric] = []
        if enabled:
            self.folder.mkdir(parents=True, exist_ok=True)
            _drop_partial_line(self.folder / METRICS)
            self._log = open(self.folder / "train.log", "a", encoding="utf-8", buffering=1)  # noqa: SIM115
            self._open_metrics()

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

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
        self._end_bar()
        self._stage, self._epochs, self._steps = name, epochs, steps_per_epoch
        self._metrics_of_stage = list(metrics)
        resumed = f", from epoch {first_epoch + 1}" if first_epoch or first_step else ""
        resumed += f", step {first_step + 1}" if first_step else ""
        self.info(f"stage {name}: {epochs} epochs of {steps_per_epoch} steps{resumed}")
        self._begun, self._values = time.monotonic(), ""
        self._first = self._count = first_epoch * steps_per_epoch + first_step
        if self._progress:
            self._bar = tqdm(
                total=epochs * steps_per_epoch,
                initial=self._first,
                desc=name,
                unit="step",
                dynamic_ncols=True,
                file=sys.stderr,
                leave=False,
            )

    def advance(self, n: int = 1) -> None:
        """Moves the progress bar; where there is none, says now and then how far the stage is."""
        self._count += n
        if self._bar is not None:
            self._bar.update(n)
        elif self.enabled and time.monotonic() - self._line_at >= self._line_every:
            self._print(self._progress_line(), stream="stdout")

    def saving(self, why: str) -> None:
        """Says that the run is saved before it ends."""
        self.info(f"{why}: saving")
        if self._bar is not None:
            self._bar.set_postfix_str("saving")

    def _progress_line(self) -> str:
        total = self._epochs * self._steps
        epoch, step = divmod(self._count - 1, max(1, self._steps))
        left = (time.monotonic() - self._begun) / (self._count - self._first) * (total - self._count)
        where = f"{self._stage} epoch {epoch + 1}/{self._epochs} step {step + 1}/{self._steps}"
        return f"{where}  {self._values}  {_duration(left)} left of the stage".replace("    ", "  ")

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
        terms = {"loss": total, **losses}
        shown = " ".join(f"{name} {value:.4g}" for name, value in terms.items())
        self._values = line = f"{shown} lr {lr:.3g} {images_per_second:.0f} images/s, data wait {100 * data_wait:.0f}%"
        self._write_log("INFO", f"{self._stage} epoch {epoch + 1} step {step + 1}/{self._steps}: {line}")
        if self._bar is not None:
            self._bar.set_postfix_str(f"epoch {epoch + 1}/{self._epochs} {line}", refresh=False)

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
        clock = {key: metrics[key] for key in metrics if key in _CLOCK} | dict(timing or {})
        values = {key: value for key, value in metrics.items() if key not in _CLOCK}
        self._record({"kind": "epoch", "stage": stage, "epoch": epoch, "metrics": values}, timing=clock)
        shown = "  ".join(
            self._show(key, value) for key, value in {**values, **clock}.items() if self._in_line(key, value)
        )
        self.info(f"{stage} epoch {epoch + 1}/{self._epochs}  {shown}")
        self._outlets.flush()

    def final(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Records the test results, one row per network (the table itself is `report.summary_table`)."""
        if not self.enabled:
            return
        for row in rows:
            clock = {key: row[key] for key in row if key in _CLOCK}
            values = {key: value for key, value in row.items() if key not in (*_CLOCK, "details")}
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
        if not self.wants_images or path.exists():
            return
        self._open_outlets()
        found = images(self.wants_images)
        if found is None:
            return
        try:
            write_samples(path, found)
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
        self._metrics.close()
        journal = Journal.read(path)
        kept = [record for record in journal.records if keep(record)]
        if loss := Journal(kept, journal.damaged).loss(expected):
            self.warning(f"{path}: {loss}; what is lost stays out, and changes nothing else of the run")
        self.count = len(kept)
        write_text(path, "".join(map(sealed_line, kept)))
        self._open_metrics()
        self._outlets.open(kept)

    def sync(self) -> None:
        """Brings the records to the disk."""
        if self.enabled:
            os.fsync(self._metrics.fileno())

    def take_over(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Writes down the records of another run, whose numbers are this one's too."""
        for record in records if self.enabled else ():
            self._write_record(record)

    def close(self) -> None:
        """Ends the bar and closes the files; calling it again is harmless."""
        if not self.enabled:
            return
        self._end_bar()
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

    def _open_metrics(self) -> None:
        self._metrics = open(  # noqa: SIM115
            self.folder / METRICS, "a", encoding="utf-8", buffering=1
        )

    def _say(self, text: str, *, level: str, stream: str) -> None:
        if not self.enabled:
            return
        self._write_log(level, text)
        self._print(text, stream=stream)

    def _print(self, text: str, *, stream: str) -> None:
        self._line_at = time.monotonic()
        # A forked process that loads data has a copy of the bar, and of a lock that nobody there will open.
        if self._bar is not None and os.getpid() == self._process:
            tqdm.write(text, file=getattr(sys, stream))
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
        self._metrics.write(sealed_line(record))
        self.count += 1
        self._outlets.add(record)

    def _show(self, key: str, value: Any) -> str:
        metric = self._metric_of(key)
        if value is None or not isinstance(value, float):
            return f"{key} {'-' if value is None else value}"
        if key == "data_wait":
            return f"{key} {100 * value:.2f}%"
        if key in _CLOCK:
            return f"{key} {value:.1f}"
        return f"{key} {value:.4g}" if metric is None else f"{key} {metric.text(value)}"

    def _metric_of(self, key: str) -> Metric | None:
        return next((each for each in self._metrics_of_stage if key.endswith(f"_{each.name}")), None)

    def _in_line(self, key: str, value: Any) -> bool:
        metric = self._metric_of(key)
        return not isinstance(value, list) and (metric is None or metric.line)

    def _end_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _duration(seconds: float) -> str:
    """A time to come, to two digits: 40 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _drop_partial_line(path: Path) -> None:
    # A killed process leaves half a line; the next record must not be glued to it.
    if path.exists():
        content = path.read_bytes()
        if content and not content.endswith(b"\n"):
            with open(path, "r+b") as file:
                file.truncate(content.rfind(b"\n") + 1)

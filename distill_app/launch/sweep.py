"""A sweep as the user sees it: what each point is, what became of it, and a table at the end.

Hydra's launchers (`hydra/launcher=joblib`) may run points in other processes; therefore what became of them stands in a
file in the sweep's folder.
"""

import gc
import json
import os
import sys
import traceback
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from hydra._internal.utils import get_args_parser
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from distill_app.config.schema import to_app
from distill_app.config.tree import compose
from distill_app.errors import ConfigError, DistillError, OtherExperiment, PointFailed, UsageError, explain
from distill_app.launch.grid import GRID, constant, grid, grid_of, overrides_of
from distill_app.launch.queue import GATHERED
from distill_app.runs.claim import difference, finished_summary, ways_out
from distill_app.runs.journal import Journal
from distill_app.runs.lifecycle import short_cause
from distill_app.runs.lost_points import SWEEP
from distill_app.runs.report import summary_table
from distill_app.runs.status import Status
from distill_app.words import warn

_LISTED = 5  # points of which a refusal says what differs


@dataclass(frozen=True)
class Point:
    """What became of one point."""

    sweep: str
    number: int  # counted from 0
    overrides: list[str]  # what makes it differ from the others
    folder: str
    state: str  # done, finished already, submitted, checked, refused, failed
    reason: str | None = None
    objective: float | None = None
    exit_code: int = 0


@dataclass
class Sweep:
    """One sweep. It is copied into the processes that run its points.

    Attributes:
        arguments: The command line.
        full: Whether errors are told with their tracebacks.
        identity: Tells its records from those of earlier sweeps in the same folder.
    """

    arguments: list[str]
    full: bool = False
    identity: str = field(default_factory=lambda: uuid.uuid4().hex)
    points: dict[int, Point] = field(default_factory=dict)  # those of this process
    told: dict[str, int] = field(default_factory=dict)  # errors -> the first point that had them

    def run(self, hydra: Any, work: Callable[[], Mapping[str, Any]]) -> Any:
        """Runs a point: says what it is, and what became of it.

        Args:
            hydra: Hydra's own config of the job.
            work: Carries it out and returns a summary.

        Returns:
            The objective, for sweepers that optimise.

        Raises:
            PointFailed: To sweepers that would take a missing value for one. A grid goes on.
        """
        typed: Any = OmegaConf.to_container(hydra.overrides.task, resolve=False)
        number, total = int(hydra.job.num), len(grid_of(hydra.sweeper, overrides_of(self.arguments)))
        varied, folder = self._varied(typed), str(hydra.runtime.output_dir)
        print(f"[{number + 1}{f'/{total}' if total else ''}] {' '.join(varied)}", flush=True)
        found, failure, objective = finished_summary(folder) is not None, None, None
        try:
            _refuse_to_look_for_the_worst(hydra.sweeper)
            summary = work()
            objective = _number(summary.get("objective"))
            if hydra.sweeper.get("_target_") != GRID and summary.get("judged_on") == "test":
                warn(
                    "the objective is judged on the test set, by which nothing should be chosen; hold images out: "
                    "dataset.validation_fraction=0.1"
                )
            state = _state(summary, found=found)
            code = int(state == GATHERED)  # until it is submitted
            point = Point(self.identity, number, varied, folder, state, objective=objective, exit_code=code)
        except Exception as error:
            point = failure = self._failed(error, number=number, varied=varied, folder=folder)
            _let_go(error)
        finally:
            _release()
        self._keep(point, sweep_dir=str(hydra.sweep.dir))
        if failure is not None and hydra.sweeper.get("_target_") != GRID:
            raise PointFailed(f"[{number + 1}] {' '.join(varied)}: {failure.reason}")
        return objective

    def settle(self, outcomes: Mapping[str, Mapping[str, Any] | Exception]) -> None:
        """Says what became of the points that were submitted together.

        Args:
            outcomes: Folder -> a summary, what is to say of the job, or why there is none.
        """
        for point in list(self.points.values()):
            found = outcomes.get(point.folder)
            if isinstance(found, Exception):
                kept = self._failed(found, number=point.number, varied=point.overrides, folder=point.folder)
            elif found is not None:
                objective = _number(found.get("objective"))
                kept = replace(point, state=_state(found, found=False), objective=objective, exit_code=0)
            else:
                continue
            self._keep(kept, sweep_dir=str(SweepFolder.last))

    def outcome(self) -> list[Point]:
        """What became of every point: those that other processes ran, and those that never ran, included."""
        found = dict(self.points)
        if SweepFolder.last is not None:
            for record in Journal.read(Path(SweepFolder.last) / SWEEP).records:
                if record.get("sweep") == self.identity:
                    with suppress(TypeError):
                        point = Point(**record)
                        found[point.number] = point
        for number, overrides in enumerate(SweepFolder.points if found else ()):
            if number not in found:
                varied = self._varied(overrides)
                found[number] = Point(self.identity, number, varied, "", "not run", exit_code=1)
        return [found[number] for number in sorted(found)]

    def refuse_taken(self) -> None:
        """Refuses a grid, before its first point, whose folder holds points of another one.

        Every point is refused by itself where another experiment lies in its folder; here the ones beside it are kept
        from running into the same folder. Other sweepers choose their points as they go.

        Raises:
            OtherExperiment: With the points, and what differs.
        """
        line, _ = get_args_parser().parse_known_args(self.arguments)
        hydra = [each.partition("=") for each in line.overrides if each.startswith("hydra")]
        typed = {key: value for key, _, value in hydra}
        place = typed.get("hydra.sweep.dir", "").strip("'\"")
        is_sweep = line.multirun or typed.get("hydra.mode") == "MULTIRUN"
        elsewhere = ("hydra/sweeper", "hydra.sweeper", "hydra.sweep.subdir", "hydra.job")
        if not is_sweep or not place or not Path(place).is_dir() or line.config_path or line.config_name:
            return
        if any(key.startswith(elsewhere) for key in typed):
            return
        clashes = []
        with suppress(HydraException, OmegaConfBaseException):
            for number, overrides in enumerate(grid(overrides_of(self.arguments))):
                folder = Path(place) / str(number)
                if folder.is_dir() and (told := _clash(folder, overrides, line.config_dir)):
                    clashes.append(f"[{number + 1}] {told}")
        if clashes:
            more = [f"and {len(clashes) - _LISTED} more points"] if len(clashes) > _LISTED else []
            end = f"nothing was touched. {ways_out(place, key='hydra.sweep.dir')}"
            raise OtherExperiment("\n".join([f"{place} holds another sweep", *clashes[:_LISTED], *more, end]))

    def _failed(self, error: Exception, *, number: int, varied: list[str], folder: str) -> Point:
        text, code = explain(error)
        state = "refused" if code == 2 else "failed"
        self._tell(error, text, number=number, word=state)
        reason = short_cause(error)
        if isinstance(error, ConfigError) and error.errors:
            reason = error.errors[0] + (f" (and {len(error.errors) - 1} more)" if len(error.errors) > 1 else "")
        elif isinstance(error, DistillError):
            reason = str(error).partition("\n")[0]
        if state == "refused" and not isinstance(error, OtherExperiment):
            _note_refusal(folder, reason=reason, overrides=varied)
        return Point(self.identity, number, varied, folder, state, reason=reason, exit_code=code)

    def _tell(self, error: Exception, text: str | None, *, number: int, word: str) -> None:
        if self.full or text is None:
            print(f"{word}:", file=sys.stderr)
            traceback.print_exception(error)
        elif text in self.told:
            print(f"{word}: the same as [{self.told[text] + 1}]", file=sys.stderr)
        else:
            self.told[text] = number
            print(f"{word}: {text}", file=sys.stderr)
        sys.stderr.flush()

    def _keep(self, point: Point, *, sweep_dir: str) -> None:
        self.points[point.number] = point
        # A full disk was told by what failed; the table of this process has the point all the same.
        with suppress(OSError), open(Path(sweep_dir) / SWEEP, "a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(point)) + "\n")  # one short write: lines of several processes do not mix

    def _varied(self, overrides: Sequence[str]) -> list[str]:
        """The overrides of a point that are not those of every point."""
        fixed = set(constant(overrides_of(self.arguments)))
        return [override for override in overrides if override not in fixed]


class SweepFolder(Callback):
    """Where Hydra puts a sweep, for the process that starts it: its points may run in others."""

    last: ClassVar[str | None] = None
    points: ClassVar[list[list[str]]] = []  # of a grid

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Called by Hydra, which hands out its config nowhere else in this process."""
        typed: Any = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)
        SweepFolder.last = str(config.hydra.sweep.dir)
        SweepFolder.points = grid_of(config.hydra.sweeper, typed)


def _refuse_to_look_for_the_worst(sweeper: Mapping[str, Any]) -> None:
    """Refuses a sweeper that optimises and takes objectives for costs, as Optuna's does by default.

    Raises:
        UsageError: It would find the worst point.
    """
    direction = getattr(sweeper.get("direction"), "name", sweeper.get("direction"))
    if direction is not None and direction != "maximize":
        raise UsageError(
            f"hydra.sweeper.direction is {direction}: the objective of a run is larger when better, so that this would "
            f"look for the worst one; type hydra/sweeper=search, or hydra.sweeper.direction=maximize"
        )


def table(points: Sequence[Point]) -> str:
    """The points of a sweep with what became of them; the objective is what they are to be compared by."""
    keys = list(dict.fromkeys(override.partition("=")[0] for point in points for override in point.overrides))
    rows = []
    for point in points:
        values = dict(override.partition("=")[::2] for override in point.overrides)
        state = point.state if point.reason is None else f"{point.state}: {_cut(point.reason)}"
        about = {"point": point.number + 1, "folder": _short(point.folder)}
        rows.append({**about, **values, "objective": point.objective, "state": state})
    return summary_table(rows, ("point", *keys, "objective", "folder", "state"))


def _clash(folder: Path, overrides: Sequence[str], config_dir: str | None) -> str:
    """What differs between a point and the run that lies in its folder; empty if it is the same experiment."""
    cfg = compose(overrides, config_dirs=[config_dir] if config_dir else [])
    app = to_app(OmegaConf.to_container(cfg, resolve=True))  # type: ignore[arg-type]
    return "" if app.dry_run else difference(folder, asdict(app))


def _state(summary: Mapping[str, Any], *, found: bool) -> str:
    if summary.get("state") == GATHERED:
        return GATHERED
    if summary.get("already"):
        return f"{summary['already']} already as {summary['job_id']}"
    if "job_id" in summary:
        return f"submitted as {summary['job_id']}"
    if not summary:
        return "checked"
    return "finished already" if found else "done"


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _note_refusal(folder: str, *, reason: str, overrides: Sequence[str]) -> None:
    """For the report: a point that never ran, why, and which it was."""
    status = Status(folder)
    if status.read().get("state") in (None, "refused"):
        with suppress(OSError):
            Path(folder).mkdir(parents=True, exist_ok=True)
            status.note("refused", reason=reason, point=list(overrides))


def _short(folder: str) -> str | None:
    return min(folder, os.path.relpath(folder), key=len) if folder else None


def _cut(text: str, length: int = 100) -> str:
    return text if len(text) <= length else f"{text[:length]} ..."


def _let_go(error: BaseException | None) -> None:
    """Empties the frames of an exception and of those behind it: they hold the networks and data of the job."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _release() -> None:
    """What a job held and nothing names any more: circles of networks and hooks, and memory of the GPU."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()

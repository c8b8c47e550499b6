"""How far results lie above the student alone and above tuned KD, seed by seed."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distill_app.report.results import ALONE, DISTILLED, Result, number
from distill_app.report.statistics import Paired, paired

Numbers = Mapping[str, Any]
# Settings that are no matter of tuning: with more data or longer training everything is better.
_BUDGET = re.compile(r"^dataset\.|(epochs|max_steps_per_epoch|max_eval_batches|labels_per_class)$")


@dataclass(frozen=True)
class Against:
    """A result compared with another one.

    Attributes:
        reference: The other one.
        by_metric: Metric name -> the differences; metrics that both have for a common seed.
    """

    reference: Result
    by_metric: dict[str, Paired]


@dataclass(frozen=True)
class Compared:
    """A result with what it is held against and what it cost.

    Attributes:
        result: The result.
        alone: Against the student that learns from labels alone; None for it, for teachers, and where there is none.
        kd: Against tuned KD: of the settings of method `kd` for the same networks, data and epochs those that are best
            on the split that judges epochs, never those that are best on the test set.
        seconds: Of training what its method trains, the mean over its runs; None where nothing was trained.
        cost: That as a multiple of the student alone.
    """

    result: Result
    alone: Against | None
    kd: Against | None
    seconds: float | None
    cost: float | None


def compared(results: Sequence[Result]) -> list[Compared]:
    """Every result with what there is to compare it with."""
    found = []
    for result in results:
        held = result.role == DISTILLED
        alone = _alone_for(result, results) if held else None
        kd = tuned_kd(result, results) if result.role in (ALONE, DISTILLED) else None
        seconds = seconds_of(result)
        base = seconds_of(alone) if alone is not None else seconds if result.role == ALONE else None
        cost = seconds / base if seconds is not None and base else None
        found.append(Compared(result, _against(result, alone), _against(result, kd), seconds, cost))
    return found


def _against(result: Result, reference: Result | None) -> Against | None:
    if reference is None or reference is result:
        return None
    pairs = {
        name: pair
        for name, figure in result.figures.items()
        if name in reference.figures and (pair := paired(figure.by_seed, reference.figures[name].by_seed)) is not None
    }
    return Against(reference, pairs) if pairs else None


def _alone_for(result: Result, results: Iterable[Result]) -> Result | None:
    """The student on labels alone whose settings are nearest, of the same data set, student and budget."""
    candidates = [
        other
        for other in results
        if other.role == ALONE
        and all(other.base[key] in (None, result.base[key]) for key in ("dataset", "student"))
        and not _other_budget(result, other)
    ]
    return max(candidates, key=lambda other: (_likeness(result, other), _goodness(other)), default=None)


def _likeness(result: Result, other: Result) -> tuple[int, int]:
    """Fewer settings that contradict each other come first, then more that agree."""
    pairs = [
        (result.settings.get(key), value)
        for key, value in {**other.settings, "teacher": other.base["teacher"]}.items()
        if value is not None and result.settings.get(key) is not None
    ]
    conflicts = sum(mine != theirs for mine, theirs in pairs)
    return -conflicts, len(pairs) - conflicts


def _other_budget(result: Result, other: Result) -> bool:
    """Whether two results had other data or other amounts of training, as far as settings that differ say."""
    keys = [key for key in result.settings.keys() & other.settings.keys() if _BUDGET.search(key)]
    pairs = [(result.settings[key], other.settings[key]) for key in keys]
    return any(mine != theirs for mine, theirs in pairs if mine is not None and theirs is not None)


def tuned_kd(result: Result, results: Iterable[Result]) -> Result | None:
    """Of the settings of KD for the same data, networks and budget those that are best where epochs are judged.

    None where there is no KD, or several that do not say what they reached there.
    """
    same = ("dataset", "student", *(("teacher",) if result.role == DISTILLED else ()))
    candidates = [
        other
        for other in results
        if other.role == DISTILLED
        and other.base["method"] == "kd"
        and not str(other.members[0][1].get("network")).endswith("_ema")
        and all(result.base[key] in (None, other.base[key]) for key in same)
        and not _other_budget(result, other)
    ]
    if len(candidates) == 1:
        return candidates[0]
    told = [other for other in candidates if other.objective is not None]
    return max(told, key=_goodness, default=None)


def _goodness(result: Result) -> float:
    """What a result reached where epochs are judged, larger is better."""
    objective, leading = result.objective, result.leading
    if objective is None:
        return float("-inf")
    return -objective if leading is not None and leading.metric.direction == "min" else objective


def seconds_of(result: Result) -> float | None:
    """What training a result takes: of what learnt from a teacher, all stages of its method; else its own stages."""
    found = [seconds for run, row in result.members if (seconds := _seconds(result.role, run, row)) is not None]
    return sum(found) / len(found) if found else None


def _seconds(role: str, run: Numbers, row: Numbers) -> float | None:
    stages = {name: number(stage.get("seconds")) for name, stage in run["stages"].items()}
    prelude = run["prelude"]
    own = [seconds for name, seconds in stages.items() if name not in (prelude or ()) and seconds is not None]
    if role == DISTILLED and own and prelude is not None:
        return sum(own)
    trained = [seconds for name, seconds in stages.items() if seconds is not None and _trains(run["stages"][name], row)]
    return sum(trained) if trained else number(row.get("seconds"))  # which may be rounded


def _trains(stage: Numbers, row: Numbers) -> bool:
    """Whether a stage trained the network of a row."""
    trained = stage.get("trained")
    return isinstance(trained, list) and str(row.get("network")).removesuffix("_ema") in trained


def seconds_in_all(runs: Iterable[Mapping[str, Any]]) -> float:
    """Seconds of training behind all runs; a stage whose outcome several points of a sweep took over counts once."""
    stages = {
        (name, seconds)
        for run in runs
        for name, stage in run["stages"].items()
        if (seconds := number(stage.get("seconds"))) is not None
    }
    return sum(seconds for _, seconds in stages)

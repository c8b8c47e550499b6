"""What came out of a run: every network on the test set, its weights, and the summary."""

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from distill_app.analysis.cut import IMAGES, cut_of
from distill_app.config.plan import StagePlan
from distill_app.config.schema import ModelConf
from distill_app.networks.network import Network, parameter_count
from distill_app.runs.files import write_sealed
from distill_app.runs.metrics import joined
from distill_app.runs.report import final_plot, results_of
from distill_app.runs.settings import fingerprint
from distill_app.runs.statefile import save_weights
from distill_app.runs.tracking import Tracker
from distill_app.tasks.evaluation import evaluate, figure_of
from distill_app.tasks.images import LogitTask
from distill_app.training.experiment import Experiment
from distill_app.words import shortest

Done = Mapping[str, Mapping[str, Any]]


def test_rows(experiment: Experiment, done: Done) -> list[dict[str, Any]]:
    """One row for every network that was trained or learnt from: its figures on the test set of its data.

    Where a network that no stage trains cannot be judged by that data, its figures are None, and `reasons` says why.

    Args:
        experiment: Its stages are over.
        done: Stage -> what it took and reached.
    """
    last: dict[str, StagePlan] = {}
    for plan in experiment.plans:
        for name in [*plan.taps, *plan.trained]:
            if name in plan.trained or name not in last:
                last[name] = plan
    rows = []
    for name, plan in last.items():
        rows.append(_test_row(experiment, done, name, plan))
        if name in experiment.parts.averages:
            rows.append(_test_row(experiment, done, name, plan, averaged=True))
    return rows


def _test_row(
    experiment: Experiment, done: Done, name: str, plan: StagePlan, *, averaged: bool = False
) -> dict[str, Any]:
    network, teacher = experiment.parts.networks[name], _teacher_for(experiment, plan)
    average: Any = experiment.parts.averages.get(name)
    found = evaluate(
        experiment.task(plan),
        replace(network, module=average.module) if averaged else network,
        experiment.data.test(plan),
        device=experiment.device,
        reference=teacher if teacher is not network else None,
        trained=any(name in other.trained for other in experiment.plans),
        world=experiment.world,
    )
    # What cannot be asked about these data has no figures, and nothing of it crosses a cut.
    alone = () if found.reasons else experiment.data.test_one_by_one(plan, count=IMAGES)
    cut = cut_of(experiment.task(plan), network, alone)
    seconds = [stage["seconds"] for stage in done.values() if name in stage["trained"]]
    return {
        "name": _label(experiment, name, plan) + (", average of weights" if averaged else ""),
        "network": f"{name}_ema" if averaged else name,
        "stage": plan.name,
        **found.figures,
        "parameters": parameter_count(network.module),
        "seconds": round(sum(seconds), 3) if seconds else None,
        **({"cut": cut.described()} if cut else {}),
        **found.beside,
    }


def reasons_of(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Why there are figures that networks do not have, each reason once, with the figures."""
    names: dict[str, list[str]] = {}
    for row in rows:
        for name, reason in row.get("reasons", {}).items():
            if name not in names.setdefault(reason, []):
                names[reason].append(name)
    return [f"no {', '.join(figures)}: {reason}" for reason, figures in names.items()]


def _teacher_for(experiment: Experiment, plan: StagePlan) -> Network | None:
    """The teacher of a network, if both answer the same question."""
    networks = experiment.parts.networks
    teacher = networks.get(plan.network("teacher")) or networks.get("teacher")
    return teacher if plan.data.name == experiment.app.dataset.name else None


def _label(experiment: Experiment, name: str, plan: StagePlan) -> str:
    if name in plan.trained and plan.conf.label:
        return plan.conf.label
    taught = any(name in other.trained and other.taps.keys() - {name} for other in experiment.plans)
    return f"{name} with {experiment.app.method.name}" if taught else name


def write_results(
    experiment: Experiment, done: Done, *, rows: list[dict[str, Any]], tracker: Tracker, leads_on: bool = True
) -> dict[str, Any]:
    """Writes weights, summary and plot into the run's folder, and shows the table.

    Args:
        experiment: Its stages are over.
        done: Stage -> what it took and reached.
        rows: What `test_rows` gave.
        tracker: Of the run.
        leads_on: Whether to say what may be done next: not where others follow.

    Returns:
        The summary.
    """
    folder = tracker.folder
    tracker.final(rows)
    trained = {name: experiment.network(name).module for plan in experiment.plans for name in plan.trained}
    averages = {f"{name}_ema": average for name, average in experiment.parts.averages.items()}
    files = {name: f"{name}.pt" for name in (*trained, *averages)}
    for name, module in {**trained, **averages}.items():
        save_weights(module, folder / files[name])
    summary = {**summarize(experiment, done, rows=rows, files=files), "records": tracker.count}
    write_sealed(folder / "summary.json", summary)
    tracker.info("\n" + results_of(summary))
    plot = final_plot(folder)
    tracker.info(f"\nplot: {plot}\nrun:  {folder}" + (_next_text(experiment, folder) if leads_on else ""))
    return summary


def _next_text(experiment: Experiment, folder: Path) -> str:
    """What to type next."""
    run = shlex.quote(shortest(folder))
    lines = [f"distill report {run}", f"distill evaluate {run} --full"]
    if isinstance(experiment.task(experiment.plans[-1]), LogitTask):
        lines += [f"distill predict {run} IMAGES", f"distill export {run} --to onnx"]
    return "\nnext: " + "\n      ".join(lines)


def summarize(
    experiment: Experiment, done: Done, *, rows: list[dict[str, Any]], files: Mapping[str, str]
) -> dict[str, Any]:
    """The content of `summary.json`: what was run and what it reached.

    `objective` is what the last stage reached on the split that judges epochs: settings are chosen by that and not by
    the test set.
    """
    app, last = experiment.app, experiment.plans[-1]
    # The tasks of other stages follow: what their networks were judged by has a place of its own.
    metrics = joined(experiment.task(plan).metrics for plan in reversed(experiment.plans))
    stages = {plan.name: _reached(experiment, plan, done[plan.name]) for plan in experiment.plans if plan.name in done}
    return {
        "method": app.method.name,
        "dataset": app.dataset.name,
        "seed": app.seed,
        "settings": fingerprint(asdict(app)),
        "student": _net_name(app.student),
        "teacher": _net_name(app.teacher) if "teacher" in experiment.parts.networks else None,
        "origins": {name: str(network.origin) for name, network in experiment.parts.networks.items()},
        "objective": stages.get(last.name, {}).get("best" if last.conf.select == "best" else "last"),
        "judged_on": experiment.data.stage(last).judged_on,
        "metrics": [metric.described() for metric in metrics],
        "rows": rows,
        "files": dict(files),
        "student_file": files.get("student"),
        "stages": stages,
    }


def _reached(experiment: Experiment, plan: StagePlan, done: Mapping[str, Any]) -> dict[str, Any]:
    """What a stage took and reached, as the metric has it; epochs are selected by what is larger when better."""
    task, judged = experiment.task(plan), bool(plan.trained)
    return {**done, **{key: figure_of(task, done[key], judged=judged) for key in ("best", "last")}}


def _net_name(conf: ModelConf) -> str:
    """What summaries call an architecture."""
    return conf.name or str(conf.net["_target_"]).rsplit(".", 1)[-1]

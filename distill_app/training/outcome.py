"""What came out of a run: every network on the test set, and the summary."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from distill_app.config.plan import StagePlan
from distill_app.config.schema import ModelConf
from distill_app.networks.network import Network, parameter_count
from distill_app.runs.settings import fingerprint
from distill_app.training.experiment import Experiment

COLUMNS = ("name", "accuracy", "agreement", "parameters", "seconds")
Done = Mapping[str, Mapping[str, Any]]


def test_rows(experiment: Experiment, done: Done) -> list[dict[str, Any]]:
    """One row for every network that was trained or learnt from: its metrics on the test set of its data.

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
    reference = teacher.module if teacher is not None and teacher is not network else None
    module = experiment.parts.averages[name].module if averaged else network.module
    batches = experiment.data.test(plan)
    metrics = experiment.task(plan).evaluate(module, batches, device=experiment.device, reference=reference)
    seconds = [stage["seconds"] for stage in done.values() if name in stage["trained"]]
    return {
        "name": _label(experiment, name, plan) + (", average of weights" if averaged else ""),
        "network": f"{name}_ema" if averaged else name,
        "stage": plan.name,
        **metrics,
        "parameters": parameter_count(network.module),
        "seconds": round(sum(seconds), 1) if seconds else None,
    }


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


def summarize(
    experiment: Experiment, done: Done, *, rows: list[dict[str, Any]], files: Mapping[str, str]
) -> dict[str, Any]:
    """The content of `summary.json`: what was run and what it reached.

    `objective` is what the last stage reached on the split that judges epochs: settings are chosen by that and not by
    the test set.
    """
    app, last = experiment.app, experiment.plans[-1]
    return {
        "method": app.method.name,
        "dataset": app.dataset.name,
        "seed": app.seed,
        "settings": fingerprint(asdict(app)),
        "student": _net_name(app.student),
        "teacher": _net_name(app.teacher) if "teacher" in experiment.parts.networks else None,
        "origins": {name: str(network.origin) for name, network in experiment.parts.networks.items()},
        "objective": done.get(last.name, {}).get("best" if last.conf.select == "best" else "last"),
        "rows": rows,
        "files": dict(files),
        "student_file": files.get("student"),
        "stages": dict(done),
    }


def _net_name(conf: ModelConf) -> str:
    """What summaries call an architecture."""
    return conf.name or str(conf.net["_target_"]).rsplit(".", 1)[-1]

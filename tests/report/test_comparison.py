"""What a result is held against, how, and what it cost."""

import json
from pathlib import Path

import pytest
from report_fixtures import KD, row, rows, write_run
from scipy import stats

from distill_app.report.comparison import compared, seconds_in_all
from distill_app.report.results import DISTILLED, aggregate
from distill_app.runs.collect import collect
from distill_app.runs.metrics import Metric

ALONE = (0.70, 0.72, 0.69)
KD_4 = (0.80, 0.81, 0.77)
KD_1 = (0.82, 0.83, 0.84)


def all_of(root: Path) -> list:
    return compared(aggregate(collect(root)))


def distilled(root: Path) -> dict:
    found = [each for each in all_of(root) if each.result.role == DISTILLED]
    return {each.result.setting: each for each in found}


@pytest.fixture
def sweep(tmp_path):
    """KD at two temperatures, better on the test set at 1 and on the validation set at 4; and AT."""
    for seed, alone in enumerate(ALONE):
        for temperature, student, objective in ((4, KD_4[seed], 0.9), (1, KD_1[seed], 0.5)):
            settings = {f"{KD}.loss.temperature": temperature}
            found = rows(alone=alone, student=student)
            write_run(
                tmp_path / f"{temperature}-{seed}", seed=seed, results=found, settings=settings, objective=objective
            )
        write_run(tmp_path / f"at-{seed}", seed=seed, results=rows(alone=alone, student=0.79, method="at"), method="at")
    return tmp_path


def test_the_difference_to_the_student_alone_is_tested_seed_by_seed(sweep):
    against = distilled(sweep)["kd, kd.loss.temperature=4"].alone
    assert against.reference.name == "student alone"
    found, test = against.by_metric["accuracy"], stats.ttest_rel(KD_4, ALONE)
    assert found.n == 3 and found.p == pytest.approx(test.pvalue)
    assert found.mean == pytest.approx(sum(KD_4) / 3 - sum(ALONE) / 3)
    assert (found.low, found.high) == pytest.approx(tuple(test.confidence_interval(0.95)))


def test_tuned_kd_is_chosen_where_epochs_are_judged_and_not_by_the_test_set(sweep):
    found = distilled(sweep)
    assert found["at"].kd.reference.setting == "kd, kd.loss.temperature=4"
    assert found["at"].kd.by_metric["accuracy"].p == pytest.approx(stats.ttest_rel((0.79,) * 3, KD_4).pvalue)
    assert found["kd, kd.loss.temperature=4"].kd is None, "it is not compared with itself"
    assert found["kd, kd.loss.temperature=1"].kd.by_metric["accuracy"].mean > 0


@pytest.mark.parametrize("key", ["stage.epochs", "dataset.student_labels_per_class", "method.stages.distill.epochs"])
@pytest.mark.parametrize("more", [100, None])  # null is a value: all labels
def test_longer_training_or_more_data_is_no_better_tuning(tmp_path, key, more):
    for value, student in ((10, 0.75), (more, 0.9)):
        settings = {key: value}
        both = {"seed": 0, "settings": settings}
        write_run(
            tmp_path / f"kd-{value}", results=rows(alone=student - 0.1, student=student), objective=student, **both
        )
        at = rows(alone=student - 0.1, student=student + 0.01, method="at")
        write_run(tmp_path / f"at-{value}", results=at, method="at", **both)
    for each in all_of(tmp_path):
        if each.result.base["method"] == "at":
            assert each.kd.by_metric["accuracy"].mean == pytest.approx(0.01)
            assert each.alone.by_metric["accuracy"].mean == pytest.approx(0.11)


def test_an_empty_value_is_a_setting_as_any_other(tmp_path):
    """Of students alone that differ in null or [], each run is held against its own."""
    for name, flips, clip, alone in (("a", [], None, 0.5), ("b", [], 1.0, 0.6), ("c", ["flip"], 1.0, 0.7)):
        settings = {"dataset.train_transform": flips, "stage.clip_grad_norm": clip}
        write_run(tmp_path / name, seed=0, results=rows(alone=alone, student=0.8), settings=settings)
    found = {each.result.setting: each.alone.by_metric["accuracy"].mean for each in distilled(tmp_path).values()}
    values = (("null", "[]"), ("1", "[]"), ("1", '["flip"]'))
    settings = [f"kd, stage.clip_grad_norm={clip}, dataset.train_transform={flips}" for clip, flips in values]
    assert found == {each: pytest.approx(gain) for each, gain in zip(settings, (0.3, 0.2, 0.1), strict=True)}


def test_the_cost_of_short_stages_is_of_their_exact_times(tmp_path):
    found = [row("student alone", "baseline", "alone", 0.7), row("student with kd", "student", "distill", 0.8)]
    folder = write_run(tmp_path / "a", seed=0, results=found)
    summary = json.loads((folder / "summary.json").read_text())
    for stage, seconds in (("alone", 0.056), ("distill", 0.059)):
        summary["stages"][stage]["seconds"] = seconds
    for each in summary["rows"]:
        each["seconds"] = 0.1
    (folder / "summary.json").write_text(json.dumps(summary))
    (each,) = distilled(tmp_path).values()
    assert each.cost == pytest.approx(0.059 / 0.056)


def test_several_kd_that_say_nothing_of_the_validation_set_are_not_tuned(tmp_path):
    for temperature in (1, 4):
        settings = {f"{KD}.loss.temperature": temperature}
        write_run(tmp_path / str(temperature), seed=0, results=rows(alone=0.7, student=0.8), settings=settings)
    write_run(tmp_path / "at", seed=0, results=rows(alone=0.7, student=0.8, method="at"), method="at")
    assert distilled(tmp_path)["at"].kd is None


def test_where_small_is_good_tuned_kd_is_the_smallest(tmp_path):
    metrics = [Metric("mse", direction="min")]
    for temperature, objective in ((1, 0.1), (4, 0.9)):
        found = [row("student with kd", "student", "distill", 0.5, mse=objective)]
        settings = {f"{KD}.loss.temperature": temperature}
        place = tmp_path / str(temperature)
        write_run(place, seed=0, results=found, settings=settings, objective=objective, metrics=metrics)
    assert distilled(tmp_path)["kd, kd.loss.temperature=4"].kd.reference.setting == "kd, kd.loss.temperature=1"


def test_the_student_alone_may_be_a_run_on_labels_alone_with_the_nearest_settings(tmp_path):
    for rate, alone, student in ((0.1, 0.7, 0.75), (0.2, 0.6, 0.8)):
        both = {"settings": {"stage.lr": rate}, "seed": 0, "prelude": ()}
        labels = rows(alone=None, student=alone, method="ce", teacher=None)
        write_run(tmp_path / f"ce-{rate}", results=labels, method="ce", **both)
        write_run(tmp_path / f"kd-{rate}", results=rows(alone=None, student=student), **both)
    found = distilled(tmp_path)
    gains = {setting: each.alone.by_metric["accuracy"].mean for setting, each in found.items()}
    assert gains == {"kd, stage.lr=0.1": pytest.approx(0.05), "kd, stage.lr=0.2": pytest.approx(0.2)}


def test_one_seed_has_a_difference_and_no_p(tmp_path):
    write_run(tmp_path / "a", seed=0, results=rows(alone=0.7, student=0.8))
    (each,) = distilled(tmp_path).values()
    assert each.alone.by_metric["accuracy"].mean == pytest.approx(0.1)
    assert each.alone.by_metric["accuracy"].p is None


def test_teachers_and_references_are_held_against_nothing(sweep):
    for each in all_of(sweep):
        if each.result.role != DISTILLED:
            assert each.alone is None


def test_the_cost_of_a_method_is_that_of_all_its_stages(tmp_path):
    found = [*rows(alone=0.7, student=0.8), row("assistant", "assistant", "assist", 0.85, seconds=5.0)]
    write_run(tmp_path / "a", seed=0, results=found)
    by_name = {each.result.name: each for each in all_of(tmp_path)}
    student, assistant = by_name["student with kd"], by_name["assistant"]
    assert student.seconds == pytest.approx(8.0) and student.cost == pytest.approx(4.0)
    assert assistant.seconds == pytest.approx(5.0), "its own stages"
    assert assistant.alone is assistant.kd is None, "it is no student, and is held against none"


def test_a_stage_that_points_share_is_counted_once(sweep):
    # Teacher 9 s, student alone 2 s, distilled 3 s, the same in all nine runs.
    assert seconds_in_all(collect(sweep)) == pytest.approx(14.0)

"""Runs become results: what is one result, what counts as independent, and what does not depend on a key."""

import json
import os
from pathlib import Path

import pytest
from report_fixtures import KD, row, rows, write_run

from distill_app.report.results import ALONE, DISTILLED, TEACHER, aggregate, role_of, student_row
from distill_app.runs.collect import collect
from distill_app.runs.naming import short_names


def results(root: Path) -> list:
    return aggregate(collect(root))


def student(root: Path, *, name: str = "student with kd") -> list:
    return [result for result in results(root) if result.name == name]


def write(root: Path, points: dict[str, dict]) -> None:
    for name, point in points.items():
        seed, accuracy = point.pop("seed", 0), point.pop("accuracy", 0.8)
        state = point.pop("state", "done")
        write_run(root / name, seed=seed, results=rows(alone=0.7, student=accuracy), settings=point, state=state)


def columns(root: Path) -> dict[str, list]:
    found = student(root)
    return {key: [result.settings[key] for result in found] for result in found for key in result.settings}


def test_what_differs_is_a_column_and_the_place_of_the_cache_is_none(tmp_path):
    points = {"a": {"stage.lr": 0.1}, "b": {"stage.lr": 0.02}, "c": {"stage.lr": 10.0}}
    write(tmp_path, {**points, "d": {"stage.lr": 0.02, "seed": 1}})
    assert columns(tmp_path) == {"stage.lr": ["0.02", "0.1", "10"]}
    assert [result.n for result in student(tmp_path)] == [2, 1, 1]


@pytest.mark.parametrize("key", ["cache.folder", "cache.reuse", "runtime.num_workers", "launcher.partition"])
def test_what_is_no_setting_is_no_column_though_it_was_typed(tmp_path, key):
    write(tmp_path, {"a": {key: "x", "seed": 0}, "b": {key: "y", "seed": 1}})
    assert columns(tmp_path) == {} and student(tmp_path)[0].n == 2


def test_runs_without_a_config_are_told_apart_by_what_was_typed(tmp_path):
    write(tmp_path, {name: {f"{KD}.weight": weight} for name, weight in (("a", 0.5), ("b", 0.9))})
    for run in tmp_path.iterdir():
        (run / "config_resolved.yaml").unlink()
    assert columns(tmp_path) == {f"{KD}.weight": ["0.5", "0.9"]}


def test_runs_of_which_nothing_is_known_but_a_hash_are_told_apart_by_it(tmp_path):
    write(tmp_path, {"a": {}, "b": {}})
    for run, text in zip(sorted(tmp_path.iterdir()), ("2e2fa9", "d11b18"), strict=True):
        (run / "config_resolved.yaml").unlink()
        (run / ".hydra/overrides.yaml").unlink()
        summary = json.loads((run / "summary.json").read_text())
        (run / "summary.json").write_text(json.dumps(summary | {"settings": text}))
    assert columns(tmp_path) == {"hash of settings": ["2e2fa9", "d11b18"]}


def test_mean_and_deviation_are_over_seeds(tmp_path):
    write(tmp_path, {str(seed): {"seed": seed, "accuracy": 0.7 + 0.1 * seed} for seed in range(3)})
    (result,) = student(tmp_path)
    found = result.figures["accuracy"].spread
    assert result.n == found.n == 3
    assert found.mean == pytest.approx(0.8) and found.std == pytest.approx(0.1)


def test_a_seed_that_ran_twice_counts_once_and_has_no_deviation(tmp_path):
    write(tmp_path, {"a": {"seed": 0, "accuracy": 0.7}, "again": {"seed": 0, "accuracy": 0.8}})
    (result,) = student(tmp_path)
    assert result.n == 1 and len(result.members) == 2
    assert result.figures["accuracy"].spread.std is None
    assert result.figures["accuracy"].by_seed == {"0": pytest.approx(0.75)}


def test_runs_that_do_not_say_their_seed_are_each_for_themselves(tmp_path):
    write(tmp_path, {"a": {"seed": None, "accuracy": 0.7}, "b": {"seed": None, "accuracy": 0.8}})
    assert student(tmp_path)[0].n == 2


def test_a_teacher_and_a_student_alone_that_do_not_depend_on_a_key_stand_once(tmp_path):
    points = {f"{t}{seed}": {f"{KD}.loss.temperature": t, "seed": seed} for t in (1, 4) for seed in (0, 1)}
    write(tmp_path, points)
    found = results(tmp_path)
    assert [(result.role, result.n, len(result.members)) for result in found] == [
        (TEACHER, 2, 4),
        (ALONE, 2, 4),
        (DISTILLED, 2, 2),
        (DISTILLED, 2, 2),
    ]
    assert [result.settings[f"{KD}.loss.temperature"] for result in found] == [None, None, "1", "4"]


def test_a_student_alone_that_depends_on_a_key_stands_with_each_of_its_values(tmp_path):
    for rate, alone in ((0.1, 0.7), (0.2, 0.6)):
        for t in (1, 4):
            settings = {f"{KD}.loss.temperature": t, "stage.lr": rate}
            write_run(tmp_path / f"{rate}-{t}", seed=0, results=rows(alone=alone, student=0.8), settings=settings)
    alone = [result.settings for result in results(tmp_path) if result.role == ALONE]
    assert [settings["stage.lr"] for settings in alone] == ["0.1", "0.2"]
    assert [settings[f"{KD}.loss.temperature"] for settings in alone] == [None, None]


def test_the_same_figures_of_other_seeds_join_nothing(tmp_path):
    write(tmp_path, {"a": {"stage.lr": 0.1, "seed": 0}, "b": {"stage.lr": 0.2, "seed": 1}})
    assert [result.settings["stage.lr"] for result in results(tmp_path) if result.role == TEACHER] == ["0.1", "0.2"]


def test_a_teacher_that_no_run_trained_is_one_network_however_many_runs_have_it(tmp_path):
    for seed in range(3):
        found = rows(alone=0.7, student=0.8 + 0.01 * seed)
        run = write_run(tmp_path / str(seed), seed=seed, results=found)
        summary = json.loads((run / "summary.json").read_text())
        del summary["stages"]["teacher"]
        (run / "summary.json").write_text(json.dumps(summary))
    teacher = next(result for result in results(tmp_path) if result.role == TEACHER)
    assert teacher.n == 1 and teacher.figures["accuracy"].spread.std is None


def test_a_teacher_that_was_given_stands_above_the_student_and_is_no_result_of_the_run(tmp_path):
    found = [row("student with kd", "student", "distill", 0.8), row("teacher", "teacher", "distill", 0.9)]
    write_run(tmp_path / "a", seed=0, results=found, prelude=())
    assert [result.name for result in results(tmp_path)] == ["teacher", "student with kd"]
    (run,) = collect(tmp_path)
    assert student_row(run)["accuracy"] == 0.8 and student_row({"rows": []}) == {}


def test_points_that_failed_before_they_had_a_folder_are_runs(tmp_path):
    write(tmp_path, {"0": {"stage.lr": 0.1}})
    about = {"sweep": "x", "objective": None, "exit_code": 1}
    lines = [
        {
            **about,
            "number": n,
            "overrides": [f"stage.lr={lr}"],
            "folder": f"/gone/{n}",
            "state": state,
            "reason": reason,
        }
        for n, lr, state, reason in ((0, 0.1, "done", None), (1, 7, "failed", "first"), (1, 7, "failed", "no memory"))
    ]
    lines.append({**lines[-1], "folder": "elsewhere/.."})  # no folder of this sweep
    (tmp_path / "sweep.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines) + "[1]\n{}\n")
    typed = {"hydra": {"overrides": {"task": ["experiment=digits/kd", "stage.lr=0.1,7"]}}}
    (tmp_path / "multirun.yaml").write_text(json.dumps(typed))
    done, failed = collect(tmp_path)
    assert done["state"] == "done" and failed["state"] == "failed" and failed["reason"] == "no memory"
    assert failed["point_command"] == "distill experiment=digits/kd stage.lr=7" and failed["path"] == "1"


@pytest.mark.parametrize(
    "foreign", [{"rows": [{"accuracy": "NaN", "name": None}]}, {"rows": 5}, {"results": []}, {"rows": [7]}]
)
def test_a_summary_of_something_else_is_no_finished_run(tmp_path, foreign):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "summary.json").write_text(json.dumps(foreign))
    (run,) = collect(tmp_path)
    assert run["state"] == "unreadable" and run["reason"] == "summary.json is not that of a run"
    assert not results(tmp_path)


def test_only_finished_runs_count(tmp_path):
    write(tmp_path, {"a": {"seed": 0}, "b": {"seed": 1, "state": "failed"}, "c": {"seed": 2, "state": "running"}})
    assert student(tmp_path)[0].n == 1


def test_points_of_a_sweep_come_in_their_order(tmp_path):
    write(tmp_path, {str(number): {"seed": number} for number in (10, 2, 1)})
    assert [run["path"] for run in collect(tmp_path)] == ["1", "2", "10"]


def test_an_ending_of_a_key_is_its_name_where_that_tells_it_from_the_others():
    keys = [f"{KD}.loss.temperature", f"{KD}.weight", "stage.lr", "method", "method.stages.hint.losses.hint.weight"]
    assert list(short_names(keys).values()) == ["kd.loss.temperature", "kd.weight", "stage.lr", "method", "hint.weight"]
    twice = ["method.stages.a.losses.kd.weight", "method.stages.b.losses.kd.weight"]
    assert list(short_names(twice).values()) == ["a.losses.kd.weight", "b.losses.kd.weight"]


def test_a_teacher_by_an_older_summary_is_one(tmp_path):
    old = [{"name": "teacher", "accuracy": 0.9}, {"name": "student", "accuracy": 0.8}]
    write_run(tmp_path / "a", seed=0, results=[row("student", "student", "distill", 0.8)])
    (tmp_path / "a/summary.json").write_text(json.dumps({"method": "kd", "rows": old}))
    os.remove(tmp_path / "a/config_resolved.yaml")
    assert [result.role for result in results(tmp_path)] == [TEACHER, DISTILLED]


@pytest.mark.parametrize(
    ("run", "role"),
    [
        ({"method": "seg_ce", "kind": "labels"}, "alone"),
        ({"method": "mine", "kind": "labels"}, "alone"),
        ({"method": "ce"}, "alone"),  # of before methods had a kind
        ({"method": "kd", "kind": "logits"}, "distilled"),
        ({"method": "own"}, "distilled"),
    ],
)
def test_a_student_is_alone_by_what_its_method_says_of_itself(run, role):
    assert role_of(run, {"network": "student", "name": "student"}) == role

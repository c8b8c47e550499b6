"""Measuring methods on equal terms: the space of their settings, the search in it, and the page."""

import json
from dataclasses import replace

import pytest
import yaml

from distill_app import compose
from distill_app.errors import CacheError, NonFiniteLoss
from scripts.measure import methods, page
from scripts.measure.knobs import Space
from scripts.measure.measuring import DATA, FITS, methods_for, train_teacher


def space(method: str, *words: str, budget: int = 100) -> Space:
    return Space.of(compose(["experiment=digits/kd", "prelude=none", f"method={method}", *words]), budget=budget)


@pytest.mark.parametrize(
    ("method", "knobs"),
    [
        ("ce", {"lr"}),
        ("kd", {"lr", "strength", "temperature"}),
        ("at", {"lr", "strength"}),
        ("fitnet", {"lr", "strength", "temperature", "first"}),
        ("fsp", {"lr", "first"}),
        ("ghnd", {"lr"}),
        ("simkd", {"lr"}),  # trains a network of its own in the place of the student
    ],
)
def test_a_method_has_the_knobs_that_turn_something(method, knobs):
    assert set(space(method).knobs()) == knobs


def test_the_first_point_is_the_file_and_the_epochs_add_up_to_the_budget():
    found = space("fitnet")
    words = found.overrides({name: knob.default for name, knob in found.knobs().items()})
    assert words == ["method.stages.hint.epochs=50", "method.stages.distill.epochs=50"]


def test_a_point_turns_rates_weights_temperatures_and_the_split():
    words = space("fitnet", budget=60).overrides({"lr": 0.5, "strength": 2.0, "temperature": 0.25, "first": 0.2})
    stages = "method.stages"
    assert words == [
        f"{stages}.hint.epochs=12",
        f"{stages}.distill.epochs=48",
        f"{stages}.hint.lr=0.1",
        f"{stages}.distill.lr=0.1",
        f"{stages}.distill.losses.kd.weight=1",
        f"{stages}.distill.losses.kd.loss.temperature=1",
    ]


def test_a_rate_of_a_method_s_own_may_go_further():
    assert space("hnd").knobs()["lr"].high > space("kd").knobs()["lr"].high


def test_what_other_networks_are_trained_for_does_not_count_against_the_budget():
    found = space("takd", *FITS["digits"]["takd"])
    assert found.overrides({}) == ["method.stages.distill.epochs=100"]


@pytest.mark.slow
def test_methods_are_searched_trained_tested_and_written_down(tmp_path):
    place, docs = tmp_path / "digits", tmp_path / "docs"
    docs.mkdir()
    teacher = train_teacher("digits", place / "teacher", "stage.epochs=2")
    measured = methods.Measured("digits", place, replace(DATA["digits"], trials=2, seeds=2, budget=2))
    record = {name: measured.method(name) for name in ("ce", "kd", "simkd")}
    assert record["ce"]["trials"][0]["values"] == {"lr": 1.0}
    assert all(0 <= trial["value"] <= 1 for each in record.values() for trial in each["trials"])
    assert set(record["kd"]["best"]) == {"0", "1"} and not list((place / "search").glob("*/*"))
    again = measured.method("kd", record["kd"])  # what is there is not run again
    assert again == record["kd"]
    assert not replace(measured, of=replace(measured.of, judging=(7,))).was_found_alike(again)
    gains = tmp_path / "measured.yaml"
    gains.write_text("fashion_mini: {at: -1.5}\n")
    page.write("digits", place, teacher, record, docs=docs, gains=gains)
    text = (docs / "results.md").read_text()
    assert "| `kd` " in text and "student alone (`ce`)" in text and "over 2 seeds" in text
    assert "Student: `plain_8_16` (1,586 parameters)" in text and "| `simkd`, 49,298 parameters " in text
    numbers = json.loads((docs / "results.json").read_text())
    assert {row["method"] for row in numbers["methods"]} == {"ce", "kd", "simkd"}
    known = yaml.safe_load(gains.read_text())
    gain = next(row["minus_alone"]["mean"] for row in numbers["methods"] if row["method"] == "kd")
    assert known["fashion_mini"] == {"at": -1.5} and set(known["digits"]) == {"kd", "simkd"}
    assert known["digits"]["kd"] == pytest.approx(100 * gain, abs=0.006)
    assert (docs / "results.png").stat().st_size > 1000
    some = {name: record[name] for name in ("simkd", "kd")}
    page.write("digits", place, teacher, some, docs=docs, gains=gains)  # --methods kd,simkd: without the student alone
    assert "Student: `plain_8_16` (1,586 parameters)" in (docs / "results.md").read_text()


def test_only_a_student_that_diverges_is_told_as_such(tmp_path, monkeypatch):
    measured = methods.Measured("digits", tmp_path, replace(DATA["digits"], trials=1, seeds=2, budget=1))
    known = {"budget": 1, "judging": [100, 101], "chosen": {}, "trials": [{"values": {}, "value": 0.5}]}

    def tested(_, name, seed, overrides, error=NonFiniteLoss):
        if seed:
            raise error("the loss is not finite")
        return 0.5

    monkeypatch.setattr(methods.Measured, "tested", tested)
    found = measured.method("ce", known)
    assert found["diverged"] == [1] and found["best"] == {"0": 0.5}
    monkeypatch.setattr(methods.Measured, "tested", lambda *words: tested(*words, error=CacheError))
    with pytest.raises(CacheError):
        measured.method("ce", known)


@pytest.mark.slow
def test_a_point_that_diverges_counts_as_tried_and_is_not_chosen(tmp_path, monkeypatch):
    measured = methods.Measured("digits", tmp_path, replace(DATA["digits"], trials=3, seeds=1, budget=1))
    found = iter([None, 0.5, 0.4])
    monkeypatch.setattr(methods.Measured, "judged", lambda *_: next(found))
    record = measured.search("ce", space("ce"))
    assert [trial["value"] for trial in record["trials"]] == [None, 0.5, 0.4]
    assert record["chosen"] == record["trials"][1]["values"]


@pytest.mark.parametrize(
    ("dataset", "some", "others"),
    [
        ("digits", {"ce", "kd", "hnd", "simkd"}, {"own", "pkd_fpn", "seg_kd", "vitkd"}),
        ("fashion_det", {"own", "pkd_fpn", "fgd", "roi_kd", "ghnd"}, {"kd", "seg_kd", "crosskd", "pseudo_boxes"}),
        ("fashion_seg", {"seg_ce", "seg_kd", "skds"}, {"kd", "own", "ghnd"}),
        ("fashion_vit", {"ce", "kd", "vitkd", "deit_token"}, {"fitnet", "hnd", "own"}),
    ],
)
def test_a_data_set_measures_the_methods_that_learn_on_it(dataset, some, others):
    found = set(methods_for(dataset))
    assert some <= found and not others & found


def test_of_vits_the_student_has_a_distillation_token_and_the_teacher_is_wider(tmp_path):
    measured = methods.Measured("fashion_vit", tmp_path, DATA["fashion_vit"])
    cfg = compose(measured.overrides("deit_token", 0))
    terms = cfg.method.stages.distill.losses
    assert (terms.ce.inputs.input, terms.kd.inputs.student) == ("student.class_logits", "student.token_logits")
    assert cfg.teacher.net.hidden_dim == 2 * cfg.student.net.embed_dim
    assert cfg.teacher.net.patch_size == cfg.student.net.patch_size == 8


@pytest.mark.slow
def test_segmenters_are_measured_by_their_own_figure(tmp_path, monkeypatch):
    few = ("dataset.train.count=24", "dataset.test.count=8", "stage.warmup_epochs=0")
    monkeypatch.setitem(DATA, "fashion_seg", replace(of := DATA["fashion_seg"], overrides=(*of.overrides, *few)))
    place, docs = tmp_path / "fashion_seg", tmp_path / "docs"
    docs.mkdir()
    teacher = train_teacher("fashion_seg", place / "teacher", "stage.epochs=1")
    measured = methods.Measured("fashion_seg", place, replace(DATA["fashion_seg"], trials=1, seeds=2, budget=1))
    record = {name: measured.method(name) for name in ("seg_ce", "seg_kd")}
    page.write("fashion_seg", place, teacher, record, docs=docs, gains=tmp_path / "gains.yaml")
    text = (docs / "results_fashion_seg.md").read_text()
    assert "student alone (`seg_ce`)" in text and "| mIoU " in text and "vs kd" not in text
    assert set(yaml.safe_load((tmp_path / "gains.yaml").read_text())["fashion_seg"]) == {"seg_kd"}

"""Experiments that tell why a method stands where it stands: one thing changed, held against the table's runs."""

import json
from argparse import ArgumentParser
from dataclasses import replace

import pytest

from distill_app import compose
from scripts.measure import reasons
from scripts.measure.measuring import DATA, train_teacher
from scripts.measure.methods import Measured
from scripts.measure.reasons import QUESTIONS, Change, Reasons


class AsPublished(dict):
    """What was searched of every method: that the first point was best, but for KD."""

    def __missing__(self, method):
        return {"chosen": {}}


def measured(place, **budget) -> Reasons:
    kd = {"chosen": {"lr": 0.5, "strength": 4.0, "temperature": 2.0}}
    return Reasons(Measured("digits", place, replace(DATA["digits"], **budget)), AsPublished(kd=kd))


@pytest.mark.slow
@pytest.mark.parametrize("name", QUESTIONS)
def test_every_change_changes_the_config_of_its_method(name, tmp_path):
    asked = measured(tmp_path)
    kinds = {change.overrides: change for change in QUESTIONS[name]}  # of those that are alike, one
    for change in kinds.values():  # of fashion_mini alone some, which digits can compose as well
        before = compose(asked.overrides(change.method, None, 0))
        assert compose(asked.overrides(change.method, change, 0)) != before, change


def test_a_term_beside_kd_has_the_settings_that_were_chosen_for_kd(tmp_path):
    asked = measured(tmp_path)
    change = next(change for change in QUESTIONS["combined"] if change.method == "spkd")
    losses = compose(asked.overrides("spkd", change, 0)).method.stages.distill.losses
    assert set(losses) == {"ce", "kd", "spkd"} and change.reference == "kd"
    assert (losses.kd.weight, losses.kd.loss.temperature, losses.ce.weight) == (2.0, 8.0, 0.5)


def test_a_page_without_a_place_and_a_method_that_was_not_searched_are_told_before_training(tmp_path, capsys):
    def told() -> str:
        with pytest.raises(SystemExit):
            reasons.require_inputs(ArgumentParser(), tmp_path)
        return capsys.readouterr().err

    assert "reasons.md" in told()
    (tmp_path / "reasons.md").write_text("# Why\n")
    assert "labels: made by python -m scripts.measure.reasons" in told()
    text = (reasons.DOCS / "reasons.md").read_text()
    (tmp_path / "reasons.md").write_text(text)
    searched = json.loads((reasons.DOCS / "searched.json").read_text())
    del searched["fashion_mini"]["sdd"]
    (tmp_path / "searched.json").write_text(json.dumps(searched))
    assert "nothing of fashion_mini for sdd" in told() and (tmp_path / "reasons.md").read_text() == text
    assert reasons.require_inputs(ArgumentParser(), reasons.DOCS)


@pytest.mark.slow
def test_a_change_stands_in_the_page_with_its_difference_to_the_table(tmp_path, monkeypatch):
    place = tmp_path / "digits"
    train_teacher("digits", place / "teacher", "stage.epochs=2")
    change = Change("kd", "no training, nearly", ("method.stages.distill.epochs=1", "method.stages.distill.lr=1e-9"))
    monkeypatch.setattr(reasons, "QUESTIONS", {"rate": (change,)})
    found = measured(place, seeds=2, budget=20).found(jobs=1)
    assert found["kd", ""]["0"] > found["kd", change.text]["0"] and set(found["kd", ""]) == {"0", "1"}
    page = tmp_path / "reasons.md"
    page.write_text(
        "# Why\n\n<!-- rate: made by python -m scripts.measure.reasons -->\nold\n<!-- end of rate -->\nso\n"
    )
    reasons.write(page, {"digits": found})
    text = page.read_text()
    assert "old" not in text and text.endswith("so\n")
    row = next(line for line in text.splitlines() if change.text in line)
    gap = sum(found["kd", change.text][seed] - found["kd", ""][seed] for seed in "01") / 2
    assert row.startswith("| digits | `kd` |") and f"| {100 * gap:+.2f} (p " in row

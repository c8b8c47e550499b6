"""The picture of all results: one that is far from all others does not hide what lies between these."""

import pytest
from report_fixtures import rows, write_run

from distill_app.report import picture
from distill_app.report.comparison import compared
from distill_app.report.picture import limits_of_most
from distill_app.report.results import aggregate
from distill_app.runs.collect import collect


def drawn(root, monkeypatch, values):
    """The one axis of the picture of runs with these accuracies, a rate each."""
    for number, value in enumerate(values):
        results = [row for row in rows(alone=0.7, student=value) if row["name"] == "student with kd"]
        write_run(root / str(number), seed=0, results=results, settings={"stage.lr": 0.1 + number})
    figures = []
    new = picture.new_figure
    monkeypatch.setattr(picture, "new_figure", lambda **sizes: figures.append(new(**sizes)) or figures[-1])
    picture.draw(root / "report.png", found=compared(aggregate(collect(root))))
    assert (root / "report.png").stat().st_size > 1000
    return figures[0][1]


def test_a_result_far_from_the_others_stands_at_the_edge_with_its_value(tmp_path, monkeypatch):
    axis = drawn(tmp_path, monkeypatch, [0.80, 0.81, 0.82, 0.83, 0.10])
    low, high = axis.get_xlim()
    assert 78 < low < 80 and 83 < high < 85
    assert [text.get_text() for text in axis.texts] == ["\N{LEFTWARDS ARROW} 10"]


def test_results_near_each_other_are_all_on_the_axis(tmp_path, monkeypatch):
    axis = drawn(tmp_path, monkeypatch, [0.70, 0.81, 0.82, 0.83, 0.90])
    low, high = axis.get_xlim()
    assert low < 70 and high > 90 and not axis.texts


@pytest.mark.parametrize(
    ("values", "limits"),
    [
        ([1.0, 2.0, 900.0], None),  # of three, none is the odd one
        ([5.0, 5.0, 5.0, 5.0, 9.0], None),  # no distance to measure by
        ([1.0, 2.0, 3.0, 4.0, 5.0], None),
        ([1.0, 2.0, 3.0, 4.0, 90.0], (0.25, 4.75)),
    ],
)
def test_the_limits_hold_what_is_near_the_middle(values, limits):
    assert limits_of_most(values) == limits

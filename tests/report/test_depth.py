"""Evaluations of runs on the page: what is shown of them, and what of files that are none."""

import json

import pytest
from report_fixtures import IMAGE, evaluation, rows, write_run

from distill_app.report.depth import depth_of, depth_sheet, networks_sheet
from distill_app.runs import evaluations
from distill_app.runs.collect import collect


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "a", seed=0, results=rows(alone=0.7, student=0.8))


def shown(run) -> list[dict]:
    return depth_of(collect(run.parent))


def test_an_evaluation_is_a_line_and_has_its_figures(run):
    evaluations.write(evaluations.place_of(run, network="student", split="test"), evaluation())
    (found,) = shown(run)
    assert found["run"] == "a" and found["name"] == "student_test"
    assert found["examples"][0]["true"] == "dog" and found["examples"][0]["image"] == IMAGE
    (cells,) = depth_sheet([found]).rows
    assert [cell.text for cell in cells] == [
        "a",
        "student_test",
        "75.00%",
        "15.00%",
        "25.00%",
        "0.500",
        "0.00%",
        "0.800",
    ]


def test_what_networks_cost_is_a_line_for_each_with_time_and_operations(run):
    evaluations.write(evaluations.place_of(run, network="student", split="test"), evaluation())
    sheet = networks_sheet(shown(run))
    heads = [column.head for column in sheet.columns]
    figures = ["latency, batch 1", "latency, batch 32", "images/s", "on"]
    assert heads == ["run", "evaluation", "network", "parameters", "size", "FLOPs", *figures]
    texts = [[cell.text for cell in row] for row in sheet.rows]
    speed = ["0.50 ms", "2.00 ms", "16,000", "a processor"]
    assert texts[0] == ["a", "student_test", "student", "1,586", "6.3 kB", "4.76 M", *speed]
    assert texts[1][2:6] == ["teacher", "94,762", "0.4 MB", "284 M"]
    evaluations.write(evaluations.place_of(run, network="old", split="test"), {**evaluation(), "costs": None})
    assert len(networks_sheet(shown(run)).rows) == 2


def test_names_of_checkpoints_stay_in_the_folder(run):
    place = evaluations.place_of(run, network="../../x", split="test", mark="a/b c")
    assert place.parent == run / "evaluation" and place.name == "..-..-x_test_a-b-c"


@pytest.mark.parametrize(
    "wrong",
    [
        {"per_class": 7},
        {"count": "many"},
        {"confusion": [[0, 1]]},
        {"calibration": {"ece": "x"}},
        {"similarity": {"rows": ["a"], "columns": ["b"], "cka": [], "images": 3}},
        {"examples": [{"index": 0, "true": 99}]},
        {"network": None, "figures": [1]},
        {"count": float("inf")},
        {"fidelity": {"agreement": None}},
        {"costs": [{"network": "student", "parameters": 3}]},
        {"costs": [{**evaluation()["costs"][0], "seconds": {"many": 0.1}}]},
    ],
)
def test_an_evaluation_that_is_none_is_left_out(run, wrong):
    place = evaluations.place_of(run, network="student", split="test")
    evaluations.write(place, evaluation(**wrong))
    assert shown(run) == []


@pytest.mark.parametrize(
    "image", ["https://example.invalid/x.png", "data:image/svg+xml;base64,AAAA", 7, f"{IMAGE}' x='"]
)
def test_a_picture_that_is_no_small_png_is_not_shown(run, image):
    value = evaluation()
    value["examples"][0]["image"] = image
    evaluations.write(evaluations.place_of(run, network="student", split="test"), value)
    assert shown(run)[0]["examples"][0]["image"] is None


def test_a_damaged_file_is_left_out(run):
    file = evaluations.write(evaluations.place_of(run, network="student", split="test"), evaluation())
    file.write_text(file.read_text().replace("0.75", "0.99"))
    assert shown(run) == []
    file.write_text(json.dumps([1]))
    assert shown(run) == []


def test_pictures_stop_where_the_page_would_become_large(tmp_path):
    large = f"data:image/png;base64,{'A' * 400_000}"
    for number in range(4):
        run = write_run(tmp_path / str(number), seed=number, results=rows(alone=0.7, student=0.8))
        value = evaluation()
        value["examples"][0]["image"] = large
        evaluations.write(evaluations.place_of(run, network="student", split="test"), value)
    assert [each["examples"][0]["image"] is not None for each in shown(run)] == [True, True, False, False]

"""The page as text: nothing is loaded, nothing that others named is markup, and it stays small."""

import html
import json
import re
from html.parser import HTMLParser

import pytest
from report_fixtures import KD, rows, write_run, write_sweep

from distill_app.report.comparison import compared
from distill_app.report.page import page
from distill_app.report.results import aggregate
from distill_app.runs.collect import collect
from distill_app.verbs import call

MOST_BYTES = 5_000_000
HOSTILE = "</script><script>alert(1)</script><img src=https://example.invalid/x onerror=alert(2)>"


class Elements(HTMLParser):
    """What elements there are, with their attributes, and the text of those with an id."""

    def __init__(self, text: str):
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def page_of(root) -> str:
    runs = collect(root)
    return page(runs=runs, found=compared(aggregate(runs)), title=root.name)


def data_of(text: str) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1])


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    root = tmp_path_factory.mktemp("sweep")
    write_sweep(root, temperatures=(1, 4), rates=(0.02, 0.1), seeds=2, epochs=3)
    return root


def test_nothing_is_loaded_from_anywhere(sweep):
    text = page_of(sweep)
    for tag, attributes in Elements(text).found:
        assert "src" not in attributes and tag not in ("iframe", "object", "embed", "base", "form"), tag
        assert attributes.get("href", "#").startswith(("#", "data:")), tag
    assert "default-src 'none'" in html.unescape(text) and "@import" not in text and "url(" not in text


def test_what_others_named_is_text(tmp_path):
    for number in range(2):
        settings = {f"a.{HOSTILE}": f"{HOSTILE}{number}"}
        write_run(
            tmp_path / str(number), seed=0, results=rows(alone=0.7, student=0.8, method=HOSTILE), settings=settings
        )
    failed = write_run(tmp_path / "f", seed=1, results=[], state="failed", reason=HOSTILE)
    (failed / "command.txt").write_text(HOSTILE)
    text = page_of(tmp_path)
    tags = [tag for tag, _ in Elements(text).found]
    assert tags.count("script") == 2 and "img" not in tags
    assert HOSTILE in json.dumps(data_of(text)) and HOSTILE not in text


def test_swept_keys_results_and_curves_are_in_its_data(sweep):
    data = data_of(page_of(sweep))
    assert [each["key"] for each in data["keys"]] == [f"{KD}.loss.temperature", "stage.lr"]
    assert [each["label"] for each in data["keys"]] == ["kd.loss.temperature", "stage.lr"]
    run = data["runs"][0]
    assert list(run["curves"]) == ["teacher", "alone", "distill"], "in the order of the stages"
    epochs, values = data["curves"][run["curves"]["distill"]["validation_accuracy"]]
    assert epochs == [1, 2, 3] and len(values) == 3
    assert len(data["runs"]) == 8 and {run["state"] for run in data["runs"]} == {"done", "failed"}


def test_curves_that_runs_share_are_kept_once(tmp_path):
    for number in range(3):
        write_run(tmp_path / str(number), seed=0, results=rows(alone=0.7, student=0.8 + number / 100))
    data = data_of(page_of(tmp_path))
    teachers = {run["curves"]["teacher"]["validation_accuracy"] for run in data["runs"]}
    students = {run["curves"]["distill"]["validation_accuracy"] for run in data["runs"]}
    assert len(teachers) == 1 and len(students) == 3


def test_failed_runs_stand_with_reason_and_what_to_type(sweep):
    text = page_of(sweep)
    assert "loss kd is nan in epoch 3" in text and f"distill resume {sweep / '4'}" in text
    assert "distill -m method=kd" in text and f"distill method=kd {KD}.loss.temperature=1" in text


@pytest.mark.slow
def test_a_page_of_sixty_long_runs_is_below_five_megabytes(tmp_path):
    count = write_sweep(tmp_path, temperatures=(1, 2, 4, 8), rates=(0.01, 0.05, 0.1), seeds=5, epochs=600)
    assert count == 60 and call("report", [str(tmp_path)]) == 0
    assert (tmp_path / "report.html").stat().st_size < MOST_BYTES


def test_report_writes_to_another_folder_where_that_is_asked_for(sweep, tmp_path, capsys):
    assert call("report", [str(sweep), "--output", str(tmp_path / "new/folder")]) == 0
    names = {path.name for path in (tmp_path / "new/folder").iterdir()}
    assert names == {f"report.{kind}" for kind in ("html", "md", "csv", "tex", "png")}
    assert f"page: {tmp_path / 'new/folder/report.html'}" in capsys.readouterr().out
    assert not (sweep / "report.html").exists()

"""`distill evaluate RUN --full`: what it prints and leaves in the run, of real runs."""

import json
import shutil
from pathlib import Path

import pytest

from distill_app.api import run as run_config
from distill_app.config.tree import compose
from distill_app.runs.evaluations import read_all

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny):
    """A finished run: a teacher, and a student of two epochs."""
    folder = tmp_path_factory.mktemp("runs") / "a run"
    run_config(compose([*tiny, "stage.epochs=2", "prelude=teacher", "dataset.resident=false"]), output_dir=str(folder))
    return folder


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of it to write to."""
    return Path(shutil.copytree(finished, tmp_path / "copy"))


def test_a_run_is_evaluated_in_depth_and_the_page_shows_it(distill, copied):
    code, out, err = distill("evaluate", str(copied), "--full")
    assert code == 0, err
    for word in (
        "ECE",
        "KL(teacher || student)",
        "taken for",
        "linear CKA with the teacher's taps",
        "cost of an image 3x8x8",
    ):
        assert word in out
    (name, found), *none = read_all(copied).items()
    rows = {row["network"]: row for row in json.loads((copied / "summary.json").read_text())["rows"]}
    assert name == "student_test" and not none and (copied / "evaluation/student_test.png").is_file()
    assert found["figures"]["accuracy"] == pytest.approx(rows["student"]["accuracy"])
    assert found["fidelity"]["agreement"] == pytest.approx(rows["student"]["agreement"])
    assert found["count"] == sum(line["count"] for line in found["per_class"]) == 597
    assert [line["class"] for line in found["per_class"]] == [str(digit) for digit in range(10)]
    assert found["examples"][0]["image"].startswith("data:image/png;base64,")
    student, teacher = found["costs"]
    assert (student["parameters"], teacher["parameters"]) == (
        rows["student"]["parameters"],
        rows["teacher"]["parameters"],
    )
    assert student["seconds"].keys() == {"1", "32"} and student["image"] == "3x8x8"
    assert distill("report", str(copied))[0] == 0
    page = (copied / "report.html").read_text()
    assert 'id="depth-table"' in page and 'id="networks-table"' in page and "latency, batch 32" in page


def test_checkpoints_and_other_networks_have_files_of_their_own(distill, copied):
    assert distill("evaluate", str(copied / "checkpoints/distill/epoch_0001"), "--full")[0] == 0
    code, out, _ = distill("evaluate", str(copied), "--full", "--network", "teacher", "--split", "validation")
    assert code == 0 and "no fidelity, similarity, examples: it is the teacher" in out
    assert set(read_all(copied)) == {"student_test_distill-epoch_0001", "teacher_validation"}


def test_a_run_without_a_teacher_says_so(distill, tmp_path, tiny):
    folder = tmp_path / "ce"
    overrides = [each for each in tiny if not each.startswith("teacher.")]
    more = ["method=ce", "prelude=none", "debug=one_batch"]
    run_config(compose([*overrides, *more]), output_dir=str(folder))
    code, out, _ = distill("evaluate", str(folder), "--full")
    assert code == 0 and "no fidelity, similarity, examples: the run has no teacher" in out


def test_an_evaluation_changes_nothing_of_the_run(distill, copied):
    before = {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()}
    assert distill("evaluate", str(copied), "--full")[0] == 0
    assert {path: path.read_bytes() for path in before} == before
    assert "is finished" in distill("resume", str(copied))[1]


def test_a_run_that_was_judged_on_a_part_is_evaluated_on_all_images(distill, tmp_path, tiny):
    folder = tmp_path / "run"
    words = ["method=ce", "prelude=none", "debug=one_batch", "dataset.eval_batch_size=20"]
    summary = run_config(compose([*tiny, *words]), output_dir=str(folder))
    assert (20 * summary["rows"][0]["accuracy"]) == pytest.approx(round(20 * summary["rows"][0]["accuracy"]))
    assert distill("evaluate", str(folder), "--full")[0] == 0
    found = read_all(folder)["student_test"]
    assert found["count"] == 597
    code, out, _ = distill("evaluate", str(folder))
    assert code == 0 and f'"accuracy": {found["figures"]["accuracy"]}' in out

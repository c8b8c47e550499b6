"""Two runs side by side: what differs, where first, and by how much."""

import json
from pathlib import Path

import pytest
import torch

from distill_app.runs.compare import Comparison, compared, differences

RECORDS = [
    {
        "kind": "step",
        "stage": "distill",
        "epoch": 0,
        "step": 0,
        "total": 1.5,
        "losses": {"kd": 0.25},
        "timing": {"t": 1},
    },
    {"kind": "epoch", "stage": "distill", "epoch": 0, "metrics": {"accuracy": 0.5, "seen": [1, 2]}, "timing": {"t": 2}},
    {"kind": "test", "name": "student with kd", "network": "student", "accuracy": 0.5, "timing": {"seconds": 3}},
]
SUMMARY = {
    "rows": [{"name": "student with kd", "network": "student", "accuracy": 0.5, "seconds": 3.0}],
    "files": {"student": "student.pt"},
    "stages": {"distill": {"seconds": 3.0, "best": 0.5}},
}
WEIGHTS = {"a": torch.tensor([1.0, 2.0]), "n": torch.tensor(3)}


def written(folder: Path, *, records=None, summary=None, weights=None) -> Path:
    folder.mkdir()
    lines = "".join(json.dumps(record) + "\n" for record in records or RECORDS)
    (folder / "metrics.jsonl").write_text(lines)
    (folder / "summary.json").write_text(json.dumps(summary or SUMMARY))
    torch.save(weights or WEIGHTS, folder / "student.pt")
    return folder


def outcome(tmp_path: Path, **second) -> dict[str, Comparison]:
    return {each.what: each for each in compared(written(tmp_path / "old"), written(tmp_path / "new", **second))}


def test_runs_that_differ_in_the_clock_alone_are_the_same(tmp_path):
    records = [{**record, "timing": {"t": 9}} for record in RECORDS]
    row = {**SUMMARY["rows"][0], "seconds": 9.0}
    summary = {**SUMMARY, "rows": [row], "stages": {"distill": {"seconds": 9.0, "best": 0.5}}}
    found = outcome(tmp_path, records=records, summary=summary)
    assert {name: (each.total, each.same, each.largest, each.first) for name, each in found.items()} == {
        "metrics.jsonl": (3, 3, None, ""),
        "summary.json": (2, 2, None, ""),
        "student.pt": (2, 2, None, ""),
    }
    assert all(each.identical for each in found.values())


def test_the_first_record_that_differs_and_the_largest_difference_are_told(tmp_path):
    records = json.loads(json.dumps(RECORDS))
    records[0]["losses"]["kd"] += 1e-7
    records[1]["metrics"]["seen"][1] = 5
    found = outcome(tmp_path, records=records)["metrics.jsonl"]
    assert (found.total, found.same, found.largest) == (3, 1, 3)
    assert found.first == "stage distill epoch 1 step 1: losses.kd 0.25 -> 0.2500001"
    assert not found.identical


def test_a_row_that_differs_is_told(tmp_path):
    summary = {**SUMMARY, "rows": [{**SUMMARY["rows"][0], "accuracy": 0.625}]}
    found = outcome(tmp_path, summary=summary)["summary.json"]
    assert (found.same, found.largest, found.first) == (1, 0.125, "row of student: accuracy 0.5 -> 0.625")


def test_records_that_only_one_run_has_are_told_with_whose_they_are(tmp_path):
    more = [*RECORDS, {**RECORDS[0], "epoch": 1}]
    found = outcome(tmp_path, records=more)["metrics.jsonl"]
    assert (found.total, found.same, found.largest) == (4, 3, None)
    assert found.first == "stage distill epoch 2 step 1: only in the second run"


@pytest.mark.parametrize(
    ("tensor", "says", "largest"),
    [
        (torch.tensor([1.0, 2.5]), "1 of 2 numbers, by up to 0.5", 0.5),
        (torch.tensor([1.0, 2.0], dtype=torch.float64), "torch.float32 (2,) -> torch.float64 (2,)", None),
        (torch.tensor([1.0]), "torch.float32 (2,) -> torch.float32 (1,)", None),
        (None, "in one of the runs alone", None),
    ],
)
def test_weights_that_differ_are_told(tmp_path, tensor, says, largest):
    weights = {name: value for name, value in {**WEIGHTS, "a": tensor}.items() if value is not None}
    found = outcome(tmp_path, weights=weights)["student.pt"]
    assert (found.total, found.same, found.largest) == (2, 1, largest)
    assert found.first.startswith(f"a: {says}")


def test_a_bit_that_no_number_shows_is_a_difference_and_nan_is_like_itself(tmp_path):
    zeros, strange = {"a": torch.tensor([0.0, float("nan")])}, {"a": torch.tensor([-0.0, float("nan")])}
    old = written(tmp_path / "old", weights=zeros)
    assert compared(old, written(tmp_path / "same", weights=zeros))[2].identical
    assert not compared(old, written(tmp_path / "new", weights=strange))[2].identical
    assert list(differences(0.0, -0.0)) and not list(differences(None, None))


def test_what_is_missing_or_cannot_be_read_is_told_and_never_the_same(tmp_path):
    old, new = written(tmp_path / "old"), written(tmp_path / "new")
    with open(old / "metrics.jsonl", "a") as file:
        file.write('{"kind": "step"')
    (new / "summary.json").unlink()
    (new / "student.pt").write_bytes(b"x")
    metrics, summary, weights = compared(old, new)
    assert metrics.unread == [f"1 lines of {old / 'metrics.jsonl'} cannot be read"]
    assert summary.unread == [f"{new / 'summary.json'} is missing or cannot be read"]
    assert weights.unread and str(new / "student.pt") in weights.unread[0]
    assert not any(each.identical for each in (metrics, summary, weights))
    (new / "metrics.jsonl").unlink()
    assert f"{new / 'metrics.jsonl'} is missing" in compared(old, new)[0].unread


def test_a_file_elsewhere_that_a_summary_names_is_not_looked_at(tmp_path):
    (tmp_path / "outside.pt").write_bytes(b"x")
    summary = {**SUMMARY, "files": {"student": "../outside.pt"}}
    old = written(tmp_path / "old", summary=summary)
    assert [each.what for each in compared(old, written(tmp_path / "new", summary=summary))] == [
        "metrics.jsonl",
        "summary.json",
    ]

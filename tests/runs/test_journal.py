"""metrics.jsonl: what a line says is what was written, or the line is told as damaged."""

import json
from pathlib import Path

import pytest

from distill_app.runs.journal import Journal, sealed_line


def records(count: int) -> list[dict]:
    timing = {"time": 1.5}
    return [{"kind": "step", "stage": "s", "step": n, "total": n / 3, "timing": timing} for n in range(count)]


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(map(sealed_line, records(6))))
    return path


def test_what_is_written_comes_back_and_every_line_is_json(file):
    found = Journal.read(file)
    assert found.records == records(6) and found.damaged == []
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert all(len(line["timing"].pop("crc32")) == 8 for line in lines) and lines == records(6)


def test_zeros_in_the_middle_are_told_by_the_numbers_of_their_lines(file):
    content = file.read_bytes()
    start = content.index(b'"step": 2') - 5
    file.write_bytes(content[:start] + bytes(120) + content[start + 120 :])
    found = Journal.read(file)
    assert [record["step"] for record in found.records] == [0, 1, 4, 5]
    assert found.damaged == [3]  # the zeros took the line break with them: two records are one line


@pytest.mark.parametrize("old", ['"total": 0.3', '"step": 1', '"kind": "step"', '"crc32"', '"time": 1.5'])
def test_a_changed_sign_makes_a_line_a_damaged_one(file, old):
    line = next(number for number, text in enumerate(file.read_text().splitlines(), start=1) if old in text)
    content = file.read_text()
    file.write_text(content.replace(old, old[:-1] + chr(ord(old[-1]) ^ 1), 1))
    assert Journal.read(file).damaged == [line]


def test_files_of_versions_without_checksums_are_read(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"kind": "step"}\n{"kind": "st\n[1]\n{"kind": "test"}\n')
    found = Journal.read(path)
    assert [record["kind"] for record in found.records] == ["step", "test"] and found.damaged == [2, 3]


def test_a_line_without_a_checksum_among_others_is_nobodys(file):
    with open(file, "a") as handle:
        handle.write('{"kind": "test", "accuracy": 1.0}\n')
    assert Journal.read(file).damaged == [7]


def test_no_file_has_no_records(tmp_path):
    assert Journal.read(tmp_path / "nothing") == Journal()

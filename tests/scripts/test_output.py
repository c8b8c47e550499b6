"""Scripts that measure: they start as modules, and see at once whether they can write what they will have measured."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.benchmark import __main__ as benchmark
from scripts.measure import default, methods, presets, settings

ROOT = Path(__file__).parents[2]
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")
    for path in (ROOT / "scripts").rglob("*.py")
    if '__name__ == "__main__"' in path.read_text(encoding="utf-8")
)
# Of each: what it is called with, where FOLDER stands for a place that cannot be written to.
MEASURING = {
    benchmark: ["--only", "kd", "--docs", "FOLDER"],
    default: ["--output", "FOLDER"],
    methods: ["--docs", "FOLDER"],
    presets: ["FOLDER/after.json"],
    settings: ["--docs", "FOLDER"],
}


def call(monkeypatch, module, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["script", *map(str, words)])
    module.main()


@pytest.mark.slow
@pytest.mark.parametrize("name", MODULES)
def test_every_script_starts_as_a_module_and_explains_itself(name):
    done = subprocess.run([sys.executable, "-m", name, "-h"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "usage:" in done.stdout, done.stderr


@pytest.mark.parametrize("module", MEASURING, ids=lambda module: module.__name__)
def test_a_folder_that_cannot_be_written_to_is_refused_at_the_start(module, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("in the way")
    words = [word.replace("FOLDER", f"{tmp_path}/file/docs") for word in MEASURING[module]]
    with pytest.raises(SystemExit) as stopped:
        call(monkeypatch, module, *words)
    assert stopped.value.code == 2 and "cannot write to" in capsys.readouterr().err


def test_a_page_without_a_place_for_the_figures_is_refused_at_the_start(tmp_path, monkeypatch, capsys):
    (tmp_path / "performance.md").write_text("# Performance\n")
    with pytest.raises(SystemExit):
        call(monkeypatch, benchmark, "--docs", tmp_path)
    assert "needs the lines" in capsys.readouterr().err


def test_a_new_folder_gets_a_page_of_the_figures(tmp_path, monkeypatch):
    found = {"times": {}, "values": {}, "missing": {}, "size": {}, "rounds": 1, "date": "2000-01-01"}
    monkeypatch.setattr(benchmark, "in_process", lambda name, arguments: found)
    monkeypatch.setattr(benchmark, "report", lambda record: "the table")
    call(monkeypatch, benchmark, "--only", "kd", "--docs", tmp_path / "new" / "docs")
    assert "the table" in (tmp_path / "new" / "docs" / "performance.md").read_text()
    assert set(json.loads((tmp_path / "new" / "docs" / "performance.json").read_text())["workloads"]) == {"kd"}

"""The notebooks of the docs: they run from the beginning, and show what they put out."""

from pathlib import Path

import nbformat
import pytest

from scripts.make.notebooks import FOLDER, executed

NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def _outputs(notebook: nbformat.NotebookNode) -> list[list[str]]:
    return [
        [output.get("name", output.output_type) for output in cell.outputs]
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_what_is_stored_in_it(path: Path):
    again, stored = executed(path), nbformat.read(path, as_version=4)
    assert _outputs(again) == _outputs(stored), "python -m scripts.make.notebooks"
    nbformat.validate(stored)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_holds_no_path_of_a_machine(path: Path):
    text = path.read_text(encoding="utf-8")
    assert not any(place in text for place in ("/home/", "/root/", "/work/", "/Users/"))
    assert "Warning" not in text and "Traceback" not in text


def test_there_are_two():
    assert [path.stem for path in NOTEBOOKS] == ["comparing", "own_method"]

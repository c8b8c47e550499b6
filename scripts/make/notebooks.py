"""Runs the notebooks of the docs, and stores what came out in them.

python -m scripts.make.notebooks            # all of docs/notebooks
"""

import argparse
import os
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "notebooks"
SECONDS = 900  # that a cell may take


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    for path in sorted(FOLDER.glob("*.ipynb")):
        nbformat.write(executed(path), path)
        print(f"{path.relative_to(ROOT)}: written")


def executed(path: Path) -> nbformat.NotebookNode:
    """A notebook with what its cells put out, run from the beginning in a process of its own.

    Raises:
        nbclient.exceptions.CellExecutionError: A cell raised.
    """
    notebook = nbformat.read(path, as_version=4)
    os.environ.setdefault("JUPYTER_PLATFORM_DIRS", "1")
    where = {"metadata": {"path": str(path.parent)}}
    client = NotebookClient(notebook, timeout=SECONDS, resources=where, record_timing=False)
    client.execute()
    for cell in notebook.cells:
        cell.metadata.clear()
    notebook.metadata["language_info"] = {"name": "python"}  # and not the version of whoever ran it
    return notebook


if __name__ == "__main__":
    main()

"""Docstrings are of one hand: what their sections say begins with a capital."""

import ast
import inspect
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = [*sorted((ROOT / "distill_app").rglob("*.py")), *sorted((ROOT / "scripts").rglob("*.py"))]


def entries(path: Path, section: str) -> list[str]:
    """The entries of that section in all docstrings of a file, without what they are called."""
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        text = inspect.cleandoc(ast.get_docstring(node) or "") if isinstance(node, kinds) else ""
        part = re.search(rf"^( *){section}:\n((?:\1 +.*\n?|\n)+)", text, re.MULTILINE)
        if part:
            found += re.findall(rf"^{part[1]}    [\w.*]+: (.+)$", part[2], re.MULTILINE)
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_what_is_raised_is_told_in_a_sentence(path):
    small = [entry for entry in entries(path, "Raises") if entry[0].islower()]
    assert not small, f"begin with a capital: {small}"


@pytest.mark.slow
def test_entries_are_found_in_the_package():
    assert sum(len(entries(path, "Raises")) for path in FILES) > 50

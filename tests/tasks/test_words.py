"""What a task measures is named in `tasks` alone: whoever else shows it reads how from the run.

What `distill evaluate --full` measures beside that is named where it is measured and where it is shown.
"""

import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "distill_app"
IN_DEPTH = ("analysis", "report/depth.py")
OTHERS = sorted(
    path for path in PACKAGE.rglob("*.py") if not path.relative_to(PACKAGE).as_posix().startswith(("tasks", *IN_DEPTH))
)
NAMES = re.compile(r"[Aa]ccurac|[Aa]greement|top5|\bmAP\b|average_precision")


@pytest.mark.parametrize("path", OTHERS, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_other_room_names_a_metric(path):
    lines = path.read_text().splitlines()
    named = [f"{number}: {line}" for number, line in enumerate(lines, start=1) if NAMES.search(line)]
    assert not named


def test_the_names_are_there_to_be_found():
    assert NAMES.search((PACKAGE / "tasks" / "classification.py").read_text())

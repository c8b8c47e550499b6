"""The site: it builds strictly, and has a page for each method and the reference of what users name in configs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from distill_app.config.groups import options_of
from scripts.make.site import linked

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert all((tmp_path / "methods" / name / "index.html").is_file() for name in options_of("method"))
    assert "ContrastiveRepresentation" in (tmp_path / "reference" / "losses" / "index.html").read_text()
    assert "Checks and runs a composed config" in (tmp_path / "reference" / "api" / "index.html").read_text()
    assert all((tmp_path / "notebooks" / name / "index.html").is_file() for name in ("comparing", "own_method"))
    start = (tmp_path / "index.html").read_text()
    assert 'src="http' not in start and "fonts.googleapis" not in start


@pytest.mark.parametrize(
    ("markdown", "expected"),
    [
        ("[a page](runs.md#going-on)", "[a page](runs.md#going-on)"),
        ("[conf/method](../conf/method)", "`conf/method`"),
        ("[the list](../distill_app/words.py)", "the list"),
        ("[more](notebooks/comparing.ipynb)", "[more](notebooks/comparing.md)"),
        ("[how](../CONTRIBUTING.md)", "[how](contributing.md)"),
        ("[far](https://arxiv.org/abs/1503.02531)", "[far](https://arxiv.org/abs/1503.02531)"),
        ("![a picture](report.png)", "![a picture](report.png)"),
    ],
)
def test_links_that_leave_the_pages_are_text(markdown, expected):
    assert linked(markdown, "docs", "index.md", None) == expected


def test_links_that_leave_the_pages_lead_into_the_repository_where_there_is_one():
    page = linked("[conf](../../conf)", "docs/methods", "methods/kd.md", "https://example.org/us/it")
    assert page == "[conf](https://example.org/us/it/blob/main/conf)"


def test_pages_in_folders_find_the_others():
    assert linked("[results](../results.md)", "docs/methods", "methods/kd.md", None) == "[results](../results.md)"

"""The page on the methods: an entry for each, and no older than the configs."""

from pathlib import Path

import pytest

from distill_app.config.tree import options_of
from scripts.make import method_docs

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "methods.md"


@pytest.mark.slow
def test_the_page_is_what_the_configs_say():
    assert PAGE.read_text() == method_docs.document(), "stale: python -m scripts.make.method_docs"


@pytest.mark.parametrize("method", options_of("method"))
def test_every_method_has_an_entry_with_command_and_advice(method):
    entry = PAGE.read_text().split(f"\n## {method}\n")[1].split("\n## ")[0]
    assert f"`distill method={method}`" in entry and "Before using it: " in entry
    assert "\n    " in entry and (method == "ce" or "Paper: <https://" in entry)


def test_a_method_without_words_is_an_error(monkeypatch):
    monkeypatch.setattr(method_docs, "options_of", lambda group: [*options_of(group), "new"])
    with pytest.raises(ValueError, match=r"no entry of \{'new'\}"):
        method_docs.document()

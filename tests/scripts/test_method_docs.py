"""The page on the methods: an entry for each, and no older than the configs."""

import importlib.util
from pathlib import Path

import pytest

from distill_app.config.tree import options_of

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "methods.md"


@pytest.fixture(scope="module")
def generator():
    spec = importlib.util.spec_from_file_location("make_method_docs", ROOT / "scripts" / "make_method_docs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_the_page_is_what_the_configs_say(generator):
    assert PAGE.read_text() == generator.document(), "stale: python scripts/make_method_docs.py"


@pytest.mark.parametrize("method", options_of("method"))
def test_every_method_has_an_entry_with_command_and_advice(method):
    entry = PAGE.read_text().split(f"\n## {method}\n")[1].split("\n## ")[0]
    assert f"`distill method={method}`" in entry and "Before using it: " in entry
    assert "\n    " in entry and (method == "ce" or "Paper: <https://" in entry)


def test_a_method_without_words_is_an_error(generator, monkeypatch):
    monkeypatch.setattr(generator, "options_of", lambda group: [*options_of(group), "new"])
    with pytest.raises(ValueError, match=r"no entry of \{'new'\}"):
        generator.document()

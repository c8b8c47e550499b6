"""The page on the methods and the README's table: no older than the configs."""

from pathlib import Path

import pytest

from distill_app.config.methods import Method
from distill_app.config.schema import AboutConf
from distill_app.config.tree import options_of
from scripts.make import method_docs

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "methods.md"


@pytest.mark.slow
def test_the_page_is_what_the_configs_say():
    assert PAGE.read_text() == method_docs.document(), "stale: make docs"


def test_the_table_of_the_readme_is_what_the_configs_say():
    readme = (ROOT / "README.md").read_text()
    assert method_docs.with_table(readme) == readme, "stale: make docs"
    assert all(f"| `{method}` |" in readme for method in options_of("method"))


def test_a_readme_without_a_place_for_the_table_is_refused():
    with pytest.raises(ValueError, match="needs the lines"):
        method_docs.with_table("# a page\n")


@pytest.mark.parametrize("method", options_of("method"))
def test_every_method_has_an_entry_with_command_advice_and_reference(method):
    entry = PAGE.read_text().split(f"\n## {method}\n")[1].split("\n## ")[0]
    assert f"`distill method={method}`" in entry and "Before using it: " in entry and "Same numbers as: " in entry
    assert "\n    " in entry and (method in ("ce", "own") or "](https://" in entry)


def test_a_method_without_words_is_an_error(monkeypatch):
    new = Method("new", AboutConf(title="New"), shipped=True)
    monkeypatch.setattr(method_docs, "methods_of", lambda: [new])
    with pytest.raises(ValueError, match=r"conf/method.*\['new'\]"):
        method_docs.document()


def test_a_stale_page_is_found_and_left_alone(monkeypatch, tmp_path, capsys):
    page, readme = tmp_path / "methods.md", tmp_path / "README.md"
    page.write_text("old\n")
    readme.write_text(f"top\n{method_docs.BEGIN}\nold\n{method_docs.END}\nbottom\n")
    for name, value in {"ROOT": tmp_path, "PAGE": page, "README": readme, "document": lambda: "new\n"}.items():
        monkeypatch.setattr(method_docs, name, value)
    monkeypatch.setattr("sys.argv", ["method_docs", "--check"])
    with pytest.raises(SystemExit) as stopped:
        method_docs.main()
    assert stopped.value.code == 1 and page.read_text() == "old\n" and "methods.md: stale" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["method_docs"])
    method_docs.main()
    assert page.read_text() == "new\n" and readme.read_text().startswith("top\n") and "`kd`" in readme.read_text()

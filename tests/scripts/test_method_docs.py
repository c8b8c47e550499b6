"""The pages on the methods and the README's list: no older than the configs."""

from pathlib import Path

import pytest

from distill_app.config.groups import options_of
from distill_app.config.methods import Method
from distill_app.config.schema import AboutConf
from scripts.make import method_docs

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "methods"


@pytest.mark.slow
def test_the_pages_are_what_the_configs_say():
    stale = [path.name for path, text in method_docs.pages().items() if path.read_text() != text]
    assert not stale, "stale: make docs"
    assert {path.stem for path in PAGES.glob("*.md")} == {"index", *options_of("method")}


def test_the_list_of_the_readme_and_the_table_are_what_the_configs_say():
    readme = (ROOT / "README.md").read_text()
    assert method_docs.with_list(readme) == readme, "stale: make docs"
    table = (PAGES / "index.md").read_text()
    assert method_docs.table() in table, "stale: make docs"
    assert all(f"| [`{method}`]({method}.md) |" in table for method in options_of("method"))


def test_a_readme_without_a_place_for_the_list_is_refused():
    with pytest.raises(ValueError, match="between which the list goes"):
        method_docs.with_list("# a page\n")


@pytest.mark.parametrize("method", options_of("method"))
def test_every_method_has_a_page_with_command_advice_and_reference(method):
    page = (PAGES / f"{method}.md").read_text()
    assert page.startswith(f"# {method}\n")
    assert f"`distill method={method}`" in page and "Before using it: " in page and "Same numbers as: " in page
    assert "\n    " in page and (method in ("ce", "own") or "](https://" in page)


def test_a_method_without_words_is_an_error(monkeypatch):
    new = Method("new", AboutConf(title="New"), shipped=True)
    monkeypatch.setattr(method_docs, "methods_of", lambda: [new])
    with pytest.raises(ValueError, match=r"conf/method.*\['new'\]"):
        method_docs.pages()


def test_stale_pages_are_found_and_left_alone_until_they_are_asked_for(monkeypatch, tmp_path, capsys):
    folder, readme = tmp_path / "methods", tmp_path / "README.md"
    folder.mkdir()
    (folder / "gone.md").write_text("of a method that is not there\n")
    readme.write_text(f"top\n{method_docs.BEGIN}\nold\n{method_docs.END}\nbottom\n")
    new = {folder / "kd.md": "new\n"}
    for name, value in {"ROOT": tmp_path, "PAGES": folder, "README": readme, "pages": lambda: new}.items():
        monkeypatch.setattr(method_docs, name, value)
    monkeypatch.setattr("sys.argv", ["method_docs", "--check"])
    with pytest.raises(SystemExit) as stopped:
        method_docs.main()
    said = capsys.readouterr().out
    assert stopped.value.code == 1 and not (folder / "kd.md").exists() and (folder / "gone.md").exists()
    assert "kd.md: stale" in said and "gone.md: of no method" in said and "README.md: stale" in said
    monkeypatch.setattr("sys.argv", ["method_docs"])
    method_docs.main()
    assert (folder / "kd.md").read_text() == "new\n" and not (folder / "gone.md").exists()
    assert readme.read_text().startswith("top\n") and " kd," in readme.read_text()

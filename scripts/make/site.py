"""What MkDocs calls while it builds the site (mkdocs.yml): pages that are made, and links that leave the pages.

The pages are to be read where they lie, too, so they link to files of the checkout. In the site such links are text,
or, where mkdocs.yml has a `repo_url`, links into the repository.
"""

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from nbconvert import MarkdownExporter

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "distill_app"
# Rooms whose names users meet in configs and in Python, and what each page says first.
REFERENCE = {
    "api": "The application from Python: `from distill_app import compose, run`.",
    "losses": "Terms of a stage: `loss: {_target_: distill_app.losses.NAME}`.",
    "adapters": "Modules between networks and terms: `module: {_target_: distill_app.adapters.NAME}`.",
    "data": "Data sets, wrappers and views: `_target_: distill_app.data.NAME`.",
    "tasks": "What a batch is and how answers are judged: `dataset.task`.",
    "models": "Networks of this package: `net: {_target_: distill_app.models.NAME}`.",
    "networks": "How networks are read, run and loaded; `TappedModel` is the hook engine.",
    "trackers": "Where figures are shown: `tracker`.",
    "launch": "How a run starts: `launcher`.",
    "config": "The schema of a config, and what is worked out from it.",
}
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?:|#|mailto:)([^)\s#]+)(#[^)\s]*)?\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fills in the parts of the navigation that are made."""
    methods = sorted(path.stem for path in (ROOT / "docs" / "methods").glob("*.md") if path.stem != "index")
    made: dict[str, list[Any]] = {
        "methods": ["methods/index.md", *({name: f"methods/{name}.md"} for name in methods)],
        "reference": [{name: f"reference/{name}.md"} for name in REFERENCE],
    }
    config.nav = [{name: made.get(str(part), part) for name, part in entry.items()} for entry in config.nav or []]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the reference, and what lies beside the pages."""
    for name, words in REFERENCE.items():
        files.append(File.generated(config, f"reference/{name}.md", content=reference(name, words)))
    for notebook in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")):
        named = {"unique_key": notebook.stem, "output_files_dir": ""}  # pictures of several notebooks lie together
        text, made = MarkdownExporter().from_filename(str(notebook), resources=named)
        files.append(File.generated(config, f"notebooks/{notebook.stem}.md", content=text))
        for name, content in made["outputs"].items():
            files.append(File.generated(config, f"notebooks/{name}", content=content))
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    files.append(
        File.generated(config, "contributing.md", content=linked(text, "", "contributing.md", config.repo_url))
    )
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Makes links that leave the pages ones of the site."""
    if page.file.generated_by is not None:
        return markdown
    uri = page.file.src_uri
    return linked(markdown, os.path.dirname(f"docs/{uri}"), uri, config.repo_url)


def reference(name: str, words: str) -> str:
    """The page of a module, or of all modules of a room."""
    single = PACKAGE / f"{name}.py"
    if single.is_file():
        return f"# {name}\n\n{words}\n\n::: distill_app.{name}\n"
    modules = sorted(path.stem for path in (PACKAGE / name).glob("*.py") if not path.stem.startswith("_"))
    parts = "\n".join(f"::: distill_app.{name}.{module}\n" for module in modules)
    return f"# {name}\n\n{words}\n\n{parts}"


def linked(markdown: str, folder: str, uri: str, repository: str | None) -> str:
    """A page with its links to files of the checkout changed.

    Args:
        markdown: The page.
        folder: Where it lies in the checkout; its links are relative to that.
        uri: Where it lies in the site.
        repository: The address of the repository, if there is one.
    """

    def changed(found: re.Match[str]) -> str:
        text, target, anchor = found[1], found[2], found[3] or ""
        place = os.path.normpath(os.path.join(folder, target))
        if place == "CONTRIBUTING.md":
            place = "docs/contributing.md"
        if place.startswith("docs/"):
            place = re.sub(r"\.ipynb$", ".md", place)  # a page is made of each
            inside = os.path.relpath(place.removeprefix("docs/"), os.path.dirname(uri) or ".")
            return f"[{text}]({inside}{anchor})"
        if repository:
            return f"[{text}]({repository.rstrip('/')}/blob/main/{place}{anchor})"
        return f"`{text}`" if "/" in text or "." in text else text

    return _LINK.sub(changed, markdown)

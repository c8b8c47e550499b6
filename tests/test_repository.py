"""The checkout's own files agree with each other: pages and paths, versions, constraints, targets, hooks."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import distill_app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted(
    (ROOT / "docs").rglob("*.md")
)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def pinned(name: str) -> set[str]:
    """The packages of a constraints file, without those of files that it includes."""
    return {line.split("==")[0] for line in read(name).splitlines() if re.match(r"[a-z]", line)}


def needed(requirements: list[str]) -> set[str]:
    """The packages that requirements name."""
    return {re.split(r"[<>=\[]", line)[0].lower() for line in requirements} - {"distill-app"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_of_a_page_lead_to_files_that_are_there(page):
    links = re.findall(r"\]\(([^)\s#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    missing = [link for link in links if not link.startswith("http") and not (page.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_modules_and_targets_that_a_page_names_are_there(page):
    text = page.read_text(encoding="utf-8")
    for module in re.findall(r"python -m (scripts[\w.]*\w)", text):
        place = ROOT / module.replace(".", "/")
        assert place.with_suffix(".py").is_file() or (place / "__main__.py").is_file(), module
    targets = set(re.findall(r"^([a-z]+):", read("Makefile"), re.MULTILINE))
    named = {
        word for words in re.findall(r"(?:`|^ {4})make ((?:[a-z]+ ?)+)", text, re.MULTILINE) for word in words.split()
    }
    assert named <= targets


def test_every_target_is_explained_and_phony():
    text = read("Makefile")
    targets = re.findall(r"^([a-z]+):.*## ", text, re.MULTILINE)
    phony = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert phony and targets and set(phony[1].split()) == set(targets)
    assert set(re.findall(r"^([a-z]+):", text, re.MULTILINE)) == set(targets)


def test_the_version_is_the_same_everywhere():
    citation = yaml.safe_load(read("CITATION.cff"))
    assert citation["version"] == distill_app.__version__
    assert f"\n## {distill_app.__version__}\n" in read("CHANGELOG.md") and "\n## Unreleased\n" in read("CHANGELOG.md")
    assert citation["license"] == PROJECT["project"]["license"]


def test_every_dependency_is_pinned_in_the_file_of_its_kind():
    project = PROJECT["project"]
    optional = project["optional-dependencies"]
    product, tools, rival = (pinned(f"constraints{kind}.txt") for kind in ("", "-dev", "-bench"))
    # trackio wants an older pillow than the tests have.
    of_users = [names for extra, names in optional.items() if extra not in ("dev", "bench", "trackio")]
    assert needed(project["dependencies"]).union(*map(needed, of_users)) <= product
    assert needed(optional["dev"]) == tools
    assert needed(optional["bench"]) <= rival
    assert not product & tools and not product & rival and not tools & rival
    assert all("-c constraints.txt" in read(f"constraints-{kind}.txt").splitlines() for kind in ("dev", "bench"))


def test_the_environment_is_made_anew_when_a_file_that_it_depends_on_changes():
    rules = dict(re.findall(r"^(\$\(\w+\)): (.*)$", read("Makefile"), re.MULTILINE))
    assert {"pyproject.toml", "constraints.txt", "constraints-dev.txt"} <= set(rules["$(STAMP)"].split())
    assert "constraints-bench.txt" in rules["$(RIVALS)"].split()


def test_hooks_before_a_commit_are_local_and_run_what_is_installed():
    repositories = yaml.safe_load(read(".pre-commit-config.yaml"))["repos"]
    hooks = [hook for repository in repositories for hook in repository["hooks"]]
    assert {repository["repo"] for repository in repositories} == {"local"}
    assert {hook["language"] for hook in hooks} == {"system"}
    assert all(hook["entry"].startswith(".venv/bin/") for hook in hooks)
    assert {hook["entry"].split()[0].rsplit("/", 1)[1] for hook in hooks} == {"ruff", "mypy", "python"}


def test_the_package_says_that_it_is_typed():
    assert (ROOT / "distill_app" / "py.typed").is_file()
    assert "py.typed" in PROJECT["tool"]["setuptools"]["package-data"]["distill_app"]


def test_every_room_is_packaged():
    rooms = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "distill_app").rglob("__init__.py")}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == rooms | {"distill_app.conf"}


def test_every_test_that_the_promises_name_is_there():
    text = (ROOT / "docs" / "reliability.md").read_text()
    named = set(re.findall(r"[\w/]*test_\w+\.py", text))
    assert len(named) > 20 and [name for name in named if not (ROOT / "tests" / name).is_file()] == []

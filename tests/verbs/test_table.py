"""The table of verbs is the only place where one is listed."""

import argparse
from importlib import import_module
from pathlib import Path

import pytest

from distill_app import verbs
from distill_app.verbs import VERBS, call


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_explains_itself(verb, distill):
    code, out, _ = distill(verb, "-h")
    assert code == 0 and out.startswith(f"usage: distill {verb}") and VERBS[verb].capitalize()[:20] in out


def test_every_file_with_add_and_run_is_in_the_table():
    found = set()
    for file in Path(verbs.__file__).parent.glob("*.py"):
        module = import_module(f"distill_app.verbs.{file.stem}") if file.stem != "__init__" else verbs
        if hasattr(module, "add") and hasattr(module, "run"):
            found.add(file.stem.replace("_", "-"))
    assert found == set(VERBS)


@pytest.mark.slow
def test_a_verb_is_a_file_and_a_line_of_the_table(monkeypatch, distill):
    module = argparse.Namespace(
        add=lambda parser: parser.add_argument("--times", type=int, default=1),
        run=lambda arguments: print("hello " * arguments.times) or 0,
    )
    monkeypatch.setitem(VERBS, "greet", "says hello")
    monkeypatch.setattr(verbs, "import_module", lambda name: module if name == "distill_app.verbs.greet" else None)
    assert distill("greet", "--times", "2")[:2] == (0, "hello hello \n")
    assert "  greet " in distill("--help")[1]
    assert call("greet", []) == 0


def test_a_verb_behind_overrides_is_told_to_come_first(distill):
    code, _, err = distill("seed=1", "resume", "outputs")
    assert code == 2 and err == "error: a verb comes first: distill resume ...\n"
    assert distill("-p", "cache", "--cfg", "job")[0] == 0, "the value of a flag is no verb"

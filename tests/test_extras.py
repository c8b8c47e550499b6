"""Which extra brings a package: one table, which agrees with pyproject.toml."""

import re
import sys
import tomllib
from pathlib import Path

import pytest

from distill_app import extras
from distill_app.errors import NotInstalled, described, of_description
from distill_app.extras import EXTRAS, missing, remedy, require


def test_the_table_is_that_of_pyproject():
    declared = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    optional = {extra: names for extra, names in declared["optional-dependencies"].items() if extra != "dev"}
    assert set(EXTRAS.values()) == set(optional)
    brought = {"hydra_optuna_sweeper": "optuna"}  # which it needs and a search is told of
    for extra, names in optional.items():
        packages = [re.split(r"[><=]", name)[0].replace("-", "_") for name in names]
        wanted = {brought.get(package, package) for package in packages}
        assert {package for package, its in EXTRAS.items() if its == extra} == wanted


def test_what_is_missing_is_told_with_what_to_type(monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == "trackio" else object())
    assert missing("onnx", "trackio") == ["trackio"] and require("onnx") is None
    with pytest.raises(
        NotInstalled, match=r"^trackio is not installed; pip install 'distill-app\[trackio\]'$"
    ) as raised:
        require("trackio")
    assert isinstance(of_description(described(raised.value)), NotInstalled)


def test_an_import_that_fails_gets_its_remedy_where_an_extra_is_one(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ModuleNotFoundError) as raised:
        __import__("timm")
    assert remedy(raised.value) == "; pip install 'distill-app[timm]'"
    assert remedy(ModuleNotFoundError("no", name="timm.nothing")) == remedy(ImportError("no")) == ""

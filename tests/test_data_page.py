"""docs/data.md: every command in it runs."""

import re
import shlex
from pathlib import Path

import pytest
from data_fixtures import write_images
from PIL import Image

from distill_app.check.quick import check
from distill_app.config.groups import options_of
from distill_app.config.tree import compose

PAGE = (Path(__file__).parents[1] / "docs" / "data.md").read_text()
COMMANDS = re.findall(r"^    distill (.+)$", PAGE, flags=re.MULTILINE)


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """What stands for the page's DIR, FILE and SAVED."""
    place = tmp_path_factory.mktemp("page")
    root = write_images(place / "images", {"ant": 10, "bee": 10})
    for number, file in enumerate(sorted((root / "bee").iterdir())):
        Image.new("RGB", (32, 32), (number, 0, 0)).save(file)
    rows = [f"{file.relative_to(root)},{file.parent.name}" for file in sorted(root.glob("*/*.png"))]
    (root / "list.csv").write_text("\n".join(["path,species", *rows]))
    (root / "plain.csv").write_text("\n".join(["path,label", *rows]))
    return {
        "DIR": str(root),
        "FILE": str(root / "plain.csv"),
        "LIST": str(root / "list.csv"),
        "SAVED": str(place / "saved"),
    }


@pytest.fixture(scope="module")
def saved(places):
    """The same as a data set of Hugging Face's package."""
    datasets = pytest.importorskip("datasets")
    columns = {"image": [], "label": []}
    for file in sorted(Path(places["DIR"]).glob("*/*.png")):
        columns["image"].append(str(file))
        columns["label"].append(file.parent.name)
    datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image()).save_to_disk(places["SAVED"])


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_page_runs(command, places, saved, distill, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where a picture goes
    if "species" in command:
        command = command.replace("FILE", "LIST")
    words = [re.sub("|".join(places), lambda found: places[found[0]], word) for word in shlex.split(command)]
    if words[0] == "data":
        assert distill(*words)[0] == 0
    else:
        assert list(check(compose(words))) == []


def test_the_page_names_every_recipe():
    table = PAGE.partition("## Recipes")[2]
    assert {name for name in options_of("stage") if f"`{name}`" in table} == set(options_of("stage"))
    assert len(COMMANDS) > 12

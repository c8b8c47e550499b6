"""A stranger's images, in a folder, a CSV file and a saved data set: trained on, cached, shared out, resumed."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from data_fixtures import COLOURS, stranger_folder
from engine_fixtures import QUIET, equal, metrics
from PIL import Image
from ranks_fixtures import outcomes

from distill_app.check.quick import read
from distill_app.config.tree import compose
from distill_app.errors import DataError
from distill_app.runs.statefile import load_file
from distill_app.training.optimize import Optimization
from distill_app.training.run import run_experiment
from distill_app.verbs import call

pytestmark = pytest.mark.slow

TINY = ("dataset.image_size=32", "model@teacher=plain_16_32_64", "model@student=plain_8_16", "stage.batch_size=16")


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """The same images three times: overrides by data set."""
    datasets = pytest.importorskip("datasets")
    place = tmp_path_factory.mktemp("own")
    root = stranger_folder(place / "images", each=12)
    files = [(file, label) for label, name in enumerate(COLOURS) for file in sorted((root / name).iterdir())]
    rows = [f"images/{file.parent.name}/{file.name};{file.parent.name}" for file, _ in files]
    (place / "list.csv").write_text("\n".join(["datei;art", *rows]))
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(COLOURS))})
    columns = {"image": [str(file) for file, _ in files], "label": [label for _, label in files]}
    datasets.Dataset.from_dict(columns, features=features).save_to_disk(str(place / "saved"))
    columns = ("dataset.columns.image=datei", "dataset.columns.label=art")
    return {
        "imagefolder": ("dataset=imagefolder", f"dataset.root={root}"),
        "csv": ("dataset=csv", f"dataset.file={place / 'list.csv'}", *columns),
        "huggingface": ("dataset=huggingface", f"dataset.path={place / 'saved'}"),
    }


def config_of(*words: str) -> dict:
    """A config as a launcher gets it, with the classes that were found."""
    errors, app, _ = read(compose([*QUIET, *words]))
    assert errors == [] and app is not None
    return asdict(app)


def run_here(folder: Path, *words: str) -> None:
    """Carries out an experiment in this process."""
    run_experiment(config_of(*words), output_dir=str(folder), command=["distill", *words])


KINDS = ("imagefolder", "csv", "huggingface")
SHORT = ("prelude=none", "teacher.allow_random=true", "method=kd", "stage.epochs=2", *TINY)


def test_a_folder_of_two_hundred_images_is_one_command_to_a_student(tmp_path, distill_process):
    root = stranger_folder(tmp_path / "images")
    done = distill_process("data", "check", str(root), "--no-picture", "dataset.image_size=32", cwd=tmp_path)
    assert done.returncode == 0 and "nothing is wrong" in done.stdout, done.stdout + done.stderr
    words = (f"dataset.root={root}", *TINY, "prelude=teacher", "stage.epochs=2", "prelude.params.epochs=2")
    run = tmp_path / "run"
    done = distill_process(
        "dataset=imagefolder", *words, "runtime.threads=1", "tracker=none", f"hydra.run.dir={run}", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    identity = json.loads((run / "data.json").read_text())["distill"]
    assert identity["classes"] == list(COLOURS) and identity["label_counts"] == [36] * 4
    assert identity["split"]["images"] == {"train": 160, "test": 40}
    assert "classes:\n  - ant\n  - bee" in (run / "config_resolved.yaml").read_text()
    rows = {row["network"]: row for row in json.loads((run / "summary.json").read_text())["rows"]}
    assert rows["student"]["accuracy"] > 0.5, "chance is 0.25"
    done = distill_process("evaluate", str(run), "--full", cwd=tmp_path)
    assert done.returncode == 0 and all(name in done.stdout for name in COLOURS), done.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_budgets_and_the_cache_are_exact(tmp_path, places, kind):
    words = (*places[kind], *SHORT, "dataset.student_labels_per_class=4", "cache.views=2")
    cached = (*words, "cache.enabled=true", f"cache.folder={tmp_path / 'cache'}")
    first, again, alone = (tmp_path / name for name in ("first", "again", "alone"))
    run_here(first, *cached)
    run_here(again, *cached, "runtime.num_workers=2")
    assert equal(load_file(first / "student.pt"), load_file(again / "student.pt"))
    assert len(list((tmp_path / "cache").iterdir())) == 1, "the second run reads what the first one wrote"
    identity = json.loads((first / "data.json").read_text())["distill"]
    assert identity["label_counts"] == [4] * 4 and identity["train"] == 16
    run_here(alone, *words)
    assert json.loads((alone / "data.json").read_text())["distill"] == identity


def break_off(folder: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    """Begins a run that ends in its fourth step, in its second epoch."""
    original, count = Optimization.step, iter(range(100))

    def step(self):
        if next(count) == 3:
            raise KeyboardInterrupt
        original(self)

    with monkeypatch.context() as patch:
        patch.setattr(Optimization, "step", step)
        with pytest.raises(KeyboardInterrupt):
            run_here(folder, *words)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_broke_off_ends_as_if_nothing_had_happened(tmp_path, places, kind, monkeypatch):
    words = (*places[kind], *SHORT, "checkpoint.every_steps=1")
    run_here(tmp_path / "whole", *words)
    break_off(tmp_path / "broken", monkeypatch, *words)
    assert call("resume", [str(tmp_path / "broken")]) == 0
    assert equal(load_file(tmp_path / "whole" / "student.pt"), load_file(tmp_path / "broken" / "student.pt"))
    assert metrics(tmp_path / "broken") == metrics(tmp_path / "whole")


def test_a_run_does_not_go_on_when_images_came_along(tmp_path, monkeypatch):
    root = stranger_folder(tmp_path / "images", each=12)
    break_off(tmp_path / "run", monkeypatch, "dataset=imagefolder", f"dataset.root={root}", *SHORT)
    Image.new("RGB", (40, 40)).save(root / "ant" / "new.png")
    with pytest.raises(DataError, match="the images of stage distill are not those that this run began with"):
        call("resume", [str(tmp_path / "run")])


@pytest.mark.parametrize("kind", ["imagefolder", "csv"])
def test_a_run_is_not_tested_on_what_it_was_trained_on_when_images_went(tmp_path, kind, distill):
    root, table = stranger_folder(tmp_path / "images", each=12), tmp_path / "list.csv"
    place = {
        "imagefolder": ("dataset=imagefolder", f"dataset.root={root}"),
        "csv": ("dataset=csv", f"dataset.file={table}"),
    }

    def listed() -> dict[str, str]:
        files = {f"images/{file.parent.name}/{file.name}": file.parent.name for file in sorted(root.glob("*/*"))}
        table.write_text("\n".join(["path,label", *(f"{file},{name}" for file, name in files.items())]))
        return files

    listed()
    run, words = tmp_path / "run", (*place[kind], *SHORT, "stage.epochs=1")
    assert distill(*words, f"hydra.run.dir={run}")[0] == 0
    assert distill("evaluate", str(run))[0] == 0
    anew = (*words, f"student.checkpoint={run / 'student.pt'}", "dry_run=true")
    assert "would be tested" not in distill(*anew)[2]
    for name in list(listed())[::4]:
        (tmp_path / name).unlink()
    listed()
    for asked in (("evaluate", str(run)), ("evaluate", str(run), "--full"), ("continue", str(run))):
        code, out, err = distill(*asked)
        assert code and "put " in err and "distill rerun" in err and " then, " in err, (asked, out, err)
    assert f"in {run} (" in distill(*anew)[2], "a warning, where the weights are named by hand"


@pytest.mark.parametrize("kind", KINDS)
def test_two_ranks_see_what_one_process_sees(tmp_path, places, kind):
    config = config_of(*places[kind], *SHORT, "stage.lr=0.01", "runtime.sync_batch_norm=true")
    one, two = (outcomes(tmp_path, {kind: config}, ranks=ranks)[kind] for ranks in (1, 2))
    totals = [
        [record["total"] for record in outcome["records"] if record["kind"] == "step"][:1] for outcome in (one, two)
    ]
    assert totals[1] == pytest.approx(totals[0], rel=1e-5) and totals[0]

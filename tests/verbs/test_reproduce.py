"""`distill reproduce`: a finished run once more, and whether it came out the same."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from engine_fixtures import DIGITS, QUIET, equal, run

from distill_app.runs.journal import Journal, sealed_line
from distill_app.runs.statefile import load_file
from distill_app.training import runner as runner_module
from distill_app.verbs import reproduce

pytestmark = pytest.mark.slow
TWO_STAGES = ("method=ft", "method.stages.paraphrase.epochs=2", "stage.epochs=2")


@pytest.fixture(autouse=True, scope="module")
def no_plots():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("distill_app.training.outcome.final_plot", lambda folder: folder)
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "finished"
    run(folder, *TWO_STAGES)
    return folder


@pytest.fixture
def copied(finished, tmp_path) -> Path:
    """A copy of it to spoil."""
    return Path(shutil.copytree(finished, tmp_path / "copy"))


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def change(file: Path, edit) -> None:
    record = json.loads(file.read_text())
    record.pop("crc32", None)  # as who edits it on purpose does
    edit(record)
    file.write_text(json.dumps(record))


def test_a_run_comes_out_the_same_and_its_folder_stays_as_it_is(finished, distill, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = contents(finished)
    code, out, err = distill("reproduce", str(finished))
    assert code == 0 and out.endswith("the same, bit for bit\n"), out + err
    assert contents(finished) == before
    (new,) = tmp_path.glob("outputs/*/*")
    assert equal(load_file(new / "student.pt"), load_file(finished / "student.pt"))
    rows = [line.split()[:3] for line in out.splitlines() if line.startswith(("metrics", "summary.json", "student.pt"))]
    assert [row[0] for row in rows] == ["metrics.jsonl", "summary.json", "student.pt"]
    assert all(row[1] == row[2] and int(row[1]) > 0 for row in rows)
    assert (new / "command.txt").read_text().startswith("distill reproduce ")


def test_a_run_started_by_the_command_line_too(distill, tmp_path):
    words = [*DIGITS, *QUIET, "stage.epochs=1", "stage.ema.decay=0.9", "cache.enabled=true", "cache.views=2"]
    old, new = tmp_path / "old", tmp_path / "new"
    words = [*words, f"cache.folder={old}/cache", f"hydra.run.dir={old}"]
    assert distill(*words)[0] == 0
    before = contents(old)
    code, out, err = distill("reproduce", str(old), "--output", str(new))
    assert code == 0 and "student_ema.pt" in out, out + err
    assert contents(old) == before and (new / "cache").is_dir()


def test_what_differs_is_told_with_where_and_by_how_much(copied, distill, tmp_path):
    weights = torch.load(copied / "student.pt", weights_only=True)
    name = next(name for name, value in weights.items() if value.is_floating_point())
    weights[name] = weights[name].contiguous()
    weights[name].view(-1)[0] += 0.5
    torch.save(weights, copied / "student.pt")
    records = Journal.read(copied / "metrics.jsonl").records
    records[1]["total"] += 2.0
    (copied / "metrics.jsonl").write_text("".join(map(sealed_line, records)))
    change(copied / "summary.json", lambda summary: summary["rows"][0].update(accuracy=-1.0))
    code, out, _ = distill("reproduce", str(copied), "--output", str(tmp_path / "new"))
    assert code == 1 and "not the same, by up to 2" in out, out
    assert "stage paraphrase epoch 1 step 2: total" in out and f"{name}: 1 of" in out and "accuracy -1.0 -> " in out
    assert "by up to 0.5" in out


def test_what_is_different_from_then_is_told_before_it_starts(copied, distill, tmp_path, monkeypatch):
    change(copied / "env.json", lambda record: record["packages"].update(torch="1.0"))
    change(copied / "data.json", lambda record: record["distill"].update(train=3))
    (copied / "git.json").unlink()
    started = []
    original = runner_module.StageRunner.run
    monkeypatch.setattr(runner_module.StageRunner, "run", lambda self: (started.append(1), original(self))[1])
    told: list[tuple] = []
    monkeypatch.setattr(reproduce, "print", lambda *a, **k: (started or told.append(a), print(*a, **k)), raising=False)
    code, _, err = distill("reproduce", str(copied), "--output", str(tmp_path / "new"))
    assert code == 0
    for text in ("torch: 1.0 then", "data of stage distill, train: 3 then", "git.json is missing, so what it says"):
        assert text in err
        assert any(text in line[0] for line in told)


def test_an_interrupted_reproduction_goes_on_and_a_finished_one_is_compared_again(finished, distill, tmp_path):
    new = ["--output", str(tmp_path / "new")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner_module.StageRunner, "conclude", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        assert distill("reproduce", str(finished), *new)[0] == 130
    code, out, _ = distill("reproduce", str(finished), *new)
    assert code == 0 and "going on after epoch 2 of stage distill" in out
    code, out, _ = distill("reproduce", str(finished), *new)
    assert code == 0 and "stage distill" not in out and "the same, bit for bit" in out


def test_deterministic_is_a_setting_of_the_new_run(finished, distill, tmp_path):
    code, _, err = distill("reproduce", str(finished), "--deterministic", "--output", str(tmp_path / "new"))
    assert code == 0 and "deterministic_algorithms: False then, True now" in err
    assert "deterministic: true" in (tmp_path / "new" / "config_resolved.yaml").read_text()


def test_on_a_gpu_a_run_without_deterministic_comes_with_a_hint(finished, distill, tmp_path, monkeypatch):
    from distill_app.training.experiment import Experiment

    original = Experiment.of.__func__

    class Gpu:
        type = "cuda"

    def on_gpu(kind, config):
        made = original(kind, config)
        made.device = Gpu()
        return made

    monkeypatch.setattr(Experiment, "of", classmethod(on_gpu))
    monkeypatch.setattr("distill_app.training.run.run_experiment", lambda *args, **kwargs: None)
    code, out, err = distill("reproduce", str(finished), "--output", str(tmp_path / "new"))
    assert code == 1 and "on a GPU sums may be taken in another order" in err and "--deterministic" in err
    assert "metrics.jsonl is missing" in out and not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"status.json": '{"state": "failed"}'}, "is not finished (failed); first: distill resume"),
        ({"summary.json": "{"}, "is not finished (its summary.json cannot be read); first: distill resume"),
        ({"config_resolved.yaml": "a: ["}, "config_resolved.yaml cannot be read"),
    ],
    ids=str,
)
def test_a_run_that_is_not_finished_or_cannot_be_read_is_refused(copied, files, says, distill, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, text in files.items():
        (copied / name).write_text(text)
    code, _, err = distill("reproduce", str(copied))
    assert code == 2 and says in err and "Traceback" not in err
    assert not (tmp_path / "outputs").exists()


def test_another_run_and_the_run_itself_are_no_folder_for_it(finished, copied, distill, tmp_path):
    for place in (finished, finished / "inside"):
        code, _, err = distill("reproduce", str(finished), "--output", str(place))
        assert code == 2 and "lies in the run that shall be left as it is" in err
    (tmp_path / "link").symlink_to(finished)
    assert distill("reproduce", str(finished), "--output", str(tmp_path / "link"))[0] == 2
    run(tmp_path / "other", "stage.epochs=1")
    before = contents(tmp_path / "other")
    code, _, err = distill("reproduce", str(finished), "--output", str(tmp_path / "other"))
    assert code == 2 and "holds another experiment" in err and contents(tmp_path / "other") == before


def test_a_package_of_the_user_has_to_be_allowed_again(copied, distill, tmp_path):
    text = (copied / "config_resolved.yaml").read_text().partition("\n")[2]
    (copied / "config_resolved.yaml").write_text(text.replace("distill_app.losses.FactorTransfer", "mypkg.Loss"))
    assert "mypkg.Loss" in (copied / "config_resolved.yaml").read_text()
    code, _, err = distill("reproduce", str(copied), "--output", str(tmp_path / "new"))
    assert code == 2 and "--allow mypkg" in err and not (tmp_path / "new" / "summary.json").exists()

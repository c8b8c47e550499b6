"""The folder of a run is one process's own, however many start in the same second."""

import subprocess
import sys
from pathlib import Path

import pytest

from distill_app.runs.folders import NewFolders


def test_a_path_that_is_taken_gets_a_number(tmp_path):
    path = str(tmp_path / "2026-01-01" / "12-00-00")
    assert [NewFolders()(path) for _ in range(3)] == [path, f"{path}-2", f"{path}-3"]
    assert all(Path(folder).is_dir() for folder in (path, f"{path}-2", f"{path}-3"))


def test_the_same_path_is_the_same_folder_for_the_same_process(tmp_path):
    folders = NewFolders()
    assert folders(str(tmp_path / "a")) == folders(str(tmp_path / "a")) == str(tmp_path / "a")


def test_a_folder_in_which_no_run_began_is_taken_back(tmp_path):
    folders = NewFolders()
    empty, noted, begun = (Path(folders(str(tmp_path / name))) for name in ("empty", "noted", "begun"))
    for folder in (noted, begun):
        (folder / ".hydra").mkdir()
        (folder / ".hydra" / "config.yaml").touch()
    (begun / "status.json").touch()
    folders.take_back()
    assert not empty.exists() and not noted.exists() and (begun / "status.json").exists()


def test_a_file_in_the_way_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError):
        NewFolders()(str(tmp_path / "file" / "run"))


def test_processes_that_ask_at_once_get_a_folder_each(tmp_path):
    program = "import sys; from distill_app.runs.folders import NewFolders; print(NewFolders()(sys.argv[1]))"
    command = [sys.executable, "-c", program, str(tmp_path / "outputs" / "day" / "time")]
    checkout = {"PYTHONPATH": str(Path(__file__).parents[2])}
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=checkout) for _ in range(8)]
    folders = {process.communicate(timeout=120)[0].strip() for process in started}
    assert len(folders) == 8 and all(Path(folder).is_dir() for folder in folders)


@pytest.mark.slow
def test_two_runs_that_start_at_once_do_not_share_a_folder(tmp_path, tiny):
    command = [sys.executable, "-m", "distill_app", *tiny, "prelude=none", "debug=one_batch"]
    # One name for both, as two starts in one second have.
    command += ["hydra.run.dir='${new_folder:outputs/now}'"]
    env = {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1", "HOME": str(tmp_path)}
    started = [subprocess.Popen([*command, f"seed={seed}"], cwd=tmp_path, env=env) for seed in (1, 2)]
    assert [process.wait(timeout=300) for process in started] == [0, 0]
    summaries = sorted(tmp_path.glob("outputs/*/summary.json"))
    assert [path.parent.name for path in summaries] == ["now", "now-2"]
    assert len({path.read_text() for path in summaries}) == 2


@pytest.mark.slow
def test_what_is_wrong_and_what_only_shows_leaves_no_folder(distill, tmp_path, monkeypatch, tiny):
    monkeypatch.chdir(tmp_path)
    for line in (["+deda=1"], ["--cfg", "hydra", "--resolve"], [*tiny, "prelude=none", "dry_run=true"]):
        distill(*line)
        assert not list(tmp_path.glob("outputs/*/*")), line


@pytest.mark.slow
def test_a_folder_that_was_typed_stays_what_it_is(distill, tmp_path, monkeypatch, tiny):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    assert distill(*tiny, "prelude=none", "debug=one_batch", "hydra.run.dir=mine")[0] == 0
    assert (tmp_path / "mine" / "summary.json").is_file() and not (tmp_path / "outputs").exists()


@pytest.mark.slow
def test_the_points_of_a_sweep_share_a_folder_of_the_sweeps_own(distill, tmp_path, monkeypatch, tiny):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert distill(*tiny, "prelude=none", "debug=one_batch", "-m", "seed=0,1")[0] == 0
    sweeps = list(tmp_path.glob("outputs/*/*"))
    assert len(sweeps) == 2
    for sweep in sweeps:
        assert sorted(path.name for path in sweep.iterdir() if path.is_dir()) == ["0", "1"]

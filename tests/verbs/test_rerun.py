"""`distill rerun`: that run, with other values for some of its keys, in a new folder."""

import json
import shlex
import shutil
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from distill_app.errors import UsageError
from distill_app.verbs import call
from distill_app.verbs.overrides import merged


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny):
    """The notes of a run that Hydra started, as it leaves them, with a dry run in the place of training."""
    folder = tmp_path_factory.mktemp("runs") / "first run"
    write_run(folder, [*tiny, "prelude=none", "seed=1"])
    return folder


def write_run(folder: Path, overrides: list[str], **notes) -> None:
    from distill_app.config.tree import compose

    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "overrides.yaml").write_text(OmegaConf.to_yaml(overrides))
    (folder / ".hydra" / "hydra.yaml").write_text(json.dumps({"hydra": notes}))
    own = [Path(each["path"]) for each in notes.get("runtime", {}).get("config_sources", [])]
    cfg = compose(overrides, config_dirs=[str(each) for each in own if each.is_dir()])
    (folder / "config_resolved.yaml").write_text(OmegaConf.to_yaml(cfg, resolve=True))


@pytest.mark.parametrize(
    ("stored", "new", "line"),
    [
        (["method=kd", "seed=1"], ["seed=2"], ["method=kd", "seed=2"]),
        (["method=kd", "seed=1"], ["method=at"], ["seed=1", "method=at"]),
        (["model@teacher=resnet18"], ["model@student=resnet8"], ["model@teacher=resnet18", "model@student=resnet8"]),
        (["+loss@a.losses.x=at"], ["loss@a.losses.x=kl"], ["+loss@a.losses.x=kl"]),
        (["+a.b=1"], ["a.b=2"], ["+a.b=2"]),
        (["++a.b=1"], ["a.b=2"], ["++a.b=2"]),
        (["+a.b=1", "c=2"], ["~a.b"], ["c=2"]),
        (["a.b=1"], ["~a.b"], ["~a.b"]),
        (["~a.b"], ["a.b=2"], ["a.b=2"]),
        (["a=1"], ["+b=2"], ["a=1", "+b=2"]),
        (["stage.lr=0.1"], ["stage=imagenet_sgd"], ["stage.lr=0.1", "stage=imagenet_sgd"]),
        ([], ["seed=2"], ["seed=2"]),
    ],
)
def test_new_overrides_take_the_place_of_those_of_the_same_key(stored, new, line):
    assert merged(stored, new) == line


@pytest.mark.slow
def test_the_line_of_the_new_run_is_the_old_one_with_the_new_values(made, tiny, capsys):
    line = call("rerun", [str(made), "seed=2", "stage.lr=0.3"])
    assert line == [*tiny, "prelude=none", "seed=2", "stage.lr=0.3"]
    err = capsys.readouterr().err
    assert shlex.split(err.splitlines()[-1]) == ["distill", *line] and "warning" not in err


@pytest.mark.slow
def test_a_rerun_may_be_a_sweep_and_flags_may_stand_anywhere(made, tiny):
    line = call("rerun", [str(made), "seed=2,3", "-m", "--allow", "mine", "method=kd,at"])
    assert line[:2] == ["--multirun", "runtime.allow=[timm,mine]"] and line[-2:] == ["seed=2,3", "method=kd,at"]


@pytest.mark.slow
def test_a_rerun_runs_in_a_new_folder_and_leaves_the_old_one(distill, tmp_path, monkeypatch, tiny):
    monkeypatch.chdir(tmp_path)
    first = [*tiny, "prelude=none", "debug=one_batch", "seed=1"]
    assert distill(*first)[0] == 0
    (old,) = tmp_path.glob("outputs/*/*")
    before = {path: path.stat().st_mtime_ns for path in old.rglob("*")}
    code, _, err = distill("rerun", str(old.relative_to(tmp_path)), "seed=2")
    assert code == 0, err
    (new,) = set(tmp_path.glob("outputs/*/*")) - {old}
    configs = [OmegaConf.load(run / "config_resolved.yaml") for run in (old, new)]
    assert [config.seed for config in configs] == [1, 2] and OmegaConf.merge(*configs, {"seed": 1}) == configs[0]
    assert {path: path.stat().st_mtime_ns for path in old.rglob("*")} == before
    assert "seed=2" in (new / "command.txt").read_text()
    again, _, err = distill("rerun", str(new), "sede=3")
    assert again == 2 and "did you mean 'seed'?" in err


@pytest.mark.slow
def test_what_the_config_files_give_otherwise_today_is_told(made, tmp_path, capsys):
    changed = Path(shutil.copytree(made, tmp_path / "changed"))
    config = OmegaConf.load(changed / "config_resolved.yaml")
    config.stage.lr, config.stage.batch_size = 0.7, 13
    OmegaConf.save(config, changed / "config_resolved.yaml")
    call("rerun", [str(changed), "seed=2"])
    err = capsys.readouterr().err
    assert "warning: the config files have changed since" in err
    assert "stage.lr: 0.7, now 0.2" in err and "stage.batch_size: 13, now 64" in err


@pytest.mark.slow
def test_overrides_that_compose_no_more_are_told_as_errors(made, tmp_path, distill):
    old = Path(shutil.copytree(made, tmp_path / "old"))
    (old / ".hydra" / "overrides.yaml").write_text("[methd=kd, seed=1]")
    code, _, err = distill("rerun", str(old), "seed=2")
    assert code == 2 and "unknown key 'methd'" in err and "Traceback" not in err


@pytest.mark.slow
def test_a_folder_with_config_of_ones_own_is_found_again(tmp_path, tiny):
    mine = tmp_path / "mine"
    (mine / "method").mkdir(parents=True)
    (mine / "method" / "mine.yaml").write_text("defaults: [kd, _self_]\nname: mine\n")
    sources = {"config_sources": [{"path": str(mine), "schema": "file", "provider": "command-line"}]}
    write_run(tmp_path / "run", [*tiny, "method=mine"], runtime=sources)
    line = call("rerun", [str(tmp_path / "run"), "seed=2"])
    assert line == ["--config-dir", str(mine), *tiny, "method=mine", "seed=2"]
    mine.rename(tmp_path / "moved")
    with pytest.raises(UsageError, match="say where it is now: --config-dir FOLDER"):
        call("rerun", [str(tmp_path / "run"), "seed=2"])
    line = call("rerun", [str(tmp_path / "run"), "seed=2", "--config-dir", str(tmp_path / "moved")])
    assert line[:2] == ["--config-dir", str(tmp_path / "moved")]


def test_config_inside_of_a_runs_folder_is_not_trusted(tmp_path, tiny):
    inside = tmp_path / "run" / "conf"
    sources = {"config_sources": [{"path": str(inside), "schema": "file", "provider": "command-line"}]}
    write_run(tmp_path / "run", list(tiny), runtime=sources)
    inside.mkdir()
    with pytest.raises(UsageError, match="had its own config in"):
        call("rerun", [str(tmp_path / "run")])


@pytest.mark.slow
@pytest.mark.parametrize(
    "evil",
    [
        "hydra.callbacks.x._target_=os.system",
        "+hydra.callbacks.x={_target_:os.system}",
        "hydra/launcher=evil",
        "runtime.allow=[os]",
        "++runtime.allow=[os]",
    ],
)
def test_a_stored_line_may_not_say_what_code_runs(evil, made, tmp_path):
    other = Path(shutil.copytree(made, tmp_path / "other"))
    (other / ".hydra" / "overrides.yaml").write_text(OmegaConf.to_yaml(["seed=1", evil]))
    assert call("rerun", [str(other), "stage.lr=0.3"]) == ["seed=1", "stage.lr=0.3"]
    assert evil in call("rerun", [str(other), evil]), "what is typed now is one's own"


@pytest.mark.slow
def test_a_stored_line_with_torch_hub_is_refused_until_it_is_allowed(made, tmp_path):
    other = Path(shutil.copytree(made, tmp_path / "other"))
    (other / "config_resolved.yaml").unlink()
    for hub in (
        ["student.net._target_=torch.hub.load"],
        ["model@student=hub_local"],
        ["seed=${x}", "model@student=hub_local"],
    ):
        (other / ".hydra" / "overrides.yaml").write_text(OmegaConf.to_yaml(hub))
        for new in (["seed=2"], ["seed=2,3", "-m"], ["sede=2"]):
            with pytest.raises(UsageError, match=r"--allow torch\.hub\.load"):
                call("rerun", [str(other), *new])
        assert hub[-1] in call("rerun", [str(other), "seed=2", "--allow", "torch.hub.load"])


def test_a_stored_line_that_is_a_sweep_is_none_of_a_run(made, tmp_path):
    other = Path(shutil.copytree(made, tmp_path / "other"))
    (other / ".hydra" / "overrides.yaml").write_text(OmegaConf.to_yaml(["student.net._target_=a,torch.hub.load"]))
    with pytest.raises(UsageError, match="has several values"):
        call("rerun", [str(other), "-m", "seed=2,3"])


@pytest.mark.slow
def test_a_run_from_python_is_started_again_from_its_config(made, tmp_path, distill, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "api").mkdir()
    shutil.copy(made / "config_resolved.yaml", tmp_path / "api")
    code, out, err = distill("rerun", "api", "seed=2", "stage.epochs=3", "dry_run=true")
    assert code == 0 and "100 images of digits, 3 epochs" in out, err
    code, _, err = distill("rerun", "api", "stage.epoch=3")
    assert code == 2 and "did you mean 'stage.epochs'?" in err
    code, _, err = distill("rerun", "api", "method=at")
    assert code == 2 and "chooses a group; give keys" in err


def test_a_folder_that_is_no_run_is_told(made, tmp_path, distill):
    code, _, err = distill("rerun", str(made.parent), "seed=2")
    assert code == 2 and f"holds 1 runs, name one of them: {made}" in err
    for place in (tmp_path, tmp_path / "nothing"):
        code, _, err = distill("rerun", str(place), "seed=2")
        assert code == 2 and "is not a run nor in one" in err and "Traceback" not in err
    broken = tmp_path / "broken"
    (broken / ".hydra").mkdir(parents=True)
    for text in ("{a: 1}", "a: [", "[1]"):
        (broken / ".hydra" / "overrides.yaml").write_text(text)
        code, _, err = distill("rerun", str(broken))
        assert code == 2 and "overrides.yaml" in err and "Traceback" not in err

"""The application from Python, as the README shows it."""

import importlib
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import distill_app
from distill_app import TappedModel, compose, run
from distill_app.config.groups import groups, options_of
from distill_app.errors import ConfigError


def test_a_config_is_composed_and_run_in_a_folder(tmp_path, tiny):
    cfg = compose([*tiny, "prelude=none", "method=at", "debug=one_batch"])
    cfg.seed = 3
    folder = tmp_path / "from python"
    summary = run(cfg, output_dir=str(folder))
    assert summary["method"] == "at" and summary["seed"] == 3
    assert {row["network"] for row in summary["rows"]} >= {"student"}
    assert all(0 <= row["accuracy"] <= 1 for row in summary["rows"])
    assert (folder / "student.pt").is_file() and (folder / "config_resolved.yaml").is_file()
    assert "${" in str(cfg), "the given config is not changed"
    assert run(cfg, output_dir=str(folder)) == summary, "a finished run is found"


def test_all_that_is_wrong_is_raised_at_once(tiny, tmp_path):
    cfg = compose([*tiny, "+deda=1", "student.net._target_=os.system"])
    with pytest.raises(ConfigError) as raised:
        run(cfg, output_dir=str(tmp_path))
    assert len(raised.value.errors) == 2 and list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_nothing_is_printed_as_an_error_when_called_from_python(tiny, capsys):
    with pytest.raises(ConfigError):
        run(compose([*tiny, "+deda=1"]))
    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_a_dry_run_prints_the_plan_and_makes_no_run(tiny, tmp_path, capsys):
    folder = tmp_path / "run"
    assert run(compose([*tiny, "method=fitnet", "prelude=none", "dry_run=true"]), output_dir=str(folder)) == {}
    plan = capsys.readouterr().out
    assert "stage hint: 100 images of digits, 100 epochs" in plan
    assert (
        "network student: trained, random initialisation, runs up to stage2 and no further" in plan
        and "stage2: (2, 8, 4, 4)" in plan
    )
    assert "adapter regressor: trained" in plan and "term hint: 1 x MSELoss(input=adapters.regressor" in plan
    assert not folder.exists()


def test_folders_of_ones_own_add_options(tmp_path):
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "mine.yaml").write_text("# mine\ndefaults: [kd, _self_]\nname: mine\n")
    assert compose(["method=mine"], config_dirs=[str(tmp_path)]).method.name == "mine"
    assert {"kd", "mine"} <= set(options_of("method", [str(tmp_path)])) and "mine" not in options_of("method")
    assert groups([str(tmp_path)]) == groups()


@pytest.mark.slow
def test_composing_leaves_hydra_as_it_was():
    from hydra.core.global_hydra import GlobalHydra

    compose()
    assert not GlobalHydra.instance().is_initialized()
    assert compose(["seed=1"]).seed == 1 and compose().seed == 0


@pytest.mark.slow
@pytest.mark.parametrize("overrides", [["seed=1", "debug=null"], ["sede=1"]], ids=["right", "wrong"])
def test_somebody_elses_hydra_is_theirs_again_afterwards(overrides, tmp_path):
    import hydra
    from hydra.core.config_store import ConfigStore
    from hydra.core.global_hydra import GlobalHydra

    (tmp_path / "theirs.yaml").write_text("defaults: [schema, debug: none]\nx: 1\n")
    ConfigStore.instance().store(name="schema", node={"y": 2})
    ConfigStore.instance().store(group="debug", name="none", node={"z": 3})
    with hydra.initialize_config_dir(str(tmp_path), version_base="1.2"):
        before = GlobalHydra.instance().hydra
        try:
            compose(overrides)
        except ConfigError as error:
            assert overrides == ["sede=1"] and "did you mean 'seed'?" in str(error)
        assert GlobalHydra.instance().hydra is before and hydra.version.getbase().minor == 2
        assert hydra.compose("theirs") == {"x": 1, "y": 2, "debug": {"z": 3}}
    assert not GlobalHydra.instance().is_initialized()


@pytest.mark.slow
def test_composing_inside_of_somebody_elses_application(tmp_path):
    (tmp_path / "theirs.yaml").write_text("x: 1\n")
    program = """
import hydra, distill_app
from hydra.core.hydra_config import HydraConfig
@hydra.main(config_path=".", config_name="theirs", version_base="1.3")
def main(cfg):
    assert distill_app.compose(["method=at"]).method.name == "at"
    assert hydra.compose("theirs").x == cfg.x == 1 and HydraConfig.get().job.name == "app"
    assert hydra.utils.get_original_cwd()
    print("done")
main()
"""
    (tmp_path / "app.py").write_text(program)
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "app.py", f"hydra.run.dir={tmp_path}/run"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120)
    assert done.stdout == "done\n", done.stderr


def test_importing_the_package_imports_nothing_heavy():
    program = "import sys, distill_app; assert not {'torch', 'hydra', 'numpy'} & set(sys.modules); distill_app.compose"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60, cwd=Path(__file__).parents[1])


def test_the_names_of_the_readme_are_there_after_the_import_of_any_module():
    for module in pkgutil.iter_modules(distill_app.__path__, "distill_app."):
        if module.name != "distill_app.__main__":
            importlib.import_module(module.name)
    assert distill_app.compose is compose and distill_app.run is run and distill_app.TappedModel is TappedModel
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        distill_app.nothing  # noqa: B018


def test_the_hook_engine_works_alone():
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(inplace=True), torch.nn.Flatten())
    with TappedModel(model, {"mid": "0", "pre": "-2:in"}) as tapped:
        taps = tapped(torch.randn(1, 3, 8, 8))
    assert {name: tuple(tap.shape) for name, tap in taps.items()} == {"mid": (1, 4, 6, 6), "pre": (1, 4, 6, 6)}
    assert model[1].inplace and not model[0]._forward_hooks

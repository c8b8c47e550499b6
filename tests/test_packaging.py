"""The installed application: from a wheel, and from an editable checkout, in another working directory."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow


def run(*command: str, cwd: Path, path: Path | None = None) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONPATH", None)
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    # From a copy: setuptools leaves a build folder beside the sources, from which a later wheel would take old files.
    folder, source = tmp_path_factory.mktemp("dist"), tmp_path_factory.mktemp("source") / "checkout"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("distill_app", "conf"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(source))
    run(*command, cwd=folder)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The wheel in a folder of its own; torch and the rest come from this environment."""
    target = tmp_path_factory.mktemp("site")
    run(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), str(wheel), cwd=target)
    return target


def test_wheel_holds_every_config_and_the_bundled_data(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    configs = {f"distill_app/conf/{path.relative_to(ROOT / 'conf')}" for path in (ROOT / "conf").rglob("*.yaml")}
    assert configs <= names and len(configs) > 80
    bundled = {f"distill_app/data/bundled/{path.name}" for path in (ROOT / "distill_app/data/bundled").iterdir()}
    assert bundled <= names and any(name.endswith(".npz") for name in bundled)
    assert not any(name.startswith(("tests/", "outputs/", "conf/")) for name in names)


def test_wheel_runs_in_another_folder(installed, tmp_path):
    where = run(sys.executable, "-c", "import distill_app; print(distill_app.__file__)", cwd=tmp_path, path=installed)
    assert Path(where.strip()).is_relative_to(installed)
    command = (sys.executable, "-m", "distill_app", "experiment=digits/kd", "debug=one_batch", "hydra.run.dir=out")
    printed = run(*command, cwd=tmp_path, path=installed)
    assert "student with kd" in printed
    assert (tmp_path / "out" / "curves.png").is_file()


def test_console_script_of_the_checkout_runs_in_another_folder(tmp_path):
    script = Path(sys.executable).with_name("distill")
    printed = run(str(script), "--cfg", "job", "method=at", cwd=tmp_path)
    assert "AttentionTransfer" in printed


def test_checkout_runs_where_it_lies(tmp_path):
    command = (sys.executable, "-m", "distill_app", "experiment=digits/kd", "debug=one_batch")
    printed = run(*command, f"hydra.run.dir={tmp_path}/with space", cwd=ROOT)
    assert "student with kd" in printed

"""The wheel and the editable install: complete, and working from a folder that is not the checkout's."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

CHECKOUT = Path(__file__).parents[2]
ENVIRONMENT = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "HYDRA_FULL_ERROR")}


def call(*command: object, cwd: Path) -> str:
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A copy of what is packaged, so that building leaves nothing in the checkout."""
    folder = tmp_path_factory.mktemp("source")
    for name in ("distill_app", "conf"):
        shutil.copytree(CHECKOUT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, folder)
    return folder


@pytest.fixture(scope="module")
def wheel(source, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    call(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, cwd=source)
    (built,) = out.glob("*.whl")
    return built


def environment(folder: Path, *install: object) -> Path:
    """A virtual environment with the package and, by a path, what it depends on; the checkout is not in it."""
    call(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder.parent)
    python = folder / "bin" / "python"
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    flags = ("--quiet", "--no-deps", "--no-index", "--ignore-installed", "--no-build-isolation")
    call(sys.executable, "-m", "pip", "--python", python, "install", *flags, *install, cwd=folder.parent)
    return folder / "bin"


@pytest.fixture(scope="module", params=["wheel", "editable"])
def installed(request, tmp_path_factory) -> tuple[Path, Path]:
    """The commands of an environment, and the folder in which its package must lie."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "wheel":
        return environment(folder / "env", request.getfixturevalue("wheel")), folder
    source = request.getfixturevalue("source")
    return environment(folder / "env", "-e", source), source


def test_the_wheel_holds_all_modules_configs_data_and_licences_and_nothing_else(wheel, source):
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {path.relative_to(source).as_posix() for path in source.glob("distill_app/**/*.py")}
    texts = [*source.glob("conf/**/*.yaml"), *source.glob("conf/method/*.md")]
    configs = {f"distill_app/{path.relative_to(source).as_posix()}" for path in texts}
    bundled = {path.relative_to(source).as_posix() for path in source.glob("distill_app/data/bundled/*")}
    assert {"distill_app/conf/config.yaml", "distill_app/conf/model/taps/resnet.yaml"} <= configs
    assert {"digits.npz", "fashion_mini.npz", "LICENSE.digits.txt"} <= {name.rsplit("/", 1)[1] for name in bundled}
    packaged = {name for name in names if ".dist-info/" not in name}
    assets = {path.relative_to(source).as_posix() for path in source.glob("distill_app/report/assets/*")}
    figures = {path.relative_to(source).as_posix() for path in source.glob("distill_app/report/figures/*.yaml")}
    assert len(assets) == 6 and len(figures) == 1
    assert packaged == modules | configs | bundled | assets | figures | {"distill_app/py.typed"}
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_the_command_and_the_module_work_from_another_folder(installed, tmp_path, tiny):
    commands, home = installed
    place = call(commands / "python", "-c", "import distill_app; print(distill_app.__file__)", cwd=tmp_path)
    assert home in Path(place.strip()).parents and CHECKOUT not in Path(place.strip()).parents

    for command in ([commands / "distill"], [commands / "python", "-m", "distill_app"]):
        assert "name: fitnet" in call(*command, "--cfg", "job", "method=fitnet", cwd=tmp_path)
    shown = call(commands / "distill", *tiny, "prelude=none", "debug=one_batch", "hydra.run.dir=run", cwd=tmp_path)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["method"] == "kd" and "student" in shown
    assert json.loads(call(commands / "distill", "evaluate", "run", cwd=tmp_path))["network"] == "student"


def test_a_package_in_the_working_folder_is_found_by_the_command(installed, tmp_path, tiny):
    commands, _ = installed
    (tmp_path / "mypkg.py").write_text("from torch import nn\nclass Loss(nn.MSELoss):\n    pass\n")
    loss = "method.stages.distill.losses.ce.loss={_target_: mypkg.Loss}"
    read = "method.stages.distill.losses.ce.inputs.target=teacher.logits"
    plan = call(commands / "distill", *tiny, loss, read, "runtime.allow=[mypkg]", "dry_run=true", cwd=tmp_path)
    assert "Loss(input=student.logits, target=teacher.logits)" in plan

"""What the tests of configuration and command line share: cached composition, all errors of a config, the program."""

import gc
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import pytest
from engine_fixtures import mostly_slow
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from distill_app.check.command_line import composition_errors
from distill_app.check.quick import check
from distill_app.cli import main as run_main
from distill_app.config.groups import options_of
from distill_app.config.tree import compose
from distill_app.errors import is_of_composition

# Teacher 32-64-128 and student 8-16 on digits of 8 x 8: a run of one batch takes a second.
TINY = (
    "dataset=digits",
    "stage=digits",
    "model@teacher=plain_32_64_128",
    "model@student=plain_8_16",
    "teacher.allow_random=true",
    "runtime.threads=1",
    "tracker=none",
)


@pytest.fixture(autouse=True)
def no_choices_of_before(monkeypatch) -> None:
    """Hydra keeps what a command line chose for as long as the process lives, which here is that of many of them."""
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)


@pytest.fixture(scope="session")
def tiny() -> tuple[str, ...]:
    """Overrides of an experiment as small as it gets."""
    return TINY


@lru_cache(maxsize=512)
def _composed(overrides: tuple[str, ...]) -> DictConfig:
    return compose(overrides)


@pytest.fixture(scope="session")
def composed() -> Callable[..., DictConfig]:
    """Composes overrides, each set of them once."""
    return lambda *overrides: _composed(overrides).copy()


@pytest.fixture(scope="session")
def errors_of() -> Callable[..., list[str]]:
    """Everything that the command line would say about overrides, composition included."""

    def errors(*overrides: str, config_dirs: Sequence[str] = ()) -> list[str]:
        try:
            cfg = compose(overrides, config_dirs=config_dirs) if config_dirs else _composed(overrides)
        except Exception as error:
            if not is_of_composition(error):
                raise
            return list(composition_errors(error, overrides, config_dirs=config_dirs))
        return list(check(cfg))

    return errors


@pytest.fixture
def distill(monkeypatch, capsys) -> Callable[..., tuple[int, str, str]]:
    """Runs the command line in this process: exit code, stdout, stderr."""

    def run(*arguments: str, full: bool = False) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["distill"])
        monkeypatch.setattr(sys, "path", list(sys.path))
        monkeypatch.setenv("HYDRA_FULL_ERROR", str(int(full)))
        with pytest.raises(SystemExit) as exit_:
            run_main(arguments)
        printed = capsys.readouterr()
        return exit_.value.code or 0, printed.out, printed.err

    return run


@pytest.fixture(scope="session")
def distill_process() -> Callable[..., subprocess.CompletedProcess]:
    """Runs `python -m distill_app` in a process of its own; it costs the import of torch, if it gets that far."""

    def run(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess:
        checkout = str(Path(__file__).parents[1])
        paths = os.pathsep.join([environment.pop("PYTHONPATH", ""), checkout]).strip(os.pathsep)
        variables = {**os.environ, "PYTHONPATH": paths, **environment}
        variables.pop("HYDRA_FULL_ERROR", None)
        command = [sys.executable, "-m", "distill_app", *arguments]
        return subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True, timeout=300, check=False)

    return run


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "options(group): runs the test for every option of a config group")
    gc.set_threshold(50_000, 20, 50)  # a tenth of a process's time goes into looking through torch and all tests


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`@pytest.mark.options("group")` runs a test for every option of a config group, in the fast tier for `quick`."""
    marker = metafunc.definition.get_closest_marker("options")
    if marker:
        (group,) = marker.args
        quick = marker.kwargs.get("quick", options_of(group))
        metafunc.parametrize("option", mostly_slow(options_of(group), *quick))

"""Sweeps on the command line: their points one by one, under other launchers and sweepers, and what they leave held."""

import json
import textwrap
from pathlib import Path

import pytest

from distill_app.runs.journal import Journal

SMALL = ("prelude=none", "debug=one_batch", "runtime.max_epochs=1")

# Measures the process after each job: megabytes, open files, threads, child processes.
PROBE = """
import os, threading
from hydra.experimental.callback import Callback

class Probe(Callback):
    def on_job_end(self, config, job_return, **kwargs):
        pages = int(open("/proc/self/statm").read().split()[1])
        children = open(f"/proc/self/task/{os.getpid()}/children").read().split()
        row = (pages * os.sysconf("SC_PAGE_SIZE") / 1e6, len(os.listdir("/proc/self/fd")))
        row += (threading.active_count(), len(children))
        with open("probe.txt", "a") as file:
            print(*row, file=file)
"""

# A launcher that runs every job in a process of its own, as those of joblib and submitit do.
LAUNCHER = """
import subprocess, sys, tempfile
from dataclasses import dataclass
import cloudpickle
from hydra.core.config_store import ConfigStore
from hydra.core.singleton import Singleton
from hydra.core.utils import run_job, setup_globals
from hydra.plugins.launcher import Launcher
from omegaconf import open_dict

@dataclass
class Conf:
    _target_: str = "hydra_plugins.apart.Apart"

ConfigStore.instance().store(group="hydra/launcher", name="apart", node=Conf, provider="test")

RUN = '''
import sys, cloudpickle
work, singletons = cloudpickle.load(open(sys.argv[1], "rb"))
from hydra.core.singleton import Singleton
from hydra.core.utils import setup_globals
setup_globals()
Singleton.set_state(singletons)
cloudpickle.dump(work(), open(sys.argv[2], "wb"))
'''

class Apart(Launcher):
    def setup(self, *, hydra_context, task_function, config):
        self.context, self.task, self.config = hydra_context, task_function, config

    def launch(self, job_overrides, initial_job_idx):
        setup_globals()
        returns = []
        for number, overrides in enumerate(job_overrides, start=initial_job_idx):
            config = self.context.config_loader.load_sweep_config(self.config, list(overrides))
            with open_dict(config):
                config.hydra.job.id = config.hydra.job.num = number
            context, task = self.context, self.task
            def work(config=config, context=context, task=task):
                return run_job(hydra_context=context, task_function=task, config=config,
                               job_dir_key="hydra.sweep.dir", job_subdir_key="hydra.sweep.subdir")
            with tempfile.TemporaryDirectory() as folder:
                with open(f"{folder}/in", "wb") as file:
                    cloudpickle.dump((work, Singleton.get_state()), file)
                subprocess.run([sys.executable, "-c", RUN, f"{folder}/in", f"{folder}/out"], check=True)
                with open(f"{folder}/out", "rb") as file:
                    returns.append(cloudpickle.load(file))
        return returns
"""

# A sweeper that optimises: asks for the objective of one learning rate after the other, and stops when one fails.
SWEEPER = """
from dataclasses import dataclass, field
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper

@dataclass
class Conf:
    _target_: str = "hydra_plugins.seeking.Seeking"
    rates: list = field(default_factory=lambda: [0.1, 0.2])

ConfigStore.instance().store(group="hydra/sweeper", name="seeking", node=Conf, provider="test")

class Seeking(Sweeper):
    def __init__(self, rates):
        self.rates = rates

    def setup(self, *, hydra_context, task_function, config):
        self.config = config
        self.launcher = Plugins.instance().instantiate_launcher(
            config=config, hydra_context=hydra_context, task_function=task_function)

    def sweep(self, arguments):
        for number, rate in enumerate(self.rates):
            (done,) = self.launcher.launch([[*arguments, f"stage.lr={rate}"]], initial_job_idx=number)
            print(f"told the sweeper: {float(done.return_value):.4f}", flush=True)
"""


@pytest.fixture(scope="module")
def plugins(tmp_path_factory) -> Path:
    """A folder for PYTHONPATH with plugins of Hydra's, as a user would install them."""
    folder = tmp_path_factory.mktemp("plugins")
    (folder / "hydra_plugins").mkdir()
    (folder / "hydra_plugins" / "apart.py").write_text(LAUNCHER)
    (folder / "hydra_plugins" / "seeking.py").write_text(SWEEPER)
    (folder / "probe.py").write_text(textwrap.dedent(PROBE))
    return folder


@pytest.fixture
def sweep(distill_process, plugins, tmp_path, tiny):
    """Runs a sweep in a process of its own."""
    return lambda *words: distill_process(
        "-m", *tiny, *SMALL, "hydra.sweep.dir=sweep", *words, cwd=tmp_path, PYTHONPATH=str(plugins)
    )


def states(folder: Path) -> list[str]:
    return [record["state"] for record in Journal.read(folder / "sweep" / "sweep.jsonl").records]


@pytest.mark.slow
def test_points_are_announced_and_listed_and_errors_stand_with_them(sweep, tmp_path):
    done = sweep("seed=0,1", "stage.lr=0.1,-1")
    assert done.returncode == 2
    lines = done.stdout.splitlines()
    announced = [line for line in lines if line.startswith("[")]
    assert announced == [f"[{i + 1}/4] seed={i // 2} stage.lr={('0.1', '-1')[i % 2]}" for i in range(4)]
    assert "must be above 0, got -1" in done.stderr and done.stderr.splitlines()[-1] == "refused: the same as [2]"
    table = lines[lines.index(next(line for line in lines if line.startswith("point  seed  stage.lr"))) + 2 :]
    assert [line.split()[:3] for line in table[:4]] == [
        ["1", "0", "0.1"],
        ["2", "0", "-1"],
        ["3", "1", "0.1"],
        ["4", "1", "-1"],
    ]
    assert "sweep/0" in table[0] and table[0].endswith("done") and "must be above 0" in table[1]
    assert "Traceback" not in done.stderr
    status = json.loads((tmp_path / "sweep" / "1" / "status.json").read_text())
    assert status["state"] == "refused" and status["point"] == ["seed=0", "stage.lr=-1"]
    assert not (tmp_path / "sweep" / "1" / "summary.json").exists()


@pytest.mark.slow
def test_the_same_sweep_again_finds_its_points_and_another_one_is_refused_before_its_first(sweep, tmp_path):
    assert sweep("seed=0,1").returncode == 0
    multirun = (tmp_path / "sweep" / "multirun.yaml").read_text()
    again = sweep("seed=0,1,2", "runtime.log_every=7")
    assert again.returncode == 0 and again.stdout.count("finished already: ") == 2
    assert states(tmp_path) == ["done", "done", "finished already", "finished already", "done"]
    before = {path: path.read_bytes() for path in (tmp_path / "sweep").rglob("*") if path.is_file()}
    other = sweep("seed=5,6,7,8")
    assert other.returncode == 2 and "seed: 0 -> 5" in other.stderr and "hydra.sweep.dir=..." in other.stderr
    assert {path: path.read_bytes() for path in (tmp_path / "sweep").rglob("*") if path.is_file()} == before
    assert "seed=0,1" in multirun


@pytest.mark.slow
def test_points_in_other_processes_are_in_the_table_and_in_the_exit_code(sweep, tmp_path):
    done = sweep("hydra/launcher=apart", "stage.lr=0.1,-1")
    assert done.returncode == 2, done.stderr
    assert states(tmp_path) == ["done", "refused"]
    assert "must be above 0, got -1" in done.stderr and "refused: " in done.stdout.split("point  stage.lr")[1]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["basic", "apart"])
def test_a_sweeper_that_optimises_is_told_of_a_failed_trial(sweep, tmp_path, launcher):
    done = sweep("hydra/sweeper=seeking", "hydra.sweeper.rates=[0.1,-1,0.2]", f"hydra/launcher={launcher}")
    assert done.returncode == 2
    assert done.stdout.count("told the sweeper: ") == 1 and "float" not in done.stderr
    assert states(tmp_path) == ["done", "refused"] and "Traceback" not in done.stderr
    assert "[2] stage.lr=-1" in done.stdout and "must be above 0, got -1" in done.stdout.split("point  stage.lr")[1]


@pytest.mark.slow
def test_a_second_study_in_the_same_folder_gets_no_objectives_of_the_first(sweep, tmp_path):
    first = sweep("hydra/sweeper=seeking", "hydra.sweeper.rates=[0.1,0.2]")
    again = sweep("hydra/sweeper=seeking", "hydra.sweeper.rates=[0.1,0.2]")
    told = [[line for line in done.stdout.splitlines() if "told the sweeper" in line] for done in (first, again)]
    assert first.returncode == again.returncode == 0 and told[0] == told[1] and len(told[0]) == 2
    other = sweep("hydra/sweeper=seeking", "hydra.sweeper.rates=[0.3,0.4]")
    assert other.returncode == 2 and "told the sweeper" not in other.stdout
    assert "stage.lr: 0.1 -> 0.3" in other.stderr


@pytest.mark.slow
def test_a_job_that_is_over_holds_nothing(sweep, tmp_path):
    words = ["+hydra.callbacks.probe={_target_: probe.Probe}", "scheduler@stage.scheduler=constant"]
    words += ["runtime.num_workers=1", "dataset.resident=false", "runtime.max_steps_per_epoch=3"]
    # A learning rate of 1e30 makes the second loss infinite: half of the jobs fail while they train.
    done = sweep(*words, "stage.batch_size=16", "stage.lr=0.1,1e30", f"seed={','.join(map(str, range(10)))}")
    assert done.returncode == 1, done.stderr
    assert sorted(states(tmp_path)) == ["done"] * 10 + ["failed"] * 10
    rows = [list(map(float, line.split())) for line in (tmp_path / "probe.txt").read_text().splitlines()]
    assert len(rows) == 20
    early, last = rows[5], rows[-1]
    assert last[0] < early[0] + 40, f"megabytes: {[row[0] for row in rows]}"
    for column, what in enumerate(("open files", "threads", "child processes"), start=1):
        assert last[column] <= early[column], f"{what}: {[row[column] for row in rows]}"

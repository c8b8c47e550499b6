"""A sweep that Optuna steers: it looks for the best on the validation images, and gets over points that fail."""

import subprocess
import sys

import pytest
import yaml

pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="pip install 'distill-app[optuna]'")

pytestmark = pytest.mark.slow


def searched(folder, tiny, *overrides):
    line = [sys.executable, "-m", "distill_app", "-m", *overrides, *tiny, "prelude=none", "stage.epochs=1"]
    line += [f"hydra.sweep.dir={folder}"]
    return subprocess.run(line, capture_output=True, text=True, timeout=300, check=False)


def test_it_finds_the_best_of_its_trials_and_counts_those_that_fail(tmp_path, tiny):
    space = ("stage.lr=choice(0.1,0.3,1e30)", "runtime.log_every=1")
    done = searched(tmp_path, tiny, "hydra/sweeper=search", "hydra.sweeper.n_trials=6", *space)
    found = yaml.safe_load((tmp_path / "optimization_results.yaml").read_text())
    rows = [line.split() for line in done.stdout.splitlines() if line.strip()[:1].isdigit() and " done" in line]
    objectives = [float(row[2]) for row in rows]
    assert len(objectives) >= 1 and "failed" in done.stdout and done.returncode == 1
    assert found["best_value"] == pytest.approx(max(objectives), abs=1e-3)
    assert found["best_params"]["stage.lr"] != 1e30


def test_looking_for_the_worst_is_refused(tmp_path, tiny):
    done = searched(tmp_path, tiny, "hydra/sweeper=optuna", "hydra.sweeper.n_trials=2", "stage.lr=interval(0.1,0.2)")
    assert done.returncode != 0 and "type hydra/sweeper=search" in done.stderr
    assert not list(tmp_path.glob("*/summary.json"))


def test_choosing_by_the_test_set_is_told(tmp_path, tiny):
    space = ("hydra.sweeper.n_trials=1", "stage.lr=interval(0.1,0.2)", "dataset.validation_fraction=0")
    done = searched(tmp_path, tiny, "hydra/sweeper=search", *space)
    assert done.returncode == 0 and "dataset.validation_fraction=0.1" in done.stderr

"""Whether processes can share out the batches of a run, told before anything runs."""

import pytest
from omegaconf import OmegaConf

from distill_app.check.share import start_errors
from distill_app.config.schema import to_app
from distill_app.config.tree import compose

TWO = ("launcher=ddp", "launcher.tasks_per_node=2")


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ((*TWO, "stage.batch_size=63"), "stage.batch_size: is that of all processes together, and 63 samples"),
        (("launcher=slurm", "launcher.nodes=3", "stage.batch_size=64"), "evenly among 3 (launcher.nodes x"),
        ((*TWO, "runtime.parallel=fsdp", "cache.enabled=true"), "runtime.parallel: fsdp has all processes run"),
        (("runtime.parallel=fsdp",), "runtime.parallel: fsdp lays a network out on several processes"),
        ((*TWO, "runtime.parallel=zero"), "runtime.parallel: unknown choice 'zero'"),
        ((*TWO, "runtime.rank_timeout_s=0"), "runtime.rank_timeout_s: must be at least 1"),
        ((*TWO, "runtime.compare_ranks_every=0"), "runtime.compare_ranks_every: must be at least 1"),
    ],
)
def test_what_cannot_be_shared_is_told_by_its_key(errors_of, tiny, overrides, told):
    found = errors_of(*tiny, *overrides)
    assert len([text for text in found if told in text]) == 1, found


@pytest.mark.parametrize(
    ("launcher", "environment", "told"),
    [
        ("ddp", {"RANK": "1", "WORLD_SIZE": "2"}, "launcher: torchrun, or the like, has started 2 processes"),
        ("local", {"SLURM_STEP_NUM_TASKS": "4"}, "start one, with launcher=slurm launcher.tasks_per_node=4"),
        ("local", {"SLURM_STEP_NUM_TASKS": "1"}, None),
        ("local", {"SLURM_STEP_NUM_TASKS": "4", "RANK": "0", "WORLD_SIZE": "4"}, None),
        ("ddp", {"RANK": "0", "WORLD_SIZE": "1"}, None),
    ],
)
def test_processes_that_would_each_carry_out_a_run_are_refused(monkeypatch, launcher, environment, told):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    more = ["launcher.tasks_per_node=2"] if launcher == "ddp" else []
    app = to_app(OmegaConf.to_container(compose([f"launcher={launcher}", *more]), resolve=True))
    found = list(start_errors(app))
    assert found == [] if told is None else len(found) == 1 and told in found[0]


@pytest.mark.slow
def test_a_sweep_of_processes_that_were_started_together_is_refused(distill, tiny, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    code, out, err = distill("-m", *tiny, "prelude=none", "seed=0,1")
    assert code and "launcher=ddp launcher.tasks_per_node=2" in out + err


def test_a_last_batch_with_nothing_for_some_process_is_refused(errors_of, tiny):
    # 10 classes of 5 samples: 12, 12, 12, 12 and 2 samples.
    few = ("dataset.student_labels_per_class=5", "stage.batch_size=12", "prelude=none")
    (told,) = errors_of(*tiny, *few, "launcher=ddp", "launcher.tasks_per_node=4")
    assert "leaves a batch of 2 samples for 4 processes" in told and "drop_last=true" in told
    assert errors_of(*tiny, *few, "launcher=ddp", "launcher.tasks_per_node=4", "stage.drop_last=true") == []
    assert errors_of(*tiny, *few, "launcher=ddp", "launcher.tasks_per_node=2") == []

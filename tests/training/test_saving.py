"""When a checkpoint is due within an epoch."""

import pytest

from distill_app.config.schema import CheckpointConf
from distill_app.training.saving import SavingPolicy


def due(conf: CheckpointConf, steps: range) -> list[int]:
    policy, found = SavingPolicy(conf), []
    for step in steps:
        if policy.is_due(step):
            found.append(step)
            policy.saved(step)
    return found


def test_every_so_many_steps_also_where_only_some_steps_can_be_saved():
    assert due(CheckpointConf(every_steps=4, every_minutes=None), range(1, 14)) == [4, 8, 12]
    assert due(CheckpointConf(every_steps=4, every_minutes=None), range(3, 16, 3)) == [6, 9, 12]


def test_never():
    assert due(CheckpointConf(every_minutes=None), range(1, 1000)) == []


def test_every_so_many_minutes(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    policy = SavingPolicy(CheckpointConf(every_minutes=0.5))
    assert not policy.is_due(1)
    now[0] = 30.0
    assert policy.is_due(2)
    policy.saved(2)
    now[0] = 59.9
    assert not policy.is_due(3)


@pytest.mark.parametrize(("key", "value"), [("every_steps", 0), ("every_minutes", -1), ("keep", -1)])
def test_what_makes_no_sense_is_told_before_anything_runs(key, value):
    from distill_app.check.quick import read
    from distill_app.config.tree import compose

    (error,) = read(compose([f"checkpoint.{key}={value}", "prelude=none", "teacher.allow_random=true"]))[0]
    assert error.startswith(f"checkpoint.{key}: must be ")

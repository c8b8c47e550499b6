"""Runs that are killed at random moments end as those that nobody killed; a short form of scripts.stress.kills."""

import random

import pytest

from scripts.stress.kills import stress

pytestmark = pytest.mark.slow


def test_killed_runs_end_bit_for_bit_as_if_nobody_had(tmp_path):
    names = ["kd-workers", "kd-accumulation", "fitnet-cache-workers", "crd", "ft", "sskd", "kd-fp16", "kd-mixup"]
    outcomes = list(stress(tmp_path, names, kills=len(names), rng=random.Random(7)))
    assert outcomes == [[] for _ in names]

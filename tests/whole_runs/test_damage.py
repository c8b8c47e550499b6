"""Damaged files of runs and caches are refused in words or made good; never wrong numbers, never a traceback."""

import random
from collections import Counter
from pathlib import Path

import pytest

from scripts.stress.damage import DAMAGES, Said, Stress, judged, kind_of, stress


@pytest.mark.slow
def test_damage_is_refused_in_words_or_made_good(tmp_path):
    made = stress(tmp_path, count=24, seed=0)
    assert sum(counts["tried"] for counts in made.counts.values()) == 24
    assert not made.failed(), made.findings


def test_what_must_not_be_is_found():
    good = "student 0.912"
    assert judged(Said(0, good, ""), good)[0] == "recovered"
    assert judged(Said(0, "student 0.812", ""), good)[0] == "wrong"
    assert judged(Said(0, "student -", ""), good)[0] == "refused"
    assert judged(Said(1, "", "error: damaged"), good)[0] == "refused"
    assert judged(Said(1, "", ""), good)[0] == "wrong", "a refusal without words"
    assert judged(Said(1, "", "Traceback (most recent call last):"), good)[0] == "traceback"
    assert judged(Said(-1, "", ""), good)[0] == "traceback"


@pytest.mark.parametrize("outcome", ["wrong", "traceback"])
def test_what_must_not_be_fails_the_program(tmp_path, outcome):
    made = Stress(tmp_path, random.Random(0))
    made.counts["stopped metrics.jsonl"] = Counter(tried=1, refused=1)
    assert not made.failed() and "metrics.jsonl" in made.table()
    made.counts["stopped data.json"] = Counter({"tried": 1, outcome: 1})
    assert made.failed()


@pytest.mark.parametrize("damage", DAMAGES)
def test_every_damage_damages(damage):
    content = bytes(range(1, 200))
    assert all(damage(content, random.Random(seed)) != content for seed in range(50))


def test_kinds_of_files_have_no_numbers():
    assert kind_of(Path("stopped/checkpoints/distill/epoch_0001/state.pt")) == "stopped checkpoints state.pt"
    assert kind_of(Path("cache/1f2e/teacher.logits-ab/values.npy")) == "cache tap values.npy"
    assert kind_of(Path("cache/1f2e/meta.json")) == "cache network meta.json"

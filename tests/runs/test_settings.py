"""What makes an experiment: settings, keys that are none, and what is told of a difference."""

import pytest

from distill_app.runs.settings import changes, fingerprint, leading, listed, settings_of

BASE = {
    "seed": 0,
    "stage": {"lr": 0.1, "epochs": 5},
    "method": {"name": "kd", "stages": {"distill": {"lr": 0.1, "losses": {"kd": {"weight": 0.5}}}}},
    "dataset": {"name": "digits", "resident": "auto", "get": "python -c ..."},
    "runtime": {"num_workers": 0, "device": "auto", "precision": "fp32", "allow": ["timm"]},
    "cache": {"folder": "outputs/cache", "views": None},
    "launcher": {"_target_": "distill_app.launch.Local"},
}


def changed(**parts) -> dict:
    return {
        **BASE,
        **{key: {**BASE.get(key, {}), **value} if isinstance(value, dict) else value for key, value in parts.items()},
    }


def texts(new: dict) -> list[str]:
    return [str(change) for change in changes(BASE, new)]


@pytest.mark.parametrize(
    "neutral",
    [
        {"runtime": {"num_workers": 4}},
        {"runtime": {"device": "cuda", "threads": 2, "log_every": 1, "tensorboard": False, "allow": ["mypkg"]}},
        {"launcher": {"_target_": "distill_app.launch.Submitit", "cluster": "slurm"}},
        {"cache": {"folder": "/elsewhere"}},
        {"dataset": {"resident": True, "get": None}},
        {"method": {"about": {"title": "Better words"}}, "prelude": {"about": {"title": "As that"}}},
    ],
    ids=str,
)
def test_where_and_how_loudly_a_run_is_carried_out_is_no_setting(neutral):
    assert changes(BASE, changed(**neutral)) == []
    assert fingerprint(BASE) == fingerprint(changed(**neutral))


@pytest.mark.parametrize(
    ("new", "told"),
    [
        ({"seed": 1}, ["seed: 0 -> 1"]),
        ({"runtime": {"precision": "bf16"}}, ["runtime.precision: fp32 -> bf16"]),
        ({"cache": {"views": 8}}, ["cache.views: null -> 8"]),
        ({"cache": {"top_k": 3}}, ["cache.top_k: null -> 3"]),
        ({"stage": {"lr": 1e-1, "epochs": 5.0}}, []),
        ({"method": {"name": "at", "stages": {}}}, ["method: kd -> at"]),
    ],
    ids=str,
)
def test_a_difference_is_told_by_the_key_that_somebody_would_type(new, told):
    assert texts(changed(**new)) == told


def test_what_follows_from_another_key_is_left_out():
    stages = {"distill": {"lr": 0.2, "losses": {"kd": {"weight": 0.5}}}}
    new = changed(stage={"lr": 0.2}, method={"stages": stages})
    assert texts(new) == ["stage.lr: 0.1 -> 0.2"]
    other = changed(stage={"lr": 0.2}, method={"stages": {"distill": {**stages["distill"], "lr": 0.3}}})
    assert texts(other) == ["stage.lr: 0.1 -> 0.2", "method.stages.distill.lr: 0.1 -> 0.3"]


def test_a_key_that_a_later_version_adds_makes_no_other_experiment():
    new = changed(stage={"patience": None, "lr_scales": {}, "milestones": []})
    assert changes(BASE, new) == [] and fingerprint(BASE) == fingerprint(new)


def test_a_target_stands_for_its_arguments():
    values = {"stage.optimizer._target_": ("SGD", "Adam"), "stage.optimizer.betas": ("-", "1"), "stage.x": ("1", "2")}
    assert leading(values) == ["stage.x", "stage.optimizer._target_"]


def test_runs_of_several_seeds_share_a_fingerprint_and_others_do_not():
    assert fingerprint(changed(seed=3)) == fingerprint(BASE) != fingerprint(changed(stage={"lr": 0.2}))


def test_a_long_list_of_differences_is_cut():
    new = {**BASE, **{f"key{i}x{i}": i for i in range(30)}}
    lines = listed(changes(BASE, new)).splitlines()
    assert len(lines) == 13 and lines[-1] == "  and 18 more"


@pytest.mark.slow
def test_a_config_made_to_explode_is_cut_off():
    bomb: dict = {"a": 1}
    for _ in range(40):
        bomb = {"left": bomb, "right": bomb}
    assert len(settings_of(bomb)) <= 50_000

"""No key and no value of a config is passed over: each is read, told of, or refused by its name."""

import re
from pathlib import Path

import pytest
import yaml
from migration_fixtures import CE, KD, changed, compared, config, mappings, side, stage, told_of, values, version_0

from distill_app.migration.dialect import Tagged, read_config

PAGE = Path(__file__).parents[2] / "docs" / "migration.md"
OTHER = "zigzag"  # stands in no file that is written
# What no key of a config takes, one of each kind of YAML; the tag describes what would be built.
WRONG = {
    "list": [OTHER],
    "nested": [OTHER, {"a": [1]}],
    "mapping": {OTHER: 1},
    "text": OTHER,
    "broken": 2.7,
    "null": None,
    "true": True,
    "infinite": float("inf"),
    "negative": -1,
    "zero": 0,
    "large": 10**400,
    "tag": Tagged("!getattr", {"of": None, "name": OTHER}),
}
# Texts that say nothing which an experiment would not know by itself.
FILLED_IN = re.compile(
    r"forward_hook\.(in|out)put|_model\.(dst_ckpt|ckpt|experiment)$|^datasets\.\w+\.(name|root)$|mode$"
)


def hint_then_kd() -> dict:
    """Two stages with an adaptation, frozen modules, a schedule, a cache and a wrapper of samples."""
    path = ["conv1", "bn1", "relu", "layer1", "layer2"]
    sizes = {"num_input_channels": 32, "num_output_channels": 32, "kernel_size": 1, "stride": 1, "padding": 0}
    adapted = {"convreg": {"key": "ConvReg", "kwargs": sizes}}
    first = stage(
        {"hint": compared("+convreg", "layer2")},
        teacher=side(hooks=("layer2",), requires_grad=False) | {"sequential": path},
        student=side(hooks=("+convreg",), requires_grad=True, adaptations=adapted)
        | {"sequential": [*path, "+convreg"]},
        scheduler={"key": "MultiStepLR", "kwargs": {"milestones": [3], "gamma": 0.1}, "scheduling_step": 1},
    )
    first["train_data_loader"] |= {"cache_output": "./cached", "requires_supp": True}
    wrapper = {"key": "CRDDatasetWrapper", "kwargs": {"num_negative_samples": 2, "mode": "exact", "ratio": 1.0}}
    second = stage({"kd": KD, "ce": CE}, student=side(requires_grad=True, frozen_modules=["conv1"]))
    second["train_data_loader"]["dataset_wrapper"] = wrapper
    second["optimizer"] |= {"grad_accum_step": 2, "max_grad_norm": 1.0, "filters_params": True}
    return {"log_freq": 10, "stage1": first, "stage2": second}


TEXTS = {
    "page": lambda: re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)[0],
    "version 0": lambda: yaml.safe_dump(version_0()),
    "two stages": lambda: config(hint_then_kd()),
}


@pytest.fixture(params=TEXTS)
def content(request, tmp_path) -> dict:
    """A config that is taken over whole."""
    file = tmp_path / "config.yaml"
    file.write_text(TEXTS[request.param](), encoding="utf-8")
    return read_config(file)


@pytest.mark.slow
def test_an_unknown_key_in_any_mapping_is_named(content, monkeypatch):
    assert OTHER not in told_of(content, monkeypatch)[0]
    places = [(*place, OTHER) for place in mappings(content)]
    assert not [place for place in places if OTHER not in told_of(changed(content, place, 5), monkeypatch)[0]]


@pytest.mark.slow
@pytest.mark.parametrize("kind", WRONG)
def test_a_value_of_another_kind_is_told_or_refused_and_never_a_traceback(content, monkeypatch, kind):
    wrong, before = WRONG[kind], told_of(content, monkeypatch)[1]
    assert before is not None
    for place in values(content):
        text, keys = told_of(changed(content, place, wrong), monkeypatch)
        key = ".".join(map(str, place))
        if keys is None or OTHER not in str(wrong) or FILLED_IN.search(key):
            continue
        near = (f"{each}." for each in keys - before)
        assert OTHER in text or any(each.startswith(f"{key}.") or f"{key}.".startswith(each) for each in near), place

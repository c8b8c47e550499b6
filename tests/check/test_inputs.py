"""A wrong input of a network is told before the first batch, and what timm says of one is written down."""

import json

import pytest
from conftest import TINY
from engine_fixtures import mostly_slow

from distill_app.check.quick import read
from distill_app.config.plan import models_of
from distill_app.config.tree import compose

MEAN = "teacher.input={mean: [0.5,0.5,0.5], std: [0.2,0.2,0.2]}"
ALONE = (*TINY, "prelude=none")
NORMALIZE = "{_target_: torchvision.transforms.v2.Normalize, mean: [0.1,0.1,0.1], std: [1,1,1]}"
WRONG = {
    "size": (["teacher.input.size=0"], "teacher.input.size: must be at least 1 pixel"),
    "channels": (["teacher.input.channels=2"], "teacher.input.channels: must be 1 or 3"),
    "alone": (["teacher.input.mean=[0.5,0.5,0.5]"], "teacher.input.std: is missing"),
    "count": (["teacher.input={channels: 1, mean: [0,0,0], std: [1,1,1]}"], "teacher.input.mean: 3 values"),
    "numbers": (["teacher.input={mean: 0.5, std: [1,1,1]}"], "teacher.input.mean: must be a list of numbers"),
    "std": (["teacher.input={mean: [0,0,0], std: [1,0,1]}"], "teacher.input.std: must be above 0"),
    "grey": ([MEAN, "dataset.channels=1"], "teacher.input.channels=3 says how many the network gets"),
    "transform": (
        [MEAN, f"dataset.train_transform=[{NORMALIZE}]"],
        "dataset.train_transform[0]: normalises images where teacher.input cannot see it; put mean and std into "
        "dataset.normalize",
    ),
    "stages": (
        [MEAN, "+dataset@method.stages.distill.data=fashion_mini"],
        "method.stages.distill.data.normalize: differs from dataset.normalize",
    ),
    "find": (["teacher.input.find=true"], "teacher.input.find: only networks of timm say what they take"),
}


@pytest.mark.parametrize("case", mostly_slow(list(WRONG), "size", "alone", "transform"))
def test_what_is_wrong_is_told_with_its_key(case, composed):
    overrides, told = WRONG[case]
    errors = [error for error in read(composed(*ALONE, *overrides))[0] if "input" in error]
    assert errors and told in errors[0]


def test_networks_that_are_configured_as_another_have_its_input(composed):
    app = read(composed(*TINY, MEAN.replace("teacher", "student")))[1]
    assert app.prelude.extra_models["baseline"].input == app.student.input and app.student.input.mean == [0.5] * 3


@pytest.mark.slow
def test_resizing_alone_asks_nothing_of_the_data(composed):
    assert read(composed(*ALONE, "teacher.input.size=16", f"dataset.train_transform=[{NORMALIZE}]"))[0] == []


@pytest.mark.slow
def test_images_that_are_not_what_the_data_say_are_found_out(composed, errors_of, tmp_path, monkeypatch):
    (tmp_path / "scaled_twice.py").write_text(
        "class Scaled:\n    def __call__(self, image):\n        return image.float() / 25.5 - 5\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    line = ("dataset.train_transform=[{_target_: scaled_twice.Scaled}]", "runtime.allow=[scaled_twice]")
    (error,) = errors_of(*ALONE, MEAN, *line, "dataset.resident=false")
    assert error.startswith("dataset.normalize: the first images, taken back by it, lie between -5.00 and")
    assert errors_of(*ALONE, MEAN) == []


TIMM = ("model@teacher=timm", "teacher.net.model_name=vit_tiny_patch16_224", "teacher.net.pretrained=true")


@pytest.mark.slow
def test_timm_says_what_a_published_network_takes_and_it_stands_in_the_config(composed):
    pytest.importorskip("timm")
    errors, app, _ = read(composed(*ALONE, *TIMM, "dataset=fashion_mini", "method=at"))
    own = app.teacher.input
    assert not errors and (own.size, own.mean, own.std, own.channels) == (224, [0.5] * 3, [0.5] * 3, None)
    assert own.find is False and app.teacher.taps["stage4"] == "blocks.11:tokens1"
    assert app.student.input.size is None and app.student.input.find is None
    written = read(composed(*ALONE, *TIMM, "dataset=fashion_mini", "teacher.input.size=32"))[1].teacher.input
    assert (written.size, written.mean) == (32, [0.5] * 3)
    grey = read(composed(*ALONE, *TIMM, "dataset=fashion_mini", "dataset.channels=1"))[1].teacher.input
    assert grey.channels == 3 and grey.mean == [0.5] * 3


def of_timm(name: str, *more: str) -> list[str]:
    words = ["model@teacher=timm", f"teacher.net.model_name='{name}'", "teacher.net.pretrained=true"]
    words += ["teacher.find_taps=false", "+teacher.taps.logits=fc"]  # else it is built
    return [*ALONE, *words, "dataset=fashion_mini", "method=kd", *more]


@pytest.mark.slow
def test_a_network_in_a_folder_or_on_the_hub_says_what_it_takes_too(composed, tmp_path, monkeypatch):
    hub = pytest.importorskip("timm.models._hub")
    found = {"input_size": [3, 96, 96], "mean": [0.1] * 3, "std": [0.2] * 3}
    config = {"architecture": "resnet10t", "num_classes": 2, "pretrained_cfg": found}
    (tmp_path / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr(hub, "load_model_config_from_hf", lambda name, cache_dir=None: (found, "resnet10t", {}))
    for name in (f"local-dir:{tmp_path}", "hf-hub:somebody/net", "hf_hub:somebody/net"):
        errors, app, _ = read(composed(*of_timm(name)))
        own = app.teacher.input
        assert not errors and (own.size, own.mean, own.std, own.find) == (96, [0.1] * 3, [0.2] * 3, False), name


@pytest.mark.slow
def test_a_network_of_which_timm_says_nothing_is_told(composed, tmp_path, monkeypatch, caplog):
    hub = pytest.importorskip("timm.models._hub")

    def offline(name, cache_dir=None):
        raise ConnectionError("no route to the hub\nin many lines")

    monkeypatch.setattr(hub, "load_model_config_from_hf", offline)
    (tmp_path / "config.json").write_text('{"architecture": "resnet10t", "pretrained_cfg": {"mean": [0.5, 0.5, 0.5]}}')
    whole = ("teacher.input.size=32", "teacher.input.mean=[0,0,0]", "teacher.input.std=[1,1,1]")
    for name, why in (
        ("hf-hub:somebody/net", "no route to the hub"),
        (f"local-dir:{tmp_path}", "its config has no input_size"),
        (f"local-dir:{tmp_path}/none", "Config file not found"),
    ):
        (error,) = read(composed(*of_timm(name, "teacher.input.find=true")))[0]
        assert error.startswith(f"teacher.input.find: of {name}, timm says nothing ({why}"), error
        assert "write teacher.input.size, mean and std" in error and not caplog.records
        assert read(composed(*of_timm(name)))[0] == []
        assert f"teacher.input: of {name}, timm says nothing ({why}" in caplog.text
        caplog.clear()
        assert read(composed(*of_timm(name, *whole)))[0] == [] and not caplog.records


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        ("teacher.net.pretrained=false",),
        ("teacher.input.find=false",),
        ("method.stages.distill.train=[student,teacher]",),
    ],
)
def test_no_network_that_is_trained_or_from_scratch_gets_other_images(composed, overrides):
    pytest.importorskip("timm")
    app = read(composed(*ALONE, *TIMM, "dataset=fashion_mini", *overrides))[1]
    assert app.teacher.input.size is None and app.teacher.input.mean is None


@pytest.mark.parametrize("method", ["ban", "dml", "kdcl", "multi_teacher", "simkd", "tfkd_self"])
def test_a_network_that_stands_in_the_place_of_another_gets_its_images(method):
    inputs = ["student.input={size: 16, mean: [0.5, 0.5, 0.5], std: [0.25, 0.25, 0.25]}", "teacher.input={size: 12}"]
    _, app, _ = read(compose(["experiment=digits/kd", f"method={method}", "teacher.allow_random=true", *inputs]))
    models = models_of(app)
    copies = {name for name in models if name not in ("student", "teacher")}
    assert "baseline" in copies and len(copies) > 1
    for name in copies:
        role = "teacher" if name.startswith("teacher") else "student"
        assert models[name].input == models[role].input, name

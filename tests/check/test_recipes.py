"""A network is trained by a recipe that is for such networks, or the check says so."""

import pytest

from distill_app.check.quick import read
from distill_app.check.recipes import recipe_notes, recipes
from distill_app.config.groups import options_of
from distill_app.config.schema import ModelConf
from distill_app.config.tree import compose

KINDS = {"tiny", "cifar", "imagenet", "transformer", "finetune"}


def notes(*overrides):
    _, app, plans = read(compose(overrides))
    return list(recipe_notes(app, plans))


@pytest.mark.slow
@pytest.mark.options("experiment")
def test_no_preset_is_warned_of(option):
    assert notes(f"experiment={option}") == []


def test_the_default_and_the_instant_recipe_are_not_warned_of():
    assert notes() == []
    assert notes("dataset=digits", "stage=digits", "model@teacher=plain_32_64_128", "model@student=plain_8_16") == []


def test_a_large_network_at_the_rate_of_a_tiny_one_is_warned_of_with_what_fits():
    teacher, student = notes("model@teacher=resnet50", "model@student=vit_b_16", "dataset.image_size=32")
    assert teacher.startswith(
        "prelude.stages.teacher: teacher is of the kind imagenet, and the recipe, at a learning rate of 0.1,"
    )
    assert "stage=imagenet_adamw or stage=imagenet_sgd or stage=scratch_adamw" in teacher
    assert "is of the kind transformer" in student and "at a learning rate of 0.4" in student
    assert notes("model@teacher=resnet50", "model@student=mobilenet_v2", "stage=scratch_adamw") == []
    assert notes("model@teacher=resnet50", "model@student=mobilenet_v2", "stage.fits=[]") == []


@pytest.mark.parametrize("file, key", [("torchvision", "name"), ("timm", "model_name")])
def test_any_network_of_a_library_is_warned_of_as_those_with_a_file_of_their_own(file, key):
    pytest.importorskip(file)
    words = (f"model@student={file}", "method=ce", "prelude=none", "student.find_taps=false", "+student.taps.logits=fc")
    (note,) = notes(*words, f"student.net.{key}=resnet50")
    assert "student is of the kind imagenet" in note and "at a learning rate of 0.4" in note
    names = {"torchvision": "swin_t", "timm": "deit_tiny_patch16_224"}
    assert "student is of the kind transformer" in notes(*words, f"student.net.{key}={names[file]}")[0]
    assert notes(*words, f"student.net.{key}=resnet50", "stage=scratch_adamw") == []


@pytest.mark.parametrize("words", [("student.weights=IMAGENET1K_V1",), ("student.checkpoint=FILE",)])
def test_a_network_that_begins_with_weights_is_for_finetuning(words, tmp_path):
    (tmp_path / "x.pt").write_bytes(b"")
    words = [word.replace("FILE", str(tmp_path / "x.pt")) for word in words]
    plain = ("model@student=resnet18", "method=ce", "prelude=none", *words)
    (note,) = notes(*plain)
    assert "student begins with weights" in note and note.count("stage=finetune_adamw") == 1
    assert notes(*plain, "stage=finetune_adamw") == []
    assert "is of the kind imagenet" in notes(*plain[:3], "stage=finetune_adamw")[0]


def test_a_teacher_that_comes_trained_is_none_of_the_recipes_business(tmp_path):
    (tmp_path / "x.pt").write_bytes(b"")
    assert notes("model@teacher=resnet50", f"teacher.checkpoint={tmp_path}/x.pt") == []


def test_every_recipe_says_what_it_fits_and_every_model_what_it_needs():
    assert {kind for fits in recipes().values() for kind in fits if recipes()} <= KINDS
    assert recipes()["digits"] == [] and recipes()["finetune_adamw"] == ["finetune"]
    assert ModelConf.trains_as is None and set(recipes()) == set(options_of("stage"))


def test_a_teacher_that_is_trained_first_learns_by_the_recipe():
    app = read(compose(["stage=scratch_adamw"]))[1]
    assert (app.prelude.stages["teacher"].lr, app.prelude.stages["teacher"].epochs) == (0.001, 30)
    app = read(compose([]))[1]
    assert (app.prelude.stages["teacher"].lr, app.prelude.stages["teacher"].epochs) == (0.1, 16)

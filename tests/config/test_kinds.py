"""Every key takes what belongs there and nothing else, told without an import."""

import pytest

from distill_app.check.quick import _built, read
from distill_app.config.build import Builder
from distill_app.config.kinds import KINDS, ROOTS, kind_of
from distill_app.errors import ConfigError

STAGE = "method.stages.distill"
# Key -> what belongs there, and what is allowed somewhere else and not there.
PLACES = {
    "student.net": ("torchvision.models.resnet18", "distill_app.launch.local.LocalLauncher"),
    "method.extra_models.assistant.net": ("torch.hub.load", "torchvision.datasets.CIFAR10"),
    f"{STAGE}.losses.kd.loss": ("torch.nn.MSELoss", "distill_app.data.FakeImages"),
    f"{STAGE}.losses.kd.weight": ("distill_app.losses.LinearWarmup", "torch.nn.MSELoss"),
    f"{STAGE}.adapters.hint.module": ("distill_app.adapters.ConvRegressor", "distill_app.losses.KLDivergence"),
    f"{STAGE}.redesign": ("torch.nn.Flatten", "torch.optim.SGD"),
    f"{STAGE}.wrappers.mix": ("distill_app.data.Mixup", "distill_app.models.PlainCNN"),
    f"{STAGE}.optimizer": ("torch.optim.AdamW", "torch.nn.Linear"),
    f"{STAGE}.scheduler.schedule": ("torch.optim.lr_scheduler.StepLR", "torch.optim.SGD"),
    "stage.optimizer": ("torch.optim.SGD", "torch.hub.load"),
    "dataset.train": ("torchvision.datasets.CIFAR10", "torchvision.models.resnet18"),
    f"{STAGE}.data.test": ("torch.utils.data.ConcatDataset", "distill_app.launch.Submitit"),
    "dataset.train_transform[3]": ("torchvision.transforms.v2.Resize", "torchvision.datasets.CIFAR10"),
    "dataset.wrappers.task": ("distill_app.data.CutMix", "distill_app.tasks.Classification"),
    "dataset.sampler": ("torch.utils.data.WeightedRandomSampler", "torchvision.datasets.CIFAR10"),
    "dataset.batch_sampler": ("torch.utils.data.BatchSampler", "torch.optim.SGD"),
    "dataset.collate": ("torch.utils.data.default_collate", "torchvision.models.resnet18"),
    "dataset.task": ("distill_app.tasks.MultiLabel", "distill_app.data.FakeImages"),
    "launcher": ("distill_app.launch.Local", "distill_app.data.load_image"),
}


@pytest.mark.parametrize("key", PLACES)
def test_a_key_takes_what_belongs_there_and_nothing_else(key):
    fits, misfit = PLACES[key]
    builder = Builder()
    assert builder.foreign({"_target_": fits}, key=key) == []
    assert builder.locate(fits, key=key) is not None
    (error,) = builder.foreign({"_target_": misfit}, key=key)
    assert error.startswith(f"{key}._target_: {misfit!r} is no {kind_of(key).name}; what may stand here comes from ")
    for refused in (lambda: builder.build({"_target_": misfit}, key=key), lambda: builder.locate(misfit, key=key)):
        with pytest.raises(ConfigError, match="is no"):
            refused()


@pytest.mark.parametrize(
    ("key", "outer", "inner", "fits"),
    [
        ("dataset.train", "torchvision.datasets.CIFAR10", "torchvision.transforms.v2.PILToTensor", True),
        ("dataset.train", "torch.utils.data.ConcatDataset", "torchvision.datasets.CIFAR10", True),
        ("dataset.train", "torchvision.datasets.CIFAR10", "torchvision.models.resnet18", False),
        ("dataset.eval_transform[0]", "torchvision.transforms.v2.Compose", "torchvision.transforms.v2.Resize", True),
        ("dataset.eval_transform[0]", "torchvision.transforms.v2.Compose", "distill_app.launch.Local", False),
        ("student.net", "distill_app.models.small_stem", "torchvision.models.resnet18", True),
        ("student.net", "torch.nn.Sequential", "torchvision.ops.Conv2dNormActivation", True),
        ("student.net", "torch.nn.Sequential", "torchvision.datasets.CIFAR10", False),
        (f"{STAGE}.adapters.a.module", "torch.nn.Sequential", "torch.nn.Conv2d", True),
        (f"{STAGE}.adapters.a.module", "torch.nn.Sequential", "torch.hub.load", False),
    ],
)
def test_arguments_take_what_their_owner_is_made_of(key, outer, inner, fits):
    conf = {"_target_": outer, "things": [{"deeper": {"_target_": inner}}]}
    told = Builder().foreign(conf, key=key)
    assert told == [] if fits else [error for error in told if f"{key}.things[0].deeper._target_: {inner!r}" in error]
    assert fits == (not told) and all("is no part of a" in error for error in told)


@pytest.mark.parametrize("key", PLACES)
def test_packages_of_ones_own_belong_everywhere(key):
    conf = {"_target_": "timm.create_model", "inner": {"_target_": "mine.deep.Thing"}}
    assert Builder(["timm", "mine"]).foreign(conf, key=key) == []
    assert len(Builder(["timm"]).foreign(conf, key=key)) == 1


def test_a_reexport_does_not_lead_to_another_kind():
    with pytest.raises(ConfigError, match=r"leads to 'distill_app\.data\.samples\.finished_image', outside"):
        Builder().locate("distill_app.tasks.images.finished_image", key="dataset.task")


def test_the_quick_check_tells_every_misfit_in_one_list(composed):
    overrides = [
        "student.net={_target_: distill_app.launch.local.LocalLauncher}",
        "method.stages.distill.losses.kd.loss={_target_: distill_app.data.FakeImages}",
        "dataset.sampler={_target_: torchvision.models.resnet18}",
        "+method.stages.distill.redesign.teacher=[conv1,{_target_: torch.optim.SGD}]",
        "launcher={_target_: torchvision.datasets.CIFAR10}",
    ]
    errors, _, _ = read(composed("dataset=digits", *overrides))
    told = "\n".join(errors)
    assert "student.net._target_: 'distill_app.launch.local.LocalLauncher' is no network; " in told
    for text in ("is no loss;", "is no sampler;", "is no module;", "is no launcher;"):
        assert text in told


def test_every_key_that_is_built_has_a_kind(composed):
    _, app, plans = read(composed("dataset=digits", "method=ft", "cache.enabled=false"))
    keys = [key for _, key in _built(app, plans)]
    assert len(keys) > 10 and all(kind_of(key) for key in keys)
    with pytest.raises(ValueError, match="nobody has said"):
        kind_of("runtime.device")


def test_no_kind_opens_what_builds_nothing():
    assert not {"torch", "torchvision", "distill_app", "torch.hub", "distill_app.runs"} & set(ROOTS)
    assert len({kind.name for _, kind in KINDS}) == len(KINDS)
    assert [kind.name for _, kind in KINDS if "torch.hub.load" in kind.part.roots] == ["network"]

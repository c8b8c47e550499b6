"""Networks that a user cuts down by hand: a list of modules, or nothing at all."""

import pytest
import torch
from engine_fixtures import count_calls, network, resolved, stage, train
from torch import nn

from distill_app.check.quick import check
from distill_app.config.tree import compose
from distill_app.errors import TapError
from distill_app.networks.hooks import TappedModel
from distill_app.networks.network import redesigned
from distill_app.training.describe import stage_text

HINT = ("method=fitnet", "method.params.tap=stage3")
TEACHER = "method.stages.hint.redesign.teacher=[features.0,features.1]"
STUDENT = "method.stages.hint.redesign.student=[features.0]"


def quick(*overrides: str) -> tuple[str, ...]:
    return tuple(f"+{override}" if "redesign." in override else override for override in overrides)


@pytest.mark.slow
def test_a_hint_stage_on_listed_modules_is_the_one_that_stops_by_itself(tmp_path):
    def losses(folder, *overrides):
        with stage(folder, *HINT, *quick(*overrides)) as built:
            return train(built, epochs=2), stage_text(built), len(built.unread)

    automatic, _, unread = losses(tmp_path / "automatic")
    listed, text, unread_listed = losses(tmp_path / "listed", TEACHER, STUDENT)
    assert listed == automatic and unread == unread_listed
    assert "network teacher: frozen, random initialisation, runs redesigned as 2 modules, to its end" in text


def test_modules_that_are_not_listed_never_run(tmp_path):
    with stage(tmp_path, *HINT, *quick(TEACHER, STUDENT)) as built:
        teacher, student = count_calls(built.frozen.running("teacher").model), count_calls(network(built, "student"))
        train(built)
    assert {name.split(".")[1] for name in teacher} == {"0", "1"}
    assert {name.split(".")[1] for name in student} == {"0"}


def test_a_redesign_may_bring_in_what_the_network_does_in_code():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.pool, self.fc = nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Linear(4, 2)

        def forward(self, images):
            return self.fc(self.pool(self.conv(images)).flatten(1))

    net, images = Net(), torch.randn(2, 3, 4, 4)
    runs = redesigned(net, ["conv", "pool", nn.Flatten(), "fc"], owner="net")
    with TappedModel(net, {"head": "fc", "output": ""}, runs=runs) as tapped:
        taps = tapped(images)
        names = [name for name, _ in tapped.named_parameters()]
    assert torch.equal(taps["output"], net(images)) and torch.equal(taps["head"], taps["output"])
    assert names == [f"model.{name}" for name, _ in net.named_parameters()]
    for wrong in (nn.Linear(4, 2), nn.BatchNorm2d(4, affine=False), nn.Dropout()):
        with pytest.raises(ValueError, match=f"brings in a {type(wrong).__name__}, which has parameters or a mode"):
            redesigned(net, ["conv", wrong], owner="net")


@pytest.mark.slow
def test_a_teacher_redesigned_to_nothing_comes_from_the_cache_or_not_at_all(tmp_path):
    plain = ("dataset.train_transform=[]", "stage.epochs=8")
    cached = ("cache.enabled=true", f"cache.folder={tmp_path / 'cache'}", *plain)
    with stage(tmp_path / "fill", *cached) as built:
        filled = train(built, epochs=2)
    nothing = "+method.stages.distill.redesign.teacher=[]"
    with stage(tmp_path / "read", *cached, nothing) as built:
        calls = count_calls(network(built, "teacher"))
        assert "nothing: it comes from the cache" in stage_text(built)
        assert train(built, epochs=2) == pytest.approx(filled, rel=2e-3)
        assert calls.total() == 0
    with (
        stage(tmp_path / "more", *cached, nothing, "dataset.student_labels_per_class=20") as built,
        pytest.raises(TapError, match=r"redesigned to nothing .* fill it first"),
    ):
        train(built)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["kd", "crd", "pkt", "at"])
def test_a_batch_of_one_sample_is_none_of_a_teacher_that_comes_from_the_cache(tmp_path, method):
    overrides = ("dataset.train_transform=[]", "stage.batch_size=33", "cache.enabled=true", f"method={method}")
    nothing = "+method.stages.distill.redesign.teacher=[]"
    with stage(tmp_path, *overrides, f"cache.folder={tmp_path / 'cache'}", nothing) as built:
        assert built.batch_sizes[-1] == 1


@pytest.mark.slow
def test_a_cache_of_a_redesigned_network_is_none_of_the_whole_one(tmp_path):
    cached = (
        "cache.enabled=true",
        f"cache.folder={tmp_path / 'cache'}",
        "dataset.train_transform=[]",
        "stage.epochs=8",
    )
    parts = "+method.stages.distill.redesign.teacher=[features,avgpool,{_target_: torch.nn.Flatten},fc]"
    with stage(tmp_path / "fill", *cached, parts) as built:
        train(built)
    with stage(tmp_path / "read", *cached) as built:
        notes = built.frozen.cache.open()
    assert "network.redesign" in notes[0] and "0 of 100 rows" in notes[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("distill.redesign.teecher=[conv1]", "redesign: unknown network 'teecher'"),
        ("distill.redesign.student=[]", "'student' is trained, so it cannot be redesigned to nothing"),
        ("distill.redesign.teacher=[]", "redesigned to nothing, but its taps logits are read and do not come from"),
        ("distill.redesign.teacher=[features.9]", "no module at 'features.9'"),
        ("distill.redesign.student=[features.0]", "never ran in this forward"),
        ("distill.redesign.student=[{_target_: torch.nn.Flaten}]", "torch.nn.Flaten"),
        ("distill.redesign.teacher=[features,avgpool,fc]", "listed for 'teacher' do not run one after the other"),
        ("distill.redesign.teacher=[features.0,features.2]", "method.stages.distill.redesign: the modules listed for"),
    ],
)
def test_redesigns_that_cannot_be_are_found_before_anything_runs(override, message):
    errors = list(check(compose(["experiment=digits/kd", f"+method.stages.{override}"])))
    assert any(message in error for error in errors), errors


def test_a_stage_inherits_no_redesign():
    stages = resolved(*HINT, *quick(TEACHER))["method"]["stages"]
    assert stages["hint"]["redesign"] and not stages["distill"]["redesign"]

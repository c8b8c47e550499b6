"""Frozen networks as they run: folded batch norms change nothing that is read, and nothing in the network itself."""

import pytest
import torch
import torchvision
from engine_fixtures import count_calls, mostly_slow, network, snapshot, stage, train
from torch import nn

from distill_app.networks.folding import FrozenForm
from distill_app.networks.hooks import TappedModel
from distill_app.training.describe import stage_text

FAMILIES = {
    "resnet18": (20, "layer2"),
    "vgg11_bn": (8, "features.-1"),
    "mobilenet_v2": (52, "features.7"),
    "shufflenet_v2_x1_0": (56, "stage3"),
    "efficientnet_b0": (49, "features.4"),
    "densenet121": (59, "features.denseblock2"),  # the norms that read a concatenation have no convolution to go to
}


def randomised(net: nn.Module) -> nn.Module:
    """Batch norms with statistics and scales that a mistake would show in."""
    generator = torch.Generator().manual_seed(1)
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            for value, low in (
                (part.running_mean, -0.5),
                (part.running_var, 0.5),
                (part.weight, 0.5),
                (part.bias, -0.5),
            ):
                value.data.copy_(torch.rand(value.shape, generator=generator) + low)
    return net.eval()


def runner_of(images: torch.Tensor, taps: dict[str, str]):
    def run(module: nn.Module) -> dict[str, torch.Tensor]:
        with TappedModel(module, taps) as tapped, torch.no_grad():
            return tapped(images)

    return run


def form_of(net: nn.Module, taps: dict[str, str], images: torch.Tensor, **more) -> FrozenForm:
    return FrozenForm(net, taps, run=runner_of(images, taps), **{"fold": True, **more})


@pytest.mark.slow
@pytest.mark.parametrize("name", mostly_slow(FAMILIES, "resnet18", "densenet121"))
def test_a_folded_network_gives_the_same_activations_and_is_itself_unchanged(name):
    count, path = FAMILIES[name]
    net = randomised(torchvision.models.get_model(name, num_classes=7))
    taps, images = {"mid": path, "output": ""}, torch.randn(2, 3, 64, 64)
    before, run = snapshot(net), runner_of(images, taps)
    form = form_of(net, taps, images)
    folded = form.build()
    own, ours = run(net), run(folded)
    assert len(form.pairs) == count
    assert sum(isinstance(part, nn.BatchNorm2d) for part in folded.modules()) == form.norms - count
    for tap in taps:
        assert torch.allclose(ours[tap], own[tap], rtol=0, atol=1e-5 * float(own[tap].abs().max()))
    assert all(value.equal(before[key]) for key, value in net.state_dict().items())


def test_what_is_not_folded_is_shared_and_not_copied():
    net = randomised(torchvision.models.resnet18(num_classes=7))
    folded = form_of(net, {"output": ""}, torch.randn(2, 3, 32, 32)).build()
    assert folded.fc.weight is net.fc.weight
    assert folded.conv1.weight.data_ptr() != net.conv1.weight.data_ptr()


@pytest.mark.parametrize(("path", "left"), [("layer1.0.conv1", "layer1.0.bn1"), ("layer1.0.bn1:in", "layer1.0.bn1")])
def test_a_norm_between_which_and_its_convolution_a_tap_reads_is_left_alone(path, left):
    net = randomised(torchvision.models.resnet18(num_classes=7))
    taps, images = {"inner": path}, torch.randn(2, 3, 32, 32)
    form = form_of(net, taps, images)
    folded, run = form.build(), runner_of(images, taps)
    assert len(form.pairs) == 19 and isinstance(folded.get_submodule(left), nn.BatchNorm2d)
    assert torch.allclose(run(folded)["inner"], run(net)["inner"], atol=1e-5)


class Skipping(nn.Module):
    """The convolution's output has a second reader, which is no module."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1)

    def forward(self, images):
        maps = self.conv(images)
        return self.head(self.norm(maps) + maps)


class Twice(nn.Module):
    """One norm behind two convolutions."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.norm = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, images):
        return self.norm(self.second(self.norm(self.first(images))))


class Uncopyable(nn.Module):
    """Holds what no copy can be made of."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.source = (number for number in range(3))

    def forward(self, images):
        return self.norm(self.conv(images))


@pytest.mark.parametrize("make", [Skipping, Twice, Uncopyable])
def test_networks_in_which_folding_would_be_wrong_or_cannot_be_done_run_as_they_are(make):
    net = randomised(make())
    form = form_of(net, {"output": ""}, torch.randn(2, 3, 8, 8))
    assert form.build() is net
    assert form.note() is None


class LeavingAutocast(nn.Module):
    """Its head is computed in float32, whatever is around it."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 2)

    def forward(self, images):
        pooled = self.norm(self.conv(images)).mean((2, 3))
        with torch.autocast("cpu", enabled=False):
            return self.head(pooled.float())


class Tied(nn.Module):
    """A weight that a layer of another class has too."""

    class Own(nn.Linear):
        pass

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), Tied.Own(4, 4)
        self.second.weight = self.first.weight

    def forward(self, inputs):
        return self.second(self.first(inputs))


class StemOutside(nn.Module):
    """The norm of a stem's convolution lies outside of the stem, and what follows works in place."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm, self.relu = nn.Sequential(nn.Conv2d(3, 8, 3)), nn.BatchNorm2d(8), nn.ReLU(inplace=True)
        self.next, self.next_norm = nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8)

    def forward(self, images):
        return self.next_norm(self.next(self.relu(self.norm(self.stem(images)))))


def test_a_network_that_leaves_autocast_keeps_its_weights_and_is_folded_still():
    net, images = randomised(LeavingAutocast()), torch.randn(2, 3, 8, 8)
    form = form_of(net, {"output": ""}, images, dtype=torch.bfloat16)
    folded = form.build()
    assert folded.head.weight.dtype == torch.float32 and len(form.pairs) == 1
    with torch.autocast("cpu", torch.bfloat16):
        assert folded(images).isfinite().all()


def test_weights_of_the_network_itself_keep_their_type_also_where_they_are_shared():
    net, inputs = Tied().eval(), torch.randn(2, 4)
    form_of(net, {"output": ""}, inputs, dtype=torch.bfloat16).build()
    assert {parameter.dtype for parameter in net.parameters()} == {torch.float32}


def test_a_norm_stays_where_a_tapped_container_ends_before_it():
    net, images, taps = randomised(StemOutside()), torch.randn(2, 3, 12, 12), {"stem": "stem", "output": ""}
    form, run = form_of(net, taps, images), runner_of(images, taps)
    folded = form.build()
    assert form.pairs == [("next", "next_norm")]
    assert all(torch.allclose(run(folded)[tap], run(net)[tap], atol=1e-4) for tap in taps)


def test_a_convolution_whose_output_is_changed_in_place_is_left_alone_and_the_others_are_folded():
    net = randomised(
        nn.Sequential(
            nn.Conv2d(3, 4, 1), nn.ReLU(inplace=True), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        )
    )
    form = form_of(net, {"output": ""}, torch.randn(2, 3, 8, 8))
    form.build()
    assert form.pairs == [("3", "4")]


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_the_plans_folded_norms_are_those_of_the_training(tmp_path, precision):
    with stage(tmp_path, "method=kd", f"runtime.precision={precision}") as built:
        planned = len(built.frozen.forms["teacher"].pairs)
        train(built)
        assert len(built.frozen.forms["teacher"].pairs) == planned == 3
        assert not any(isinstance(part, nn.BatchNorm2d) for part in built.frozen.running("teacher").model.modules())


def test_norms_without_statistics_and_hooked_modules_are_left_alone():
    net = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, track_running_stats=False), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
    ).eval()
    net[2].register_forward_hook(lambda module, args, output: output * 2)
    form = form_of(net, {"output": ""}, torch.randn(2, 3, 8, 8))
    assert form.pairs == [] and form.build() is net


def test_norms_that_are_frozen_for_good_are_folded_like_others():
    net = torchvision.models.resnet18(norm_layer=torchvision.ops.FrozenBatchNorm2d)
    generator = torch.Generator().manual_seed(2)
    for part in net.modules():
        if isinstance(part, torchvision.ops.FrozenBatchNorm2d):
            for value in part.buffers():
                value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
    taps, images = {"out": "layer4"}, torch.randn(2, 3, 64, 64)
    form = FrozenForm(net.eval(), taps, run=runner_of(images, taps), fold=True)
    built = form.build()
    assert form.note() == "20 of 20 batch norms folded"
    assert not any(isinstance(part, torchvision.ops.FrozenBatchNorm2d) for part in built.layer4.modules())


def test_a_network_whose_answers_differ_in_number_is_left_as_it_is():
    class Detects(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

        def forward(self, images):
            maps = self.norm(self.conv(images))
            return maps[: 1 if isinstance(self.norm, nn.BatchNorm2d) else 2]

    taps, images = {"out": ""}, torch.randn(2, 3, 8, 8)
    net = randomised(Detects())
    assert FrozenForm(net, taps, run=runner_of(images, taps), fold=True).build() is net


def test_linear_layers_take_on_their_norm_too():
    net = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2)).eval()
    net[1].running_mean.fill_(0.3)
    inputs, taps = torch.randn(4, 5), {"output": ""}
    form = form_of(net, taps, inputs)
    assert form.pairs == [("0", "1")]
    assert torch.allclose(form.build()(inputs), net(inputs), atol=1e-6)


@pytest.mark.slow
def test_a_training_with_a_folded_teacher_is_one_with_the_teacher_itself(tmp_path):
    def losses(folder, *overrides):
        with stage(folder, "method=at", *overrides) as built:
            kept = snapshot(network(built, "teacher"))
            last = train(built, epochs=2)
            form = built.frozen.running("teacher").model
            assert all(value.equal(kept[name]) for name, value in network(built, "teacher").state_dict().items())
        return last, any(isinstance(part, nn.BatchNorm2d) for part in form.modules())

    folded, has_norms = losses(tmp_path / "folded")
    plain, plain_has_norms = losses(tmp_path / "plain", "runtime.fold_batch_norm=false")
    assert plain_has_norms and not has_norms
    assert folded == pytest.approx(plain, rel=1e-4)


def test_weights_that_arrive_after_the_stage_was_built_are_those_that_are_folded(tmp_path):
    with stage(tmp_path, "method=kd") as built:
        teacher = network(built, "teacher")
        with torch.no_grad():
            for parameter in teacher.parameters():
                parameter.mul_(1.5)
        batch = built.example_batch()
        given = built.frozen.activations(batch)["teacher"]["logits"]
        assert torch.allclose(given, teacher.eval()(batch["input"]), rtol=1e-4, atol=1e-4)


def test_the_plan_says_how_many_norms_are_folded_and_which_share_of_flops_is_left(tmp_path):
    with stage(tmp_path, "method=fitnet", "method.params.tap=stage3") as built:
        calls = count_calls(network(built, "student"))
        text = stage_text(built)
        built_calls = calls.total()
        whole, stem = 2 * 8 * 3 * 9 * 16, 2 * 16 * 8 * 9 * 4  # of an image: 4x4 and 2x2 maps
    lines = {line.split(":")[0].strip(): line for line in text.splitlines()}
    assert built_calls > 0
    assert "runs up to stage3 and no further" in lines["network teacher"]
    share = float(lines["network student"].split(" % of its FLOPs")[0].rsplit(" ", 1)[-1])
    assert share == pytest.approx(100 * whole / (whole + stem + 2 * 16 * 10), abs=1)
    assert "2 of 2 batch norms folded" in text, "the third is behind the end"


def test_norms_behind_the_last_tap_are_left_alone(tmp_path):
    with stage(tmp_path, "method=fitnet", "method.params.tap=stage2", "stage.epochs=8") as built:
        stopped, text = built.frozen.forms["teacher"], stage_text(built)
        folded = built.frozen.running("teacher").model
    total = sum(isinstance(part, nn.BatchNorm2d) for part in network(built, "teacher").modules())
    assert 0 < len(stopped.pairs) == stopped.norms < total
    assert f"{stopped.norms} of {stopped.norms} batch norms folded" in text
    assert sum(isinstance(part, nn.BatchNorm2d) for part in folded.modules()) == total - stopped.norms


def test_norms_that_a_tap_reads_are_counted_and_left_alone():
    net = randomised(
        nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
    )
    taps, images = {"norm": "1", "output": ""}, torch.randn(2, 3, 4, 4)
    with TappedModel(net, taps) as tapped:  # as the stage has it
        form = FrozenForm(net, taps, run=runner_of(images, taps), fold=True, own=lambda: tapped(images))
    assert (form.norms, form.pairs) == (2, [("3", "4")])

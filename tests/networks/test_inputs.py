"""A network with an input of its own gets the images that it was trained on, and nothing else about it changes."""

import copy

import pytest
import torch
from engine_fixtures import resolved, run, stage
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.nn.functional import interpolate

from distill_app.config.build import Builder
from distill_app.config.schema import DatasetConf, InputConf, NormalizeConf, to_app
from distill_app.errors import SettingError
from distill_app.models import PlainCNN
from distill_app.networks.inputs import own_input_of
from distill_app.networks.network import build_network
from distill_app.runs.statefile import load_file
from distill_app.training.describe import origins_text
from distill_app.verbs.networks import evaluate

MEAN, STD = [0.48, 0.45, 0.40], [0.26, 0.25, 0.27]
DATA = DatasetConf(channels=3, image_size=8, normalize=NormalizeConf(mean=[0.3, 0.4, 0.5], std=[0.2, 0.3, 0.4]))
GREY = DatasetConf(channels=1, image_size=8, normalize=NormalizeConf(mean=[0.3], std=[0.2]))
CLIP = f"teacher.input={{size: 16, mean: {MEAN}, std: {STD}}}"

EAGER = "runtime.compile_backend=eager"


def pixels(channels: int = 3, side: int = 8) -> Tensor:
    return torch.rand(2, channels, side, side, generator=torch.Generator().manual_seed(0))


def normalised(images: Tensor, mean: list[float], std: list[float]) -> Tensor:
    return (images - torch.tensor(mean).view(1, -1, 1, 1)) / torch.tensor(std).view(1, -1, 1, 1)


def through(conf: InputConf, data: DatasetConf, images: Tensor) -> Tensor:
    own = own_input_of(conf, data, device="cpu")
    assert own is not None
    return own(normalised(images, data.normalize.mean, data.normalize.std))


def test_images_are_taken_back_and_normalised_anew():
    got = through(InputConf(mean=MEAN, std=STD), DATA, pixels())
    torch.testing.assert_close(got, normalised(pixels(), MEAN, STD), rtol=0, atol=2e-6)


def test_images_are_resized_as_torchvision_resizes_them():
    small = interpolate(pixels(side=16), (8, 8), mode="bilinear", antialias=True)
    got = through(InputConf(size=8, mean=MEAN, std=STD), DATA, pixels(side=16))
    torch.testing.assert_close(got, normalised(small, MEAN, STD), rtol=0, atol=5e-6)
    assert through(InputConf(size=24), DATA, pixels()).shape == (2, 3, 24, 24)


def test_grey_images_become_colours_and_colours_grey():
    got = through(InputConf(channels=3, mean=MEAN, std=STD), GREY, pixels(1))
    torch.testing.assert_close(got, normalised(pixels(1).expand(-1, 3, -1, -1), MEAN, STD), rtol=0, atol=2e-6)
    grey = through(InputConf(channels=1, mean=[0.5], std=[0.25]), DATA, pixels())
    luma = (pixels() * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
    torch.testing.assert_close(grey, normalised(luma, [0.5], [0.25]), rtol=0, atol=1e-3)
    white = through(InputConf(channels=1, mean=[0.0], std=[1.0]), DATA, torch.ones(2, 3, 8, 8))
    torch.testing.assert_close(white, torch.ones(2, 1, 8, 8))


def test_what_is_the_same_is_left_alone_bit_for_bit():
    images = normalised(pixels(), DATA.normalize.mean, DATA.normalize.std)
    same = InputConf(size=8, mean=list(DATA.normalize.mean), std=list(DATA.normalize.std), channels=3)
    own = own_input_of(same, DATA, device="cpu")
    assert own is not None and own(images) is images and not own.anew
    assert own_input_of(InputConf(find=False), DATA, device="cpu") is None


@pytest.mark.parametrize("images", [torch.zeros(2, 8, 8), torch.zeros(2, 3, 8, 8, dtype=torch.uint8), "a text"])
def test_what_is_no_batch_of_images_is_refused(images):
    own = own_input_of(InputConf(size=8), DATA, device="cpu")
    assert own is not None
    with pytest.raises(SettingError, match=r"takes images \(B, C, H, W\) of floats, got"):
        own(images)
    net = nn.Conv2d(3, 4, 1)
    own.before(net)
    with pytest.raises(SettingError, match="as its first argument"):
        net(input=torch.zeros(2, 3, 8, 8))


def test_names_and_weights_of_the_network_stay_and_copies_keep_the_input():
    plain = build_network(to_app(resolved()), "teacher", builder=Builder(), device="cpu")
    own = build_network(to_app(resolved(CLIP)), "teacher", builder=Builder(), device="cpu")
    state, other = plain.module.state_dict(), own.module.state_dict()
    assert list(state) == list(other) and all(torch.equal(state[name], other[name]) for name in state)
    images = pixels()
    expected = plain.module.eval()(own.input(images))
    assert torch.equal(own.module.eval()(images), expected)
    assert torch.equal(copy.deepcopy(own.module)(images), expected)
    assert str(own.input) == "size 16, mean (0.48, 0.45, 0.4), std (0.26, 0.25, 0.27)"


def test_taps_and_the_early_stop_see_the_images_of_the_network():
    network = build_network(to_app(resolved(CLIP)), "teacher", builder=Builder(), device="cpu")
    with network.tapped(["stage1"], stage="x") as tapped, torch.no_grad():
        first, second = tapped.eval()(pixels()), tapped(pixels())
    assert tapped.stops_at == "stage1" and first["stage1"].shape[-1] == 8
    assert torch.equal(first["stage1"], second["stage1"])
    redesign = ["features.0"]
    with network.tapped(["stage1"], stage="x", redesign=redesign) as tapped, torch.no_grad():
        assert torch.equal(tapped.eval()(pixels())["stage1"], first["stage1"])


@pytest.mark.slow
def test_a_compiled_network_holds_its_input_in_one_graph():
    network = build_network(to_app(resolved(CLIP)), "teacher", builder=Builder(), device="cpu")
    with network.tapped(["logits"], stage="x") as tapped, torch.no_grad():
        expected = tapped.eval()(pixels())["logits"]
        torch.compiler.reset()
        tapped.compile(backend="eager", fullgraph=True)
        torch.testing.assert_close(tapped(pixels())["logits"], expected)


@pytest.mark.slow
def test_student_and_teacher_of_a_stage_see_one_augmented_image_each_in_its_own_way(tmp_path):
    with stage(tmp_path, CLIP, "method=at") as built:
        batch = built.prepare(next(iter(built.data.train)))
        teacher = built.networks["teacher"]
        values = built.frozen.activations(batch)["teacher"]
        assert values["stage4"].shape[-2:] == (2, 2)  # three times halved, of 16 pixels; it would be one of 8
        seen: list[Tensor] = []
        handle = teacher.module.features[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        teacher.module.eval()(batch["input"])
        handle.remove()
        assert batch["input"].shape[-1] == 8 and seen[0].shape[-1] == 16
        assert torch.equal(seen[0], teacher.input(batch["input"]))


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), ("runtime.precision=bf16",), ("runtime.compile=true", EAGER)])
def test_a_run_with_inputs_of_their_own_is_evaluated_as_it_was_judged(tmp_path, more):
    own = ("student.input={size: 12, channels: 3, mean: [0.5,0.5,0.5], std: [0.2,0.2,0.2]}", "dataset.channels=1")
    summary = run(tmp_path, CLIP.replace("size", "channels: 3, size"), *own, *more, "stage.ema.decay=0.5")
    (row,) = [row for row in summary["rows"] if row["name"].startswith("student")][:1]
    config = OmegaConf.to_container(OmegaConf.load(tmp_path / "config_resolved.yaml"))
    found = evaluate(config, tmp_path, folder=tmp_path, network="student", split="test")
    assert found["accuracy"] == pytest.approx(row["accuracy"])
    state = load_file(tmp_path / "student.pt")
    bare = PlainCNN([8, 16], num_classes=10)
    bare.load_state_dict(state, strict=True)


def test_the_plan_tells_of_it():
    network = build_network(to_app(resolved(CLIP)), "teacher", builder=Builder(), device="cpu")
    assert "input of its own: size 16, mean (0.48, 0.45, 0.4)" in origins_text({"teacher": network})

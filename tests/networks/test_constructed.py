"""Weights that a constructor loads are recognised, and asked for once where there is no network."""

import copy
import sys
from types import SimpleNamespace
from urllib.error import URLError

import pytest
import torch
from engine_fixtures import resolved
from torch import nn

from distill_app.config.build import Builder
from distill_app.config.schema import to_app
from distill_app.errors import ConfigError
from distill_app.models import PlainCNN
from distill_app.networks import constructed
from distill_app.networks.network import Network, build_network


def weights() -> dict[str, torch.Tensor]:
    """What lies in a file."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return PlainCNN([4, 8], num_classes=10).state_dict()


class Loads(PlainCNN):
    """Loads all its weights."""

    def __init__(self) -> None:
        super().__init__([4, 8], num_classes=10)
        self.load_state_dict(weights())


class LoadsAllButItsClassifier(PlainCNN):
    """Loads weights and gets another classifier."""

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__([4, 8], num_classes=10)
        self.load_state_dict(weights())
        self.fc = nn.Linear(8, num_classes)


class WithAnAverageOfItself(nn.Module):
    """Copies random weights from one part to another."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.average = nn.Linear(3, 4), nn.Linear(3, 4)
        self.average.load_state_dict(self.net.state_dict())


class ACopyOfWhatWasLoaded(nn.Module):
    """Loads into a network of which it keeps a copy."""

    def __init__(self) -> None:
        super().__init__()
        self.net = copy.deepcopy(Loads())


class CopiesByHand(nn.Module):
    """Fills its weights without load_state_dict."""

    def __init__(self, pretrained: bool = False) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 2)
        if pretrained:
            with torch.no_grad():
                self.fc.weight.fill_(1.0)


class Nothing(nn.Module):
    """Has no parameters."""


class OutOfReach(nn.Module):
    """Cannot fetch its weights."""

    attempts = 0

    def __init__(self, pretrained: bool = False) -> None:
        super().__init__()
        type(self).attempts += 1
        if pretrained:
            raise URLError("no route to host")


def built(kind: type, **arguments) -> Network:
    app = to_app(resolved())
    app.teacher.net = {"_target_": f"{__name__}.{kind.__name__}", **arguments}
    app.teacher.taps = {}
    return build_network(app, "teacher", builder=Builder([__name__]), device="cpu")


@pytest.mark.parametrize("kind", [Loads, ACopyOfWhatWasLoaded])
def test_a_constructor_that_loads_is_told_from_chance(kind):
    origin = built(kind).origin
    assert origin.loaded and not origin.random
    assert str(origin) == f"loaded by its constructor, {__name__}.{kind.__name__}"


def test_loaded_weights_are_those_of_the_network():
    module = built(Loads).module
    assert all(torch.equal(value, weights()[name]) for name, value in module.state_dict().items())


def test_what_a_constructor_left_random_is_told():
    origin = built(LoadsAllButItsClassifier).origin
    assert origin.loaded and origin.random == ("fc.weight", "fc.bias") and origin.head == "fc"
    assert "without fc.weight, fc.bias, 2 of " in str(origin)


def test_random_weights_that_a_constructor_copies_stay_random():
    assert not built(WithAnAverageOfItself).loaded


def test_a_constructor_that_is_asked_for_weights_is_believed():
    assert not built(CopiesByHand).loaded
    assert str(built(CopiesByHand, pretrained=True).origin).endswith("CopiesByHand with pretrained=True")


def test_a_network_without_parameters_is_not_called_random():
    assert str(built(Nothing).origin) == "no parameters"


def test_other_modules_are_loaded_as_ever_afterwards():
    original = nn.Module.load_state_dict
    built(Loads)
    with pytest.raises(ConfigError):
        built(OutOfReach, pretrained=True)
    assert nn.Module.load_state_dict is original


def test_weights_out_of_reach_are_asked_for_once_and_the_message_says_what_to_do(monkeypatch):
    monkeypatch.setattr(OutOfReach, "attempts", 0)
    with pytest.raises(ConfigError, match=r"teacher\.net: .*pretrained=True asks for .*no route to host") as caught:
        built(OutOfReach, pretrained=True)
    assert "teacher.checkpoint=FILE" in str(caught.value)
    assert OutOfReach.attempts == 1


def test_a_constructor_that_insists_on_its_number_of_classes_is_told_with_the_way_out():
    app = to_app(resolved("model@teacher=resnet18", "+teacher.net.weights=IMAGENET1K_V1"))
    with pytest.raises(
        ConfigError, match=r"1000.*; teacher\.weights=IMAGENET1K_V1 in the place of teacher\.net\.weights"
    ):
        build_network(app, "teacher", builder=Builder(), device="cpu")


@pytest.fixture
def hub(monkeypatch):
    """The settings of a client of Hugging Face's hub."""
    constants = SimpleNamespace(HF_HUB_OFFLINE=False, ENDPOINT="https://hub.invalid")
    monkeypatch.setitem(sys.modules, "huggingface_hub.constants", constants)
    return constants


@pytest.mark.parametrize("reachable", [True, False])
def test_a_hub_that_cannot_be_reached_counts_as_offline_for_the_constructor_alone(reachable, hub, monkeypatch):
    asked = []

    def answer(request, **more):
        asked.append(request.full_url)
        if not reachable:
            raise URLError("no route to host")
        return SimpleNamespace(close=lambda: None)

    monkeypatch.setattr(constructed, "urlopen", answer)
    with constructed.one_attempt({"_target_": "timm.create_model", "pretrained": True}):
        assert hub.HF_HUB_OFFLINE is not reachable
    assert hub.HF_HUB_OFFLINE is False
    assert asked == ["https://hub.invalid"]


def test_nobody_is_asked_for_weights_that_are_not_wanted(hub, monkeypatch):
    monkeypatch.setattr(constructed, "urlopen", lambda *args, **more: pytest.fail("asked"))
    with constructed.one_attempt({"_target_": "timm.create_model", "pretrained": False}):
        assert not hub.HF_HUB_OFFLINE


@pytest.mark.slow
def test_timm_loads_once_and_is_told_without_its_classifier(monkeypatch):
    timm = pytest.importorskip("timm")
    loads = []

    def from_hub(*args, **more):
        loads.append(args)
        return timm.create_model("resnet10t").state_dict()

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", from_hub)
    monkeypatch.setattr(constructed, "urlopen", lambda *args, **more: SimpleNamespace(close=lambda: None))
    app = to_app(resolved("model@teacher=timm", "teacher.net.model_name=resnet10t", "teacher.net.pretrained=true"))
    origin = build_network(app, "teacher", builder=Builder(["timm"]), device="cpu").origin
    assert origin.loaded and origin.random == ("fc.weight", "fc.bias")
    assert str(origin).startswith("loaded by its constructor, timm.create_model with pretrained=True")
    assert len(loads) == 1

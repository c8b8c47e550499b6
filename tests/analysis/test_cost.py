"""What networks cost: numbers counted by hand, times that are there, and networks that stay as they were."""

import pytest
import torch
from engine_fixtures import snapshot
from torch import nn

from distill_app.analysis.cost import costs
from distill_app.config.schema import NormalizeConf
from distill_app.errors import SettingError
from distill_app.networks.network import Network
from distill_app.tasks.classification import Classification

TASK = Classification(normalize=NormalizeConf(), num_classes=10)
CPU = torch.device("cpu")


def network(name="student"):
    layers = [nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 64, 10)]
    return Network(name, nn.Sequential(*layers), {"logits": "3"})


def measured(*networks, **batch):
    return costs(TASK, networks, {"input": torch.randn(2, 3, 8, 8), **batch}, device=CPU, seconds=0.01)


def test_parameters_bytes_and_operations_are_those_of_one_image():
    (found,) = measured(network())
    parameters = 4 * 3 * 9 + 2 * 4 + 4 * 64 * 10 + 10
    assert found["parameters"] == parameters and found["image"] == "3x8x8"
    assert found["bytes"] == 4 * parameters + 2 * 4 * 4 + 8  # running mean and variance, and a counter of 64 bits
    assert found["flops"] == 2 * (64 * 4 * 3 * 9) + 2 * (4 * 64 * 10)


def test_times_of_both_batch_sizes_are_there_with_what_they_were_measured_on():
    student, teacher = measured(network(), network("teacher"))
    assert [student["network"], teacher["network"]] == ["student", "teacher"]
    assert student["seconds"].keys() == student["spread"].keys() == {"1", "32"}
    assert all(seconds > 0 for seconds in student["seconds"].values())
    assert f"{torch.get_num_threads()} thread" in student["on"]


def test_a_network_is_as_it_was():
    made = network()
    made.module.train()
    before = snapshot(made.module)
    measured(made)
    assert made.module.training and all(value.equal(before[key]) for key, value in made.module.state_dict().items())
    assert not any(part._forward_hooks for part in made.module.modules())


def test_what_is_no_image_has_no_cost():
    with pytest.raises(SettingError, match="no batch of images"):
        measured(network(), input=torch.randn(2, 3))

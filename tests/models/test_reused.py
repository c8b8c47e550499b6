"""SimKD's student: another network's layers, a projector, and the teacher's classifier."""

import copy

import pytest
import torch
from torch import nn

from distill_app.models import CifarResNet, FeatureProjector, PlainCNN, with_reused_head

TAPS = {"student_map": "features.1", "student_pooled": "fc:in"}
THEIRS = {"teacher_map": "layer3", "teacher_pooled": "fc:in"}


def made(**options):
    torch.manual_seed(0)
    teacher = CifarResNet(8, num_classes=5)
    student = PlainCNN([4, 8], num_classes=5)
    return with_reused_head(student, teacher, **TAPS, **THEIRS, image_size=16, **options), teacher


def test_it_says_what_the_teachers_classifier_makes_of_the_projected_map():
    net, teacher = made()
    net.eval()
    images = torch.rand(3, 3, 16, 16)
    projected = net.projector(net.student.features(images))
    torch.testing.assert_close(net(images), teacher.fc(projected.mean(dim=(2, 3))))
    assert projected.shape[1] == 64 and net(images).shape == (3, 5)


def test_its_weights_are_those_that_are_deployed_and_nothing_else():
    net, teacher = made()
    names = set(net.state_dict())
    assert {name.split(".")[0] for name in names} == {"student", "projector", "fc"}
    assert not [name for name in names if name.startswith("student.fc")]
    assert {"fc.weight", "fc.bias"} <= names & set(teacher.state_dict())
    other, _ = made()
    other.load_state_dict(net.state_dict(), strict=True)
    images = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(copy.deepcopy(net).eval()(images), other.eval()(images), rtol=0, atol=0)


def test_it_leaves_no_hooks_and_trains_the_students_layers_and_the_projector():
    net, _ = made()
    net(torch.rand(4, 3, 16, 16)).square().mean().backward()
    assert not any(module._forward_hooks for module in net.modules())
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_a_classifier_somewhere_inside_keeps_its_name():
    teacher = nn.Sequential()
    teacher.features = nn.Conv2d(3, 6, 3)
    teacher.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    teacher.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(6, 5))
    taps = {"teacher_map": "features", "teacher_pooled": "classifier.-1:in"}
    net = with_reused_head(PlainCNN([4, 8], num_classes=5), teacher, **TAPS, **taps, image_size=16)
    assert {"classifier.1.weight", "classifier.1.bias"} <= set(net.state_dict())
    assert net(torch.rand(2, 3, 16, 16)).shape == (2, 5)


@pytest.mark.parametrize("size", [(8, 8), (4, 4), (2, 2)])
def test_the_projector_brings_maps_to_the_teachers_channels_and_the_smaller_size(size):
    projector = FeatureProjector((2, 5, 4, 4), (2, 12, *size), factor=4)
    smaller = min(4, size[0])
    assert projector(torch.rand(2, 5, 4, 4)).shape == (2, 12, smaller, smaller)
    assert [layer.out_channels for layer in projector if isinstance(layer, nn.Conv2d)] == [3, 3, 12]


@pytest.mark.parametrize("factor", [0, 13])
def test_a_projector_without_channels_is_refused(factor):
    with pytest.raises(ValueError, match=f"factor={factor} must lie between 1 and .* 12"):
        FeatureProjector((2, 5, 4, 4), (2, 12, 4, 4), factor=factor)


def test_a_teacher_that_does_not_average_its_last_map_is_refused():
    flattening = nn.Sequential(nn.Conv2d(3, 6, 3, stride=8), nn.Flatten(), nn.Linear(24, 5))
    taps = {"teacher_map": "0", "teacher_pooled": "2:in"}
    with pytest.raises(ValueError, match=r"average of its last map.*in_features=24.*reads \(2, 24\)"):
        with_reused_head(PlainCNN([4, 8], num_classes=5), flattening, **TAPS, **taps, image_size=16)

"""The layout of networks: not the one in which a processor writes beyond its memory."""

import subprocess
import sys

import pytest
import torch
from engine_fixtures import stage, train
from torch import nn
from torchvision.models.detection import KeypointRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign

from distill_app.models.small_detectors import PyramidBackbone
from distill_app.networks.layout import crashing, layout_of
from distill_app.training.describe import stage_text

NARROW = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1, stride=2))


@pytest.mark.parametrize(
    ("net", "paths"),
    [
        (NARROW, ["1"]),
        (nn.Sequential(nn.Conv2d(4, 32, 1, stride=2)), ["0"]),
        (nn.Sequential(nn.Conv2d(16, 16, 1, stride=2)), []),
        (nn.Sequential(nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3, stride=2), nn.Conv2d(8, 8, 1, stride=2, groups=8)), []),
    ],
)
def test_narrow_strided_1x1_convolutions_are_found(net, paths):
    assert crashing(net) == paths


def test_a_network_with_one_keeps_its_layout_on_a_cpu_alone():
    assert layout_of(NARROW, channels_last=True, device="cpu")[0] is torch.preserve_format
    assert "such as 1," in layout_of(NARROW, channels_last=True, device="cpu")[1]
    assert layout_of(NARROW, channels_last=True, device="cuda") == (torch.channels_last, "")
    assert layout_of(NARROW, channels_last=False, device="cpu") == (torch.preserve_format, "")


def test_a_network_with_keypoints_keeps_its_layout_anywhere_and_learns_them():
    torch.manual_seed(0)
    small = {"min_size": 64, "max_size": 96, "rpn_post_nms_top_n_train": 20, "box_batch_size_per_image": 8}
    backbone = PyramidBackbone([16, 16], channels=16)
    anchors = AnchorGenerator(((16,), (32,)), ((1.0,),) * 2)
    pools = {
        f"{name}_roi_pool": MultiScaleRoIAlign(["0", "1"], output_size=side, sampling_ratio=2)
        for name, side in (("box", 7), ("keypoint", 14))
    }
    net = KeypointRCNN(backbone, 2, num_keypoints=17, rpn_anchor_generator=anchors, **pools, **small)
    for device in ("cpu", "cuda"):
        layout, note = layout_of(net, channels_last=True, device=device)
        assert layout is torch.preserve_format and "keypoints of roi_heads.keypoint_predictor" in note
    assert layout_of(net.backbone, channels_last=True, device="cuda") == (torch.channels_last, "")
    net = net.to(memory_format=layout_of(net, channels_last=True, device="cpu")[0])
    points = torch.tensor([[[12.0 + number, 14.0 + number, 2.0] for number in range(17)]])
    target = {"boxes": torch.tensor([[10.0, 10.0, 50.0, 50.0]]), "labels": torch.tensor([1]), "keypoints": points}
    losses = net.train()([torch.rand(3, 64, 96)] * 2, [target] * 2)
    assert losses["loss_keypoint"] > 0


def test_the_plan_says_so_and_such_a_network_trains(tmp_path):
    narrow = ("model@student=resnet8", "+student.net.widths=[4,4,4]", "+student.net.stem_stride=2")
    with stage(tmp_path, *narrow, "method=ce", "dataset.student_labels_per_class=2") as built:
        assert built.networks["student"].module.conv1.weight.is_contiguous()
        assert "not in channels_last: the backward" in stage_text(built) and "layer2.0.shortcut.0" in stage_text(built)
        assert train(built)["total"] > 0


CRASH = """
import torch
from torch import nn
net = nn.Conv2d({channels}, {channels}, 1, stride=2, bias=False).to(memory_format={layout})
net(torch.randn(8, {channels}, 48, 48)).square().sum().backward()
"""


@pytest.mark.slow
@pytest.mark.parametrize("channels", [3, 4, 8, 12])
def test_in_the_other_layout_nothing_happens(channels):
    code = CRASH.format(channels=channels, layout="torch.preserve_format")
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

"""The layout of networks: not the one in which a processor writes beyond its memory."""

import subprocess
import sys

import pytest
import torch
from engine_fixtures import stage, train
from torch import nn

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

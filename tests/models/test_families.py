"""Families of timm and torchvision that no file of taps is for: composed, taps found, checked with kd, at and l2.

The smallest member of each, on small images. Of those that take one size alone a smaller one is built (`img_size`), or
the images are resized in front of the network (`input.size`).
"""

import pytest
import torch
from conftest import TINY
from engine_fixtures import mostly_slow

from distill_app.check.quick import read
from distill_app.check.shapes import opened
from distill_app.config.tree import compose
from distill_app.networks.finding import find_taps
from distill_app.networks.hooks import TappedModel
from distill_app.networks.tracing import traced

TIMM = {
    # transformers
    "vit_tiny_patch16_224": ["+student.net.img_size=64"],
    "deit_tiny_distilled_patch16_224": ["+student.net.img_size=64"],
    "vit_small_patch14_reg4_dinov2": ["+student.net.img_size=70"],
    "xcit_nano_12_p16_224": [],
    "cait_xxs24_224": ["+student.net.img_size=64"],
    "pit_ti_224": ["student.input.size=224"],
    "hiera_tiny_224": ["student.input.size=224"],
    "twins_pcpvt_small": ["student.input.size=224"],
    "pvt_v2_b0": [],
    # hybrids
    "levit_128s": ["student.input.size=224"],
    "mobilevit_xxs": [],
    "coatnet_nano_rw_224": ["student.input.size=224"],
    "efficientformer_l1": ["student.input.size=224"],
    "edgenext_xx_small": [],
    "convit_tiny": ["student.input.size=224"],
    # mixers
    "mixer_s32_224": ["student.input.size=224"],
    "resmlp_12_224": ["student.input.size=224"],
    "poolformer_s12": [],
    "convmixer_768_32": [],
    # mobile nets and others
    "mobilenetv4_conv_small": [],
    "ghostnet_050": [],
    "repvit_m0_9": [],
    "hrnet_w18_small": [],
    "resnetv2_50x1_bit": [],
    "tf_efficientnetv2_b0": [],
}
TORCHVISION = {
    "alexnet": [],
    "convnext_small": [],
    "densenet169": [],
    "efficientnet_b1": [],
    "efficientnet_v2_s": [],
    "googlenet": ["+student.net.init_weights=false"],
    "inception_v3": ["+student.net.init_weights=false", "+student.net.aux_logits=false", "student.input.size=80"],
    "maxvit_t": ["student.input.size=224"],
    "mnasnet0_5": [],
    "mobilenet_v3_small": [],
    "regnet_x_400mf": [],
    "regnet_y_800mf": [],
    "resnet18": [],
    "resnext50_32x4d": [],
    "shufflenet_v2_x0_5": [],
    "squeezenet1_1": [],
    "swin_t": [],
    "swin_v2_t": [],
    "vgg11": [],
    "vit_b_32": ["+student.net.image_size=64"],
    "wide_resnet50_2": [],
}
timm = pytest.importorskip("timm")
# What they cannot be used for, and the words with which that is told.
REFUSED = {
    ("hiera_tiny_224", "at"): "its tokens are not in the order of the patches",
    ("squeezenet1_1", "l2"): "the classifier classifier.1 takes (2, 512, ",
}
METHODS = ("kd", "at", "l2")
CASES = [(library, name) for library, table in (("timm", TIMM), ("torchvision", TORCHVISION)) for name in table]
QUICK = [("timm", "ghostnet_050"), ("timm", "xcit_nano_12_p16_224"), ("torchvision", "mobilenet_v3_small")]


def problems(library: str, name: str, method: str) -> list[str]:
    """What the check says of a student of this name."""
    key = "student.net.model_name" if library == "timm" else "student.net.name"
    side = 70 if "patch14" in name else 64
    line = [*TINY, "dataset=fake", f"dataset.image_size={side}", "model@teacher=plain_16_32_64", "prelude=none"]
    own = {"timm": TIMM, "torchvision": TORCHVISION}[library][name]
    cfg = compose([*line, f"model@student={library}", f"{key}={name}", f"method={method}", "stage.batch_size=4", *own])
    errors, app, plans = read(cfg)
    if not errors:
        opened(app, plans).close()
    return errors


@pytest.mark.parametrize(("library", "name"), QUICK)
def test_a_student_that_nobody_listed_passes_the_check(library, name):
    assert problems(library, name, "at") == []


@pytest.mark.slow
@pytest.mark.parametrize(("library", "name"), CASES)
def test_families_that_nobody_listed_pass_the_check_or_are_told_what_is_missing(library, name):
    for method in METHODS:
        errors = problems(library, name, method)
        reason = REFUSED.get((name, method))
        assert len(errors) == (reason is not None), (method, errors)
        assert reason is None or (reason in errors[0] and "write '+student.taps." in errors[0])


def test_twenty_of_each_library_can_be_used_with_every_method():
    refused = {name for name, _ in REFUSED}
    assert len(TIMM.keys() - refused) >= 20 and len(TORCHVISION.keys() - refused) >= 20


VALUES = {
    "convnext_atto": {},
    "resnet18": {},
    "efficientnet_b0": {},
    "mobilenetv4_conv_small": {},
    "pvt_v2_b0": {},
    "poolformer_s12": {},
    "regnetx_002": {},
    "densenet121": {},
    "vit_tiny_patch16_224": {"img_size": 64},
    "vit_small_patch14_reg4_dinov2": {"img_size": 70},
    "xcit_nano_12_p16_224": {},
    "swin_tiny_patch4_window7_224": {"img_size": 224},
}


@pytest.mark.parametrize("name", mostly_slow(list(VALUES), "vit_tiny_patch16_224", "poolformer_s12"))
def test_stages_logits_and_pooled_are_those_of_timm_to_the_bit(name):
    net = timm.create_model(name, num_classes=10, **VALUES[name]).eval()
    side = VALUES[name].get("img_size", 64)
    taps = find_taps(net, traced(net, [(3, side)]), num_classes=10).taps
    images = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    depth = len(net.blocks) if "blocks" in taps["stage1"] and "tokens" in taps["stage1"] else 0
    quarters = {"indices": [depth * part // 4 - 1 for part in (1, 2, 3, 4)]} if depth else {}
    with torch.no_grad():
        expected = net.forward_intermediates(images, intermediates_only=True, **quarters)[-4:]
        logits, pooled = net(images), net.forward_head(net.forward_features(images), pre_logits=True)
        with TappedModel(net, taps) as tapped:
            found = tapped(images)
    for number, feature in enumerate(expected, start=1):
        assert torch.equal(found[f"stage{number}"], feature), number
    assert torch.equal(found["logits"], logits) and torch.equal(found["pooled"], pooled)

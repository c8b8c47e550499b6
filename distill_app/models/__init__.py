"""Architectures that torchvision lacks, stems for small images, bottlenecks, reused heads; the loading of weights."""

from distill_app.models.bottleneck import Bottleneck, cut_report, dequantize, quantize, with_bottleneck
from distill_app.models.cifar_densenet import CifarDenseNet
from distill_app.models.cifar_resnet import CifarResNet
from distill_app.models.plain import PlainCNN
from distill_app.models.reused import FeatureProjector, ReusedHead, with_reused_head
from distill_app.models.stems import small_stem
from distill_app.models.wide_resnet import WideResNet

__all__ = [
    "Bottleneck",
    "CifarDenseNet",
    "CifarResNet",
    "FeatureProjector",
    "PlainCNN",
    "ReusedHead",
    "WideResNet",
    "cut_report",
    "dequantize",
    "quantize",
    "small_stem",
    "with_bottleneck",
    "with_reused_head",
]

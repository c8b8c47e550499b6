"""Architectures that torchvision lacks, its detectors as published, segmenters, stems, bottlenecks, reused heads."""

from distill_app.models.bottleneck import Bottleneck, dequantize, quantize, with_bottleneck
from distill_app.models.cifar_densenet import CifarDenseNet
from distill_app.models.cifar_resnet import CifarResNet
from distill_app.models.cut import cut_report
from distill_app.models.detectors import detector, pyramid_fasterrcnn
from distill_app.models.mobilenet_v1 import MobileNetV1
from distill_app.models.plain import PlainCNN
from distill_app.models.reused import FeatureProjector, ReusedHead, with_reused_head
from distill_app.models.small_detectors import tiny_fasterrcnn, tiny_maskrcnn, tiny_retinanet
from distill_app.models.small_mobilenet import SmallMobileNetV2
from distill_app.models.small_segmenters import tiny_fpn_segmenter
from distill_app.models.small_shufflenet import SmallShuffleNetV1, SmallShuffleNetV2
from distill_app.models.small_vgg import SmallVGG
from distill_app.models.stems import small_stem
from distill_app.models.wide_resnet import WideResNet

__all__ = [
    "Bottleneck",
    "CifarDenseNet",
    "CifarResNet",
    "FeatureProjector",
    "MobileNetV1",
    "PlainCNN",
    "ReusedHead",
    "SmallMobileNetV2",
    "SmallShuffleNetV1",
    "SmallShuffleNetV2",
    "SmallVGG",
    "WideResNet",
    "cut_report",
    "dequantize",
    "detector",
    "pyramid_fasterrcnn",
    "quantize",
    "small_stem",
    "tiny_fasterrcnn",
    "tiny_fpn_segmenter",
    "tiny_maskrcnn",
    "tiny_retinanet",
    "with_bottleneck",
    "with_reused_head",
]

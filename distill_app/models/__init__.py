"""Architectures that torchvision lacks, stems for small images, and the loading of weights."""

from distill_app.models.cifar_resnet import CifarResNet
from distill_app.models.plain import PlainCNN
from distill_app.models.stems import small_stem
from distill_app.models.weights import load_weights
from distill_app.models.wide_resnet import WideResNet

__all__ = ["CifarResNet", "PlainCNN", "WideResNet", "load_weights", "small_stem"]

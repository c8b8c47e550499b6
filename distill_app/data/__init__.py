"""Data: sets, splits, order, augmentation. Names are imported on first use, so `presence` needs no torch."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distill_app.data.bundled_images import BundledImages, FakeImages
    from distill_app.data.coco import CocoDetection
    from distill_app.data.csv_images import CsvImages
    from distill_app.data.fashion_det import FashionDet
    from distill_app.data.flips import KeypointFlip
    from distill_app.data.folders import ImageFolder
    from distill_app.data.huggingface import HuggingFaceImages
    from distill_app.data.images import load_image
    from distill_app.data.labels import labels_of
    from distill_app.data.loading import Loader, make_loader
    from distill_app.data.mixing import CutMix, Mixup
    from distill_app.data.order import EpochOrder
    from distill_app.data.presence import missing_data
    from distill_app.data.samples import Samples, SampleWrapper
    from distill_app.data.split import budget, hold_out
    from distill_app.data.views import RotatedViews, StrongView
    from distill_app.data.voc import VocDetection

_HOME = {
    "BundledImages": "bundled_images",
    "CsvImages": "csv_images",
    "FakeImages": "bundled_images",
    "CocoDetection": "coco",
    "FashionDet": "fashion_det",
    "HuggingFaceImages": "huggingface",
    "ImageFolder": "folders",
    "KeypointFlip": "flips",
    "load_image": "images",
    "Loader": "loading",
    "make_loader": "loading",
    "CutMix": "mixing",
    "Mixup": "mixing",
    "EpochOrder": "order",
    "missing_data": "presence",
    "RotatedViews": "views",
    "SampleWrapper": "samples",
    "Samples": "samples",
    "StrongView": "views",
    "VocDetection": "voc",
    "budget": "split",
    "hold_out": "split",
    "labels_of": "labels",
}
__all__ = [
    "BundledImages",
    "CocoDetection",
    "CsvImages",
    "CutMix",
    "EpochOrder",
    "FakeImages",
    "FashionDet",
    "HuggingFaceImages",
    "ImageFolder",
    "KeypointFlip",
    "Loader",
    "Mixup",
    "RotatedViews",
    "SampleWrapper",
    "Samples",
    "StrongView",
    "VocDetection",
    "budget",
    "hold_out",
    "labels_of",
    "load_image",
    "make_loader",
    "missing_data",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)

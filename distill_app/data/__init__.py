"""Data: sets, splits, order, augmentation. Names are imported on first use, so `presence` needs no torch."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distill_app.data.bundled_images import BundledImages, FakeImages
    from distill_app.data.coco import CocoDetection
    from distill_app.data.coco_maps import CocoSegmentation
    from distill_app.data.csv_images import CsvImages
    from distill_app.data.fashion_det import FashionDet
    from distill_app.data.fashion_seg import FashionSeg
    from distill_app.data.flips import KeypointFlip
    from distill_app.data.folders import ImageFolder
    from distill_app.data.huggingface import HuggingFaceImages
    from distill_app.data.images import load_image
    from distill_app.data.labels import labels_of
    from distill_app.data.loading import Loader, make_loader
    from distill_app.data.map_transforms import MapCrop
    from distill_app.data.maps import MapFolder
    from distill_app.data.mixing import CutMix, Mixup
    from distill_app.data.order import EpochOrder
    from distill_app.data.presence import missing_data
    from distill_app.data.samples import Samples, SampleWrapper
    from distill_app.data.split import budget, hold_out
    from distill_app.data.views import RotatedViews, StrongView
    from distill_app.data.voc import VocDetection
    from distill_app.data.voc_maps import VocSegmentation

_HOME = {
    "BundledImages": "bundled_images",
    "CsvImages": "csv_images",
    "FakeImages": "bundled_images",
    "CocoDetection": "coco",
    "CocoSegmentation": "coco_maps",
    "FashionDet": "fashion_det",
    "FashionSeg": "fashion_seg",
    "HuggingFaceImages": "huggingface",
    "ImageFolder": "folders",
    "KeypointFlip": "flips",
    "load_image": "images",
    "Loader": "loading",
    "make_loader": "loading",
    "MapCrop": "map_transforms",
    "MapFolder": "maps",
    "CutMix": "mixing",
    "Mixup": "mixing",
    "EpochOrder": "order",
    "missing_data": "presence",
    "RotatedViews": "views",
    "SampleWrapper": "samples",
    "Samples": "samples",
    "StrongView": "views",
    "VocDetection": "voc",
    "VocSegmentation": "voc_maps",
    "budget": "split",
    "hold_out": "split",
    "labels_of": "labels",
}
__all__ = [
    "BundledImages",
    "CocoDetection",
    "CocoSegmentation",
    "CsvImages",
    "CutMix",
    "EpochOrder",
    "FakeImages",
    "FashionDet",
    "FashionSeg",
    "HuggingFaceImages",
    "ImageFolder",
    "KeypointFlip",
    "Loader",
    "MapCrop",
    "MapFolder",
    "Mixup",
    "RotatedViews",
    "SampleWrapper",
    "Samples",
    "StrongView",
    "VocDetection",
    "VocSegmentation",
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

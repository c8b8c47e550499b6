"""Pascal VOC's maps of classes, and those that SBD adds to them."""

import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from distill_app.data.map_files import read_map
from distill_app.data.maps import MapImages
from distill_app.data.objects import Faults
from distill_app.data.voc import CLASSES
from distill_app.errors import DataError

_LARGEST = 64 << 20  # bytes of a file of SBD
WITH_BACKGROUND = ("background", *CLASSES)


class VocSegmentation(MapImages):
    """The images of a year of Pascal VOC with their maps, and with those of SBD; items are as those of `MapImages`.

    Everingham et al. 2010, http://host.robots.ox.ac.uk/pascal/VOC: 20 classes and the background, 0; the outlines of
    objects are 255. With SBD (Hariharan et al. 2011, http://home.bharathh.info/pubs/pdfs/BharathICCV2011.pdf) the
    images of its lists train and val come along that are in neither the split nor the lists val and test of this VOC,
    so that no image of an evaluation is learnt: with VOC 2012's train, 1464 images, these make the 10582 that papers
    train on.

    Args:
        root: The folder with `ImageSets`, `JPEGImages` and `SegmentationClass`, usually `VOCdevkit/VOC2012`.
        split: The list of images: train, val, trainval or test.
        sbd: The folder of SBD with `img`, `cls`, `train.txt` and `val.txt`, usually `benchmark_RELEASE/dataset`; None:
            without it.
        invalid: `raise`: an image or a map that is not there is an error; `skip`: it is left out, and counted in a
            note.

    Raises:
        ConfigError: Images or maps that are not there, a message each.
        DataError: No such list, or SBD beside images that are not learnt.
    """

    def __init__(self, root: str, split: str, *, sbd: str | None = None, invalid: str = "raise"):
        if sbd is not None and split not in ("train", "trainval"):
            raise DataError(f"sbd: its images are for training, not for split={split}")
        names, faults = _list(Path(root, "ImageSets", "Segmentation", f"{split}.txt")), Faults(invalid)
        files = [
            (os.path.join(root, "JPEGImages", f"{name}.jpg"), os.path.join(root, "SegmentationClass", f"{name}.png"))
            for name in _named(names, faults)
        ]
        if sbd is not None:
            known = set(names)
            for other in ("val", "test"):
                file = Path(root, "ImageSets", "Segmentation", f"{other}.txt")
                # Without the list of val nobody knows what must not be learnt; that of test came with some years alone.
                known |= set(_list(file)) if other == "val" or file.is_file() else set()
            more = [name for part in ("train", "val") for name in _list(Path(sbd, f"{part}.txt"))]
            files += [
                (os.path.join(sbd, "img", f"{name}.jpg"), os.path.join(sbd, "cls", f"{name}.mat"))
                for name in _named(list(dict.fromkeys(more)), faults)
                if name not in known
            ]
        found = []
        for pair in files:
            if missing := [path for path in pair if not os.path.isfile(path)]:
                faults.add(f"{missing[0]} is not there")
            else:
                found.append(pair)
        notes = faults.settle(source=root)
        if not found:
            raise DataError(f"{root}: the list {split} names no image")
        super().__init__(found, classes=WITH_BACKGROUND, notes=notes)

    def raw_map(self, place: str) -> np.ndarray:
        return _of_sbd(place) if place.endswith(".mat") else read_map(place)


def _list(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _named(names: list[str], faults: Faults) -> list[str]:
    """Those that are names of files and lead nowhere else."""
    good = [name for name in names if re.fullmatch(r"[\w-]+", name)]
    for name in names:
        if not re.fullmatch(r"[\w-]+", name):
            faults.add(f"image {name[:60]!r} is no name of a file")
    return good


def _of_sbd(place: str) -> np.ndarray:
    """The map of a file of MATLAB: GTcls.Segmentation.

    Raises:
        ValueError: No such file.
    """
    from scipy.io import loadmat

    if os.path.getsize(place) > _LARGEST:
        raise ValueError(f"{place} is larger than {_LARGEST} bytes")
    try:
        # No objects of MATLAB, whose form only MATLAB knows; the path as it stands, without another suffix.
        content: Any = loadmat(place, appendmat=False, variable_names=["GTcls"])
        found = np.asarray(content["GTcls"]["Segmentation"][0, 0])
    except Exception as error:  # damaged bytes can fail in any part of the reader
        raise ValueError(f"{place} is no file of SBD's classes: {type(error).__name__}: {error}") from error
    if found.ndim != 2 or found.dtype.kind not in "ui":
        raise ValueError(f"{place} has no map of whole numbers in GTcls.Segmentation")
    return found.astype(np.int32)

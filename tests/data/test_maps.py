"""Images with maps of classes: the generated set, folders, VOC with SBD, COCO's objects; what is wrong is named."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from torchvision import tv_tensors

from distill_app.data import CocoSegmentation, FashionDet, FashionSeg, MapFolder, VocSegmentation
from distill_app.data.coco_maps import VOC_IN_COCO
from distill_app.data.map_files import coded, map_listing, read_map
from distill_app.data.voc import CLASSES
from distill_app.errors import ConfigError, DataError


def image(path: Path, height: int, width: int, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((height, width, 3), 90, np.uint8)).save(path, **options)


def class_map(path: Path, values, *, palette: bool = True) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(np.asarray(values, np.uint8))
    if palette:  # colours say nothing: the numbers of its entries are classes
        picture = picture.convert("L")
        picture.putpalette(list(range(255, -1, -1)) * 3)
    picture.save(path)


def folder(root: Path, count: int = 10, *, below: str = "{}") -> Path:
    """Images of several sizes with the classes 0 to 2, and pixels without one."""
    for number in range(count):
        size = (6 + number % 3, 8)
        values = np.zeros(size, np.uint8)
        values[1, :4], values[2, 2:], values[0] = 1, 2, 255
        image(root / below.format("images") / f"x{number}.jpg", *size)
        class_map(root / below.format("masks") / f"x{number}.png", values, palette=number % 2 == 0)
    return root


def test_the_generated_set_has_the_images_of_the_detection_set_and_their_maps():
    maps, boxes = (kind("train", count=6) for kind in (FashionSeg, FashionDet))
    assert len(maps.classes) == 11 and maps.classes[1:] == boxes.classes and maps.sizes == [(96, 96)] * 6
    for index in range(6):
        picture, target = maps[index]
        assert torch.equal(picture, boxes[index][0]) and target.shape == (96, 96)
        assert isinstance(target, tv_tensors.Mask) and target.dtype == torch.uint8
        labels = set(boxes[index][1]["labels"].tolist())
        assert set(target.unique().tolist()) <= {0, *labels} and target.any()
    again, others = FashionSeg("train", count=6), FashionSeg("test", count=6)
    assert all(torch.equal(maps[i][1], again[i][1]) for i in range(6))
    assert not any(torch.equal(maps[i][0], others[j][0]) for i in range(6) for j in range(6))


@pytest.mark.parametrize("below", ["{}", "{}/train", "train/{}"])
def test_a_folder_is_divided_by_its_parts_or_by_a_seed(tmp_path, below):
    folder(tmp_path, below=below)
    if "train" in below:
        folder(tmp_path, 4, below=below.replace("train", "val"))
    train, test = (MapFolder(str(tmp_path), split=split) for split in ("train", "test"))
    expected = {"{}": (8, 2), "{}/train": (10, 4), "train/{}": (10, 4)}
    assert (len(train), len(test)) == expected[below] and train.validation is None
    assert not {*train.files} & {*test.files} and train.division["images"] == {"train": len(train), "test": len(test)}
    picture, target = train[0]
    assert isinstance(picture, tv_tensors.Image) and set(target.unique().tolist()) == {0, 1, 2, 255}
    assert train.classes == ["0", "1", "2"] and train.sizes[0] == tuple(picture.shape[-2:])
    if below == "{}":
        other = MapFolder(str(tmp_path), split="test", split_seed=1, test_fraction=0.5)
        assert len(other) == 5 and set(other.files) != set(test.files)
    else:
        folder(tmp_path, 3, below=below.replace("train", "test"))
        train = MapFolder(str(tmp_path), split="train")
        assert len(train) == 14 and train.validation == [10, 11, 12, 13], "val validates where there is a test"


def test_names_of_classes_stand_in_a_file_and_numbers_of_maps_may_stand_for_classes(tmp_path):
    folder(tmp_path)
    (tmp_path / "classes.txt").write_text("ground\ncat\n\ndog\nbird\n")
    assert MapFolder(str(tmp_path), split="train").classes == ["ground", "cat", "dog", "bird"]
    binary = tmp_path / "binary"
    for number in range(5):
        image(binary / "images" / f"{number}.png", 4, 4)
        class_map(binary / "masks" / f"{number}.png", np.eye(4, dtype=np.uint8) * 255, palette=False)
    with pytest.raises(DataError, match=r"no number but 0 and 255.*dataset\.train\.values=\[0,255\]"):
        MapFolder(str(binary), split="train")
    data = MapFolder(str(binary), split="train", values=[0, 255])
    assert data.classes == ["0", "1"] and torch.equal(data[0][1], torch.eye(4, dtype=torch.uint8))
    with pytest.raises(DataError, match="values: 2 numbers stand for 3 classes"):
        MapFolder(str(binary), split="train", values=[0, 255], classes=["a", "b", "c"])


def spoilt(root: Path, case: str) -> None:
    place = root / "masks" / "x3.png"
    values = np.array(Image.open(place))
    if case == "missing":
        place.unlink()
    elif case == "size":
        class_map(place, np.zeros((30, 8)))
    elif case == "colours":
        Image.fromarray(np.zeros((*values.shape, 3), np.uint8)).save(place)
    elif case == "jpeg":
        place.unlink()
        Image.fromarray(np.zeros(values.shape, np.uint8)).save(place.with_suffix(".jpg"))
    elif case == "damaged":
        place.write_bytes(place.read_bytes()[:40])
    elif case == "text":
        place.write_text("no picture")
    elif case == "twice":
        image(root / "images" / "x3.png", *values.shape)
    elif case == "turned":
        exif = Image.Exif()
        exif[0x0112] = 3
        image(root / "images" / "x3.jpg", *values.shape, exif=exif)
    elif case == "nothing":
        for each in (root / "images").iterdir():
            each.unlink()
    else:
        raise AssertionError(case)


@pytest.mark.parametrize(
    ("case", "match"),
    [
        ("missing", r"1 of 10 images in .*images have no map of their name in .*masks: x3\.jpg"),
        ("size", r"an image is wrong: .*x3\.png has 8 x 30 px, and .*x3\.jpg 8 x 6"),
        ("colours", r"x3\.png is a picture of colours \(mode RGB\)"),
        ("jpeg", r"x3\.jpg is a JPEG, which changes the numbers"),
        ("damaged", r"x3\.png cannot be read"),
        ("text", r"x3\.png is not an image"),
        ("twice", r"images has both x3\.jpg and x3\.png"),
        ("turned", r"x3\.jpg is turned by its EXIF data"),
        ("nothing", r"images has no images"),
    ],
)
def test_what_is_wrong_with_a_file_is_told_with_its_name(tmp_path, case, match):
    spoilt(folder(tmp_path), case)
    with pytest.raises(DataError, match=match):
        MapFolder(str(tmp_path), split="train", test_fraction=0.1, split_seed=1)


def test_a_number_that_is_no_class_is_told_with_its_place(tmp_path):
    folder(tmp_path)
    data = MapFolder(str(tmp_path), split="train", classes=["a", "b"])
    with pytest.raises(
        ValueError, match=r"x\d\.png has the number 2 at row 2, column 2, and num_classes=2 means 0 to 1"
    ):
        data[0]
    with pytest.raises(ValueError, match=r"map has the number 7 at row 0, column 1, and classes are the values 5, 9"):
        coded(np.array([[5, 7]]), num_classes=2, values=[5, 9], name="map")
    assert coded(np.array([[9, 255, 5]]), num_classes=2, values=[5, 9], name="map").tolist() == [[1, 255, 0]]
    deep = tmp_path / "deep.png"
    Image.fromarray(np.array([[0, 40000]], np.uint16)).save(deep)
    assert read_map(str(deep)).tolist() == [[0, 40000]]


def test_folders_that_are_not_there_and_maps_of_no_image_are_told(tmp_path):
    with pytest.raises(DataError, match=r"root: .*nowhere is not there"):
        map_listing(str(tmp_path / "nowhere"))
    (tmp_path / "pictures").mkdir()
    with pytest.raises(DataError, match=r"has no folders images and masks.*it has: pictures"):
        map_listing(str(tmp_path))
    folder(tmp_path)
    class_map(tmp_path / "masks" / "more.png", np.zeros((3, 3)))
    (note,) = MapFolder(str(tmp_path), split="train").notes()
    assert "1 files in" in note and "are the map of no image: more.png" in note
    assert MapFolder(str(tmp_path), split="test").notes() == []


def voc(root: Path) -> tuple[str, str]:
    """A VOC of three images to learn and two to judge, and an SBD that has all of them and two more."""
    year, sbd = root / "VOC2012", root / "sbd"
    lists = {"train": ["a_1", "a_2", "a_3"], "val": ["b_1", "b_2"]}
    (year / "ImageSets" / "Segmentation").mkdir(parents=True)
    for split, names in lists.items():
        (year / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("\n".join(names) + "\n")
        for name in names:
            image(year / "JPEGImages" / f"{name}.jpg", 5, 6)
            values = np.full((5, 6), 20)
            values[0] = 255
            class_map(year / "SegmentationClass" / f"{name}.png", values)
    for split, names in {"train": ["a_1", "b_1", "c_1"], "val": ["b_2", "c_2", "c_1"]}.items():
        sbd.mkdir(exist_ok=True)
        (sbd / f"{split}.txt").write_text("\n".join(names) + "\n")
        for name in names:
            image(sbd / "img" / f"{name}.jpg", 4, 4)
            (sbd / "cls").mkdir(exist_ok=True)
            content = {"GTcls": {"Segmentation": np.full((4, 4), 7, np.uint8), "Boundaries": 0}}
            savemat(sbd / "cls" / f"{name}.mat", content)
    return str(year), str(sbd)


def test_voc_is_read_with_sbd_and_without_any_image_that_is_judged(tmp_path):
    root, sbd = voc(tmp_path)
    plain, more = VocSegmentation(root, "train"), VocSegmentation(root, "train", sbd=sbd)
    test = VocSegmentation(root, "val")
    assert plain.classes == ["background", *CLASSES] and len(plain) == 3 and len(test) == 2
    names = [os.path.splitext(os.path.basename(file))[0] for file in more.files]
    assert names == ["a_1", "a_2", "a_3", "c_1", "c_2"]
    assert set(plain[0][1].unique().tolist()) == {20, 255} and more[3][1].unique().tolist() == [7]
    assert more.sizes == [(5, 6)] * 3 + [(4, 4)] * 2
    with pytest.raises(DataError, match="sbd: its images are for training, not for split=val"):
        VocSegmentation(root, "val", sbd=sbd)


def test_files_of_voc_and_sbd_that_are_not_there_or_damaged_are_named(tmp_path):
    root, sbd = voc(tmp_path)
    Path(sbd, "cls", "c_2.mat").write_bytes(b"MATLAB 5.0 MAT-file, but no more than that")
    with pytest.raises(ValueError, match=r"c_2\.mat is no file of SBD's classes"):
        VocSegmentation(root, "train", sbd=sbd)[4]
    Path(root, "SegmentationClass", "a_2.png").unlink()
    with pytest.raises(ConfigError, match=r"a_2\.png is not there"):
        VocSegmentation(root, "train")
    left = VocSegmentation(root, "train", invalid="skip")
    assert len(left) == 2 and "a_2.png is not there" in left.notes()[0]
    Path(root, "ImageSets", "Segmentation", "train.txt").write_text("../../etc/passwd\n")
    with pytest.raises(ConfigError, match="is no name of a file"):
        VocSegmentation(root, "train")
    Path(root, "ImageSets", "Segmentation", "val.txt").unlink()
    with pytest.raises(DataError, match=r"val\.txt cannot be read"):
        VocSegmentation(root, "train", sbd=sbd)


def coco(root: Path, *, categories=((1, "person"), (5, "airplane"), (90, "toothbrush"))) -> tuple[str, str]:
    boxes = [
        (1, [0, 0, 40, 40]),
        (5, [20, 20, 40, 30]),
        (90, [50, 0, 20, 10]),
    ]
    objects = []
    for number, (category, (x, y, w, h)) in enumerate(boxes, start=1):
        corners = [[x, y, x + w, y, x + w, y + h, x, y + h]]
        objects.append(
            {
                "id": number,
                "image_id": 1,
                "category_id": category,
                "bbox": [x, y, w, h],
                "area": w * h,
                "iscrowd": 0,
                "segmentation": corners,
            }
        )
    # A second image with a small object alone.
    objects.append({**objects[0], "id": 9, "image_id": 2, "bbox": [0, 0, 5, 5], "area": 25})
    images = [{"id": n, "file_name": f"{n}.png", "height": 60, "width": 80} for n in (1, 2)]
    for each in images:
        image(root / each["file_name"], 60, 80)
    named = [{"id": number, "name": name} for number, name in categories]
    file = root / "objects.json"
    file.write_text(json.dumps({"images": images, "annotations": objects, "categories": named}))
    return str(root), str(file)


def test_maps_of_coco_are_made_of_its_objects_as_in_torchvisions_reference(tmp_path):
    declared = [(number, f"c{number}") for number in range(1, 91)]
    root, file = coco(tmp_path, categories=declared)
    data = CocoSegmentation(root, file, categories="voc", least=1000)
    assert len(data) == 1 and data.classes == ["background", *CLASSES] and len(VOC_IN_COCO) == 20
    picture, target = data[0]
    assert picture.shape == (3, 60, 80) and isinstance(target, tv_tensors.Mask)
    assert int(target[10, 10]) == 15 and int(target[45, 50]) == 1 and int(target[30, 30]) == 255
    assert int(target[5, 60]) == 0, "a toothbrush is no class of VOC"
    assert len(CocoSegmentation(root, file, categories="voc")) == 2
    own = CocoSegmentation(root, file, categories=[90, 1])
    assert own.classes == ["background", "c90", "c1"] and int(own[0][1][5, 60]) == 1 and int(own[0][1][10, 10]) == 2


def test_ids_of_categories_may_be_any(tmp_path):
    root, file = coco(tmp_path)
    made = json.loads(Path(file).read_text())
    other = {1: 0, 5: 7, 90: 123456}
    for each in made["annotations"]:
        each["category_id"] = other[each["category_id"]]
    for each in made["categories"]:
        each["id"] = other[each["id"]]
    Path(file).write_text(json.dumps(made))
    data = CocoSegmentation(root, file)
    assert data.classes == ["background", "person", "airplane", "toothbrush"]
    target = data[0][1]
    assert [int(target[place]) for place in ((10, 10), (45, 50), (5, 60), (30, 30))] == [1, 2, 3, 255]
    some = CocoSegmentation(root, file, categories=[123456, 0])
    assert some.classes == ["background", "toothbrush", "person"] and int(some[0][1][10, 10]) == 2


def test_categories_that_a_file_does_not_declare_are_told(tmp_path):
    root, file = coco(tmp_path)
    assert CocoSegmentation(root, file).classes == ["background", "person", "airplane", "toothbrush"]
    with pytest.raises(DataError, match="declares no category 2"):
        CocoSegmentation(root, file, categories="voc")
    with pytest.raises(DataError, match="categories: ids, voc or null, not 'coco'"):
        CocoSegmentation(root, file, categories="coco")
    with pytest.raises(DataError, match="not one image has objects of these categories"):
        CocoSegmentation(root, file, categories=[90], least=1000)

"""Images with objects: what data sets give, what transforms do to it, and what of a stranger's file is refused."""

import json

import pytest
import torch
from detection_fixtures import coco_files
from torchvision import tv_tensors
from torchvision.transforms import v2

from distill_app.data import CocoDetection, FashionDet, KeypointFlip, VocDetection
from distill_app.data.loading import Collate, make_loader
from distill_app.data.order import EpochOrder
from distill_app.data.samples import Samples
from distill_app.errors import ConfigError, CorruptImageError, DataError
from distill_app.tasks import Detection

POINTS = [value for number in range(17) for value in (2 + number, 5 + number, 2)]


def content(**changes):
    """Two images and three objects, one of them a crowd."""
    runs = {"size": [40, 60], "counts": [0, 400, 2000]}
    square = [[10, 10, 30, 10, 30, 25, 10, 25]]
    return {
        "images": [
            {"id": 7, "file_name": "a.jpg", "height": 40, "width": 60},
            {"id": 8, "file_name": "b.jpg", "height": 40, "width": 60},
        ],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 5, "bbox": [10, 10, 20, 15], "area": 300, "iscrowd": 0,
             "segmentation": square, "keypoints": POINTS},
            {"id": 2, "image_id": 7, "category_id": 3, "bbox": [0, 0, 10, 40], "area": 400, "iscrowd": 1,
             "segmentation": runs, "keypoints": [0] * 51},
        ],
        "categories": [{"id": 5, "name": "cat"}, {"id": 3, "name": "dog"}],
        **changes,
    }  # fmt: skip


def with_annotation(**changes):
    made = content()
    made["annotations"][0] |= changes
    return made


def with_image(number=0, **changes):
    made = content()
    made["images"][number] |= changes
    return made


def test_a_file_in_cocos_format_gives_boxes_masks_and_keypoints(tmp_path):
    data = CocoDetection(*coco_files(tmp_path, content()), kinds=["bbox", "segm", "keypoints"])
    assert len(data) == 1 and data.classes == ["dog", "cat"] and data.sizes == [(40, 60)], "b.jpg has no objects"
    image, target = data[0]
    assert isinstance(image, tv_tensors.Image) and image.shape == (3, 40, 60)
    assert target["boxes"].tolist() == [[10, 10, 30, 25], [0, 0, 10, 40]]
    assert target["labels"].tolist() == [2, 1] and target["iscrowd"].tolist() == [0, 1]
    assert target["masks"][0, 10:25, 10:30].all() and int(target["masks"][0].sum()) == 300
    assert target["masks"][1, :, :10].all() and int(target["masks"][1].sum()) == 400
    assert target["keypoints"][0, 3].tolist() == [5, 8] and target["visibility"][:, 0].tolist() == [2, 0]
    assert len(CocoDetection(*coco_files(tmp_path, content()), keep_empty=True)) == 2


def test_images_of_which_nothing_is_known_come_after_the_others_and_say_so(tmp_path):
    known, more = tmp_path / "known", tmp_path / "more"
    known.mkdir()
    more.mkdir()
    wild = {"images": [{"id": 1, "file_name": "c.jpg", "height": 20, "width": 30}]}
    data = CocoDetection(*coco_files(known, content()), kinds=["bbox", "segm"], unlabelled=coco_files(more, wild))
    assert list(data.unlabelled) == [1] and data.sizes == [(40, 60), (20, 30)] and len(data.files) == 2
    image, target = data[1]
    assert image.shape == (3, 20, 30) and target["unlabelled"] and "unlabelled" not in data[0][1]
    assert target["boxes"].shape == (0, 4) and target["masks"].shape == (0, 20, 30)
    finish = Detection(num_classes=2, kinds=["bbox", "segm"]).finish
    samples = Samples(data, transforms=[v2.RandomHorizontalFlip(1.0)], joint=True, finish=finish, seed=0, stage="x")
    assert [bool(samples[position, 0]["target"].get("unlabelled")) for position in (0, 1)] == [False, True]
    assert list(CocoDetection(*coco_files(known, content())).unlabelled) == []
    with pytest.raises(ValueError, match=r"unlabelled: 'folder' is no folder and file; write \[FOLDER, FILE.json\]"):
        CocoDetection(*coco_files(known, content()), unlabelled="folder")
    with pytest.raises(ConfigError, match=r"gone.jpg"):
        gone = {"images": [{**wild["images"][0], "file_name": "gone.jpg"}]}
        (more / "gone.json").write_text(json.dumps(gone))
        CocoDetection(*coco_files(known, content()), unlabelled=[str(more), str(more / "gone.json")])


def test_a_part_of_the_generated_set_may_have_no_targets():
    data = FashionDet("train", count=4, labelled=2)
    assert list(data.unlabelled) == [2, 3] and len(data[1][1]["labels"]) and "unlabelled" not in data[1][1]
    assert not len(data[2][1]["labels"]) and data[2][1]["unlabelled"] and not data.records[2].objects
    assert data[2][0].equal(FashionDet("train", count=4)[2][0])
    with pytest.raises(ValueError, match="labelled=5: from 1 to count=4"):
        FashionDet("train", count=4, labelled=5)


def test_labels_may_be_the_ids_of_the_categories(tmp_path):
    data = CocoDetection(*coco_files(tmp_path, content()), labels="ids")
    assert data[0][1]["labels"].tolist() == [5, 3] and data.classes == ["(1)", "(2)", "dog", "(4)", "cat"]


HOSTILE = [
    (with_image(file_name="../a.jpg"), "image 7 ('../a.jpg') lies outside of"),
    (with_image(file_name="/etc/passwd"), "image 7 ('/etc/passwd') lies outside of"),
    (with_image(file_name="x\\..\\a.jpg"), "lies outside of"),
    (with_image(file_name="gone.jpg"), "image 7 ('gone.jpg') is not there"),
    (with_image(file_name="caf\udce9.jpg"), r"image 7 ('caf\udce9.jpg') has a name that is no text in UTF-8"),
    (with_image(width=10**9), "or too many of them"),
    (with_image(height=-4), "has no height and width"),
    (with_image(1, id=7), "has the id of another one"),
    (with_annotation(category_id=4), "annotation 1 of a.jpg is of a category 4, which is not declared"),
    (with_annotation(bbox=[10, 10, -5, 4]), "annotation 1 of a.jpg has a box without an area: [10, 10, -5, 4]"),
    (with_annotation(bbox=[10, 10, 0, 4]), "has a box without an area"),
    (with_annotation(bbox=[70, 10, 5, 4]), "has a box outside of the image, 60 x 40 px"),
    (with_annotation(bbox=[1, 2, 3]), "has no bbox of four numbers"),
    (with_annotation(bbox=[1, 2, 3, float("nan")]), "has no bbox of four numbers"),
    (with_annotation(bbox=[1, 2, 10**399, 4]), "has no bbox of four numbers"),
    (with_annotation(bbox=[1, 2, 1e30, 4]), "has no bbox of four numbers"),
    (with_annotation(bbox=[1, 2, 1e5, 4]), "has a box that is much larger than the image, 60 x 40 px"),
    (with_annotation(area=10**399), "has an area of 1000"),
    (with_annotation(iscrowd="0"), "has iscrowd='0', and 0 or 1 is needed"),
    (with_annotation(iscrowd=2), "has iscrowd=2, and 0 or 1 is needed"),
    (with_annotation(iscrowd=None), "has iscrowd=None"),
    (with_annotation(segmentation={"size": 5, "counts": [2400]}), "has a mask of 5 in an image of [40, 60]"),
    (with_annotation(segmentation={"size": [40.0, 60], "counts": [2400]}), "has a mask of [40.0, 60] in an image"),
    (with_annotation(segmentation={"size": {}, "counts": [2400]}), "has a mask of {} in an image of [40, 60]"),
    (with_annotation(segmentation=[[10**399, 1, 2, 3, 4, 5]]), "has a polygon that is none"),
    (with_annotation(keypoints=[10**399, *POINTS[1:]]), "has no 17 keypoints"),
    (with_annotation(image_id=99), "annotation 1 is of an image 99, which is not declared"),
    (with_annotation(area=-3), "has an area of -3"),
    (with_annotation(segmentation=[[1, 2, 3, 4]]), "has a polygon that is none"),
    (with_annotation(segmentation=[[0, 0, 1e9, 0, 1e9, 1e9]]), "has a polygon outside of the image"),
    (with_annotation(segmentation={"size": [10**6, 10**6], "counts": [10**12]}), "has a mask of [1000000, 1000000]"),
    (with_annotation(segmentation={"size": [40, 60], "counts": [10**12]}), "has run lengths that do not fill it"),
    (with_annotation(segmentation={"size": [40, 60], "counts": "oooooooooo0"}), "has run lengths that do not fill it"),
    (with_annotation(keypoints=[1, 2, 2]), "has no 17 keypoints"),
]


@pytest.mark.parametrize(("made", "told"), HOSTILE, ids=[told[:40] for _, told in HOSTILE])
def test_a_record_that_is_wrong_is_named_or_left_out(tmp_path, made, told):
    coco_files(tmp_path, content())
    made["categories"][0]["keypoints"] = [str(number) for number in range(17)]
    (tmp_path / "objects.json").write_text(json.dumps(made))
    how = {"kinds": ["bbox", "segm", "keypoints"], "keep_empty": True}
    with pytest.raises(ConfigError) as caught:
        CocoDetection(str(tmp_path), str(tmp_path / "objects.json"), **how)
    (text,) = caught.value.errors
    assert told in text and text.startswith(str(tmp_path / "objects.json")) and "invalid=skip" in text
    data = CocoDetection(str(tmp_path), str(tmp_path / "objects.json"), invalid="skip", **how)
    (note,) = data.notes()
    assert "1 records are wrong and left out" in note and told in note
    assert sum(len(record.objects) for record in data.records) in (0, 1, 2), "with an image go its objects"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is empty"),
        ("{", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("[]", "has no list of images"),
        ('{"images": [], "annotations": []}', "has no list of categories"),
        ('{"images": [], "annotations": [], "categories": []}', "declares no categories"),
        (
            r'{"images": [], "annotations": [], "categories": [{"id": 1, "name": "\ud800"}]}',
            "category 1 has a name that",
        ),
        ('{"images": [], "annotations": [], "categories": [{"id": 1}]}', "not one of 0 images has an object"),
    ],
)
def test_a_file_that_is_none_of_cocos_is_refused(tmp_path, text, told):
    (tmp_path / "objects.json").write_text(text)
    with pytest.raises(DataError, match=told):
        CocoDetection(str(tmp_path), str(tmp_path / "objects.json"))


def test_many_wrong_records_are_cut_short(tmp_path):
    made = content()
    made["annotations"] = [made["annotations"][0] | {"id": number, "bbox": [0, 0, 0, 0]} for number in range(30)]
    with pytest.raises(ConfigError) as caught:
        CocoDetection(*coco_files(tmp_path, made))
    assert len(caught.value.errors) == 9 and "and 22 more records" in caught.value.errors[-1]


def samples_of(data, *transforms, corrupt="raise", **task):
    detection = Detection(num_classes=10, **task)
    made = Samples(data, transforms=transforms, joint=True, finish=detection.finish, seed=0, stage="x", corrupt=corrupt)
    return made, detection


def extent(mask):
    rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
    return [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]


@pytest.mark.parametrize(
    "transform",
    [
        v2.RandomHorizontalFlip(p=1.0),
        v2.RandomVerticalFlip(p=1.0),
        v2.Resize([192, 96]),
        v2.RandomCrop(56),
        v2.Pad(7),
    ],
    ids=lambda transform: type(transform).__name__,
)
def test_boxes_and_masks_go_with_the_image(transform):
    """What is white is the object: of no symmetry, so that each way of moving it shows."""
    white = torch.zeros(60, 90, dtype=torch.uint8)
    white[12:40, 15:70] = 1
    white[12:25, 20:50] = 0
    box = tv_tensors.BoundingBoxes([extent(white)], format="XYXY", canvas_size=(60, 90))
    target = {"boxes": box, "labels": torch.tensor([1]), "masks": tv_tensors.Mask(white[None]), "size": (60, 90)}
    samples, _ = samples_of([(tv_tensors.Image(255 * white.expand(3, -1, -1)), target)], transform, kinds=["segm"])
    seen = set()
    for view in range(8):
        sample = samples[(0, view)]
        (mask,), (box,) = sample["target"]["masks"], sample["target"]["boxes"].tolist()
        shown = sample["input"][0] > 127
        assert (mask.bool() != shown).float().mean() < 0.02, "interpolated at its edges"
        around = extent(shown)
        assert box == pytest.approx(around, abs=1 if isinstance(transform, v2.Resize) else 0) != extent(white)
        seen.add(tuple(around))
    assert len(seen) > 1 or not isinstance(transform, v2.RandomCrop)


def test_a_flip_moves_keypoints_and_swaps_left_and_right(tmp_path):
    data = CocoDetection(*coco_files(tmp_path, content()), kinds=["bbox", "keypoints"])
    plain, _ = samples_of(data, v2.RandomHorizontalFlip(p=1.0), kinds=["bbox", "keypoints"])
    named, _ = samples_of(data, KeypointFlip(p=1.0), kinds=["bbox", "keypoints"])
    mirrored, swapped = plain[(0, 0)]["target"], named[(0, 0)]["target"]
    assert mirrored["boxes"][0].tolist() == swapped["boxes"][0].tolist() == [30, 10, 50, 25]
    assert mirrored["keypoints"][0, 0].tolist() == swapped["keypoints"][0, 0].tolist(), "the nose has one side"
    assert swapped["keypoints"][0, 1].equal(mirrored["keypoints"][0, 2])
    assert abs(float(mirrored["keypoints"][0, 1, 0]) - (60 - 3)) <= 1
    cropped, _ = samples_of(data, v2.CenterCrop(20), kinds=["bbox", "keypoints"])
    target = cropped[(0, 0)]["target"]
    outside = (target["keypoints"] < 0).any(2) | (target["keypoints"] > 20).any(2)
    assert outside.any() and not target["visibility"][outside].any()


def test_an_image_without_objects_has_no_keypoints_and_is_flipped_like_any(tmp_path):
    known, more = tmp_path / "known", tmp_path / "more"
    known.mkdir()
    more.mkdir()
    wild = {"images": [{"id": 1, "file_name": "c.jpg", "height": 20, "width": 30}]}
    given, unlabelled = coco_files(known, content()), coco_files(more, wild)
    kinds = ["bbox", "keypoints"]
    data = CocoDetection(*given, kinds=kinds, keep_empty=True, unlabelled=unlabelled)
    samples, task = samples_of(data, KeypointFlip(p=1.0), kinds=kinds)
    for index in (1, 2):
        assert data[index][1]["keypoints"].shape == (0, 17, 2) and data[index][1]["visibility"].shape == (0, 17)
        assert samples[(index, 0)]["target"]["keypoints"].shape == (0, 17, 2)
    batch = task.prepare(task.collate([samples[(index, 0)] for index in range(3)]), device=torch.device("cpu"))
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0).long(), "scores": torch.zeros(0)}
    sums = task.start()
    task.add(sums, [{**nothing, "keypoints": torch.zeros(0, 17, 3)}] * 3, batch)
    assert task.figures(sums)["keypoints_mAP"] == 0


def test_boxes_without_an_area_leave_with_all_that_belongs_to_them_and_are_counted():
    data = FashionDet("train", count=20, kinds=["bbox", "segm"])
    samples, task = samples_of(data, v2.RandomCrop(40), kinds=["bbox", "segm"])
    before = after = 0
    for index in range(len(data)):
        target = samples[(index, 0)]["target"]
        before, after = before + len(data.records[index].objects), after + len(target["boxes"])
        assert {len(value) for value in target.values() if isinstance(value, torch.Tensor)} == {len(target["boxes"])}
        assert isinstance(target["boxes"], tv_tensors.BoundingBoxes) and isinstance(target["masks"], tv_tensors.Mask)
        corners = target["boxes"].as_subclass(torch.Tensor)
        assert (corners[:, 2:] > corners[:, :2]).all()
    assert before > after > 0 and task.left_out == before - after
    assert task.notes() == [f"{before - after} boxes had no area behind the transforms, and were left out"]


def test_areas_are_resized_with_their_images(tmp_path):
    made = content()
    made["annotations"][0] |= {"bbox": [10, 10, 20, 15], "area": 120}
    made["annotations"][1] |= {"bbox": [-10, 0, 20, 40], "area": 90}
    given = coco_files(tmp_path, made)
    plain, _ = samples_of(CocoDetection(*given))
    assert plain[(0, 0)]["target"]["area"].tolist() == [120, 90]
    halved, _ = samples_of(CocoDetection(*given), v2.Resize([20, 30]))
    target = halved[(0, 0)]["target"]
    assert target["area"].tolist() == pytest.approx([30, 22.5]) and "filled" not in target
    masked, _ = samples_of(CocoDetection(*given, kinds=["bbox", "segm"]), v2.Resize([20, 30]), kinds=["bbox", "segm"])
    assert masked[(0, 0)]["target"]["area"].tolist() == [80, 100], "counted in the masks, of 20 x 15 and 10 x 40 px"
    sanitize = v2.SanitizeBoundingBoxes(
        labels_getter=lambda both: tuple(both[1][key] for key in ("labels", "area", "iscrowd")), min_area=50
    )
    fewer, _ = samples_of(CocoDetection(*given), v2.Resize([20, 30]), sanitize)
    assert fewer[(0, 0)]["target"]["area"].tolist() == [75], "that of the box: of what else left nothing is known"


@pytest.mark.parametrize("label", [0, 11])
def test_a_label_that_there_is_not_is_refused_wherever_it_lies(label):
    data = FashionDet("train", count=40)
    data.records[1].objects[0].label = label
    samples, task = samples_of(data)
    assert task.label_problems(data) == [], "which looks at some items alone"
    with pytest.raises(
        DataError, match=r"labels go from .*num_classes=10 means 1 to 10: 0 is the background \(item 1\)"
    ):
        samples[(1, 0)]
    assert len(samples[(0, 0)]["target"]["labels"])


def test_boxes_are_judged_as_they_were_drawn_and_learnt_within_the_image(tmp_path):
    made = content()
    made["annotations"][0]["bbox"] = [50.0, 30.0, 10.5, 10.25]
    samples, task = samples_of(CocoDetection(*coco_files(tmp_path, made)))
    batch = task.prepare(task.collate([samples[(0, 0)]]), device=torch.device("cpu"))
    assert batch["target"][0]["boxes"][0].tolist() == [50, 30, 60.5, 40.25] and batch["target"][0]["area"][0] == 300
    asked = []

    class Network(torch.nn.Module):
        def forward(self, images, targets):
            asked.extend(targets)

    task.call(Network(), batch, name="student")
    assert asked[0]["boxes"].tolist() == [[50, 30, 60, 40]], "and the crowd is not learnt"


def test_a_target_that_would_stay_behind_is_refused():
    data = FashionDet("train", count=1)

    class Plain:
        def __len__(self):
            return 1

        def __getitem__(self, index):
            image, target = data[index]
            return image, target | {"boxes": target["boxes"].as_subclass(torch.Tensor)}

    samples, task = samples_of(Plain())
    with pytest.raises(DataError, match="boxes of item 0 are a Tensor, which transforms leave where they were"):
        samples[(0, 0)]
    assert "no torchvision.tv_tensors.BoundingBoxes" in task.label_problems(Plain())[0]
    assert task.label_problems(data) == []
    assert "labels go from" in Detection(num_classes=1).label_problems(FashionDet("train", count=9))[0]
    assert "a target has no masks" in Detection(num_classes=10, kinds=["segm"]).label_problems(data)[0]
    image_alone, _ = samples_of(data, lambda image, target: (v2.functional.resize(image, [50, 50]), target))
    with pytest.raises(DataError, match="one of them has changed the image alone"):
        image_alone[(0, 0)]


def test_the_generated_set_is_a_function_of_its_seed_and_split():
    one, two, other = (FashionDet("train", count=3, seed=seed) for seed in (0, 0, 1))
    assert all(one[i][0].equal(two[i][0]) and one[i][1]["boxes"].equal(two[i][1]["boxes"]) for i in range(3))
    assert not one[0][0].equal(other[0][0]) and not one[0][0].equal(FashionDet("test", count=1)[0][0])
    more = FashionDet("train", count=5)
    assert more[2][0].equal(one[2][0]), "an image does not depend on how many there are"
    sizes = FashionDet("test", count=20, sides=[80, 112]).sizes
    assert len(set(sizes)) > 5 and all(80 <= side <= 112 for size in sizes for side in size)
    with pytest.raises(ValueError, match="items of at least 8 px have to be smaller than images"):
        FashionDet("train", count=1, sides=[30, 30])


def test_no_training_image_is_in_a_test_image(monkeypatch):
    from distill_app.data import fashion_det

    asked = []
    real = fashion_det.BundledImages
    monkeypatch.setattr(
        fashion_det, "BundledImages", lambda name, split, **how: asked.append(split) or real(name, split, **how)
    )
    FashionDet("train", count=1), FashionDet("test", count=1)
    assert asked == ["train", "test"], "the two splits of Fashion-MNIST share no image"


VOC = """<annotation><size><width>60</width><height>40</height><depth>3</depth></size>
<object><name>cat</name><difficult>0</difficult>
<bndbox><xmin>{x}</xmin><ymin>5</ymin><xmax>20</xmax><ymax>30</ymax></bndbox></object>
<object><name>{name}</name><difficult>1</difficult>
<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>60</xmax><ymax>40</ymax></bndbox></object></annotation>"""


def voc_files(folder, text):
    coco_files(folder, content())
    for name in ("ImageSets/Main", "JPEGImages", "Annotations"):
        (folder / name).mkdir(parents=True)
    (folder / "a.jpg").rename(folder / "JPEGImages" / "a.jpg")
    (folder / "ImageSets/Main/val.txt").write_text("a\n")
    (folder / "Annotations/a.xml").write_text(text)
    return str(folder), "val"


def test_voc_counts_pixels_from_one_and_its_difficult_objects_are_crowds(tmp_path):
    data = VocDetection(*voc_files(tmp_path, VOC.format(x=10, name="dog")))
    target = data[0][1]
    assert target["boxes"].tolist() == [[9, 4, 20, 30], [0, 0, 60, 40]] and target["iscrowd"].tolist() == [0, 1]
    assert [data.classes[label - 1] for label in target["labels"].tolist()] == ["cat", "dog"]


def test_voc_has_boxes_with_all_the_digits_of_a_number(tmp_path):
    data = VocDetection(*voc_files(tmp_path, VOC.format(x="9.70000076293945", name="dog")))
    assert data[0][1]["boxes"][0].tolist() == pytest.approx([8.70000076293945, 4, 20, 30])


@pytest.mark.parametrize("crowd", [{"iscrowd": 1}, {"iscrowd": True}, {"iscrowd": False}, {"iscrowd": 0}, {}])
def test_whether_an_object_is_a_crowd_is_a_number_or_a_truth_or_not_said(tmp_path, crowd):
    made = content()
    del made["annotations"][0]["iscrowd"]
    made["annotations"][0] |= crowd
    data = CocoDetection(*coco_files(tmp_path, made), keep_empty=True)
    assert data.records[0].objects[0].crowd == bool(crowd.get("iscrowd"))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (VOC.format(x=10, name="wolf"), "object 1 of image a is a 'wolf', which is no class of VOC"),
        (VOC.format(x=30, name="dog"), "object 0 of image a has a box [30.0, 5.0, 20.0, 30.0] that is empty"),
        (VOC.format(x="1e99", name="dog"), "object 0 of image a has '1e99' for bndbox/xmin"),
        ("<annotation>", "image a has no annotation that can be read"),
        ('<!DOCTYPE x [<!ENTITY a "b">]><annotation/>', "declares a document type"),
    ],
)
def test_a_wrong_record_of_voc_is_named(tmp_path, text, told):
    with pytest.raises(ConfigError) as caught:
        VocDetection(*voc_files(tmp_path, text))
    assert told in caught.value.errors[0]


def test_an_evaluation_leaves_out_what_cannot_be_read_and_training_takes_the_next(tmp_path):
    made = content()
    made["annotations"].append({**made["annotations"][0], "id": 3, "image_id": 8})
    root, file = coco_files(tmp_path, made)
    data = CocoDetection(root, file)
    (tmp_path / "a.jpg").write_bytes(b"no image")
    evaluated, _ = samples_of(data, corrupt="leave_out")
    trained, _ = samples_of(data, corrupt="skip")
    keys = [(0, 0), (1, 0)]
    assert [each["index"] for each in evaluated.__getitems__(keys)] == [1]
    assert [each["index"] for each in trained.__getitems__(keys)] == [1, 1] and evaluated.skipped == [0]
    strict, _ = samples_of(data)
    with pytest.raises(CorruptImageError, match=r"image 0 \(.*a.jpg\) cannot be read"):
        strict[(0, 0)]


def test_a_batch_of_which_nothing_can_be_read_is_no_batch(tmp_path):
    made = content()
    made["annotations"].append({**made["annotations"][0], "id": 3, "image_id": 8})
    data = CocoDetection(*coco_files(tmp_path, made))
    (tmp_path / "a.jpg").write_bytes(b"no image")
    samples, task = samples_of(data, corrupt="leave_out")
    order = EpochOrder(2, batch_size=1, seed=0, stage="x", shuffle=False)
    loader = make_loader(
        samples, order=order, num_workers=0, device=torch.device("cpu"), collate=Collate(task.collate, key="dataset")
    )
    assert [batch["index"].tolist() for batch in loader] == [[1]]


def test_groups_are_of_like_aspect_ratio():
    data = FashionDet("train", count=1)
    data.records = [
        type(data.records[0])("x", size) for size in ((100, 100), (100, 40), (40, 100), (100, 101), (48, 100))
    ]
    groups = Detection(num_classes=10, aspect_groups=2).groups(data)
    assert groups.tolist() == [3, 0, 5, 3, 5] and Detection(num_classes=10).groups(data) is None
    with pytest.raises(ValueError, match="aspect_groups: 0 or more on either side of a square, not -1"):
        Detection(num_classes=10, aspect_groups=-1)


def coco_tree(folder):
    for split in ("train", "val"):
        made = content()
        images = folder / split
        images.mkdir(parents=True)
        coco_files(images, made)
        (images / "objects.json").rename(folder / f"{split}.json")
    return ("dataset=coco_format", f"dataset.root={folder}", "dataset.validation_fraction=0", "method=own")


NETS = ("model@student=tiny_fasterrcnn", "model@teacher=tiny_fasterrcnn", "prelude=none", "dataset.image_size=64")


@pytest.mark.slow
def test_any_set_in_cocos_format_is_named_by_its_paths_and_its_classes_are_counted(tmp_path, errors_of):
    overrides = coco_tree(tmp_path)
    assert errors_of(*overrides, *NETS, "stage.batch_size=1", "dataset.train_transform=[]") == []
    errors = errors_of(*overrides, *NETS, "dataset.num_classes=3", "stage.batch_size=1")
    assert any(
        "dataset.num_classes: 3 was given, and CocoDetection of dataset.train has 2 classes" in e for e in errors
    )
    made = content()
    made["categories"][0]["id"] = made["annotations"][0]["category_id"] = 10**15
    whole = (tmp_path / "train.json").read_text()
    (tmp_path / "train.json").write_text(json.dumps(made))
    errors = errors_of(*overrides, *NETS, "+dataset.train.labels=ids", "stage.batch_size=1")
    assert any("labels=ids takes ids from 1 to 10000; set labels=contiguous" in error for error in errors), errors
    (tmp_path / "train.json").write_text(whole)
    made = content()
    made["images"][0]["file_name"] = "../../secret.jpg"
    (tmp_path / "train.json").write_text(json.dumps(made))
    errors = errors_of(*overrides, *NETS)
    assert len(errors) == 1, errors
    (error,) = errors
    assert error.startswith("dataset.train: ") and "image 7 ('../../secret.jpg') lies outside of" in error
    (tmp_path / "val.json").unlink()
    errors = errors_of(*overrides, *NETS, "dataset.get=null")
    assert f"dataset.test.annotations: there is no file {tmp_path / 'val.json'}" in errors

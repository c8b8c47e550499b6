"""A network looked at in depth: real networks over real batches, for tasks of several kinds."""

import pytest
import torch
from task_fixtures import Net

from distill_app.analysis import picture
from distill_app.analysis.depth import depth
from distill_app.analysis.taps import IMAGES, Sample
from distill_app.analysis.text import depth_text
from distill_app.config.schema import NormalizeConf
from distill_app.errors import SettingError
from distill_app.networks.network import Network
from distill_app.tasks import Classification, MultiLabel

CPU = torch.device("cpu")
NORMALIZE = NormalizeConf(mean=[0.5] * 3, std=[0.25] * 3)
TAPS = {"stem": "body.1", "stem_again": "body.1", "stem_pre": "body.1:in", "pooled": "fc:in", "logits": "fc"}


def network(name: str, *, classes: int = 10, seed: int = 0, **how) -> Network:
    torch.manual_seed(seed)
    return Network(name, Net(classes, **how), dict(TAPS))


def batches(*, size: int = 16, count: int = 3, multilabel: bool = False) -> list[dict]:
    generator = torch.Generator().manual_seed(0)
    return [
        {
            "input": torch.randint(256, (size, 3, 16, 16), generator=generator, dtype=torch.uint8),
            "target": (torch.rand(size, 10, generator=generator) > 0.5).float()
            if multilabel
            else torch.randint(10, (size,), generator=generator),
            "index": torch.arange(size) + number * size,
        }
        for number in range(count)
    ]


def looked_at(student: Network, teacher: Network | None, *, task=None, data=None) -> dict:
    task = task or Classification(normalize=NORMALIZE, num_classes=10)
    found = depth(task, student, data or batches(), device=CPU, teacher=teacher, classes=[f"c{i}" for i in range(10)])
    return {"network": student.name, "dataset": "noise", "split": "test", "weights": "w", **found}


def test_a_student_is_looked_at_alone_and_beside_its_teacher():
    student, teacher = network("student"), network("teacher", seed=1, width=20)
    found = looked_at(student, teacher)
    assert found["count"] == 48 and sum(count for _, _, count in found["confusion"]) == 48
    assert [line["class"] for line in found["per_class"]] == [f"c{i}" for i in range(10)]
    right = sum(count for true, taken, count in found["confusion"] if true == taken)
    assert found["figures"]["accuracy"] == pytest.approx(right / 48)
    assert found["fidelity"]["agreement"] == pytest.approx(found["figures"]["agreement"])
    assert found["similarity"]["rows"] == ["stem", "pooled", "logits"], (
        "one name for one module, nothing in front of it"
    )
    assert found["similarity"]["images"] == 48 and found["left_out"] == {}
    assert len(found["examples"]) == min(24, round(48 * (1 - found["fidelity"]["agreement"])))


def test_a_network_beside_itself_agrees_in_everything():
    student, same = network("student"), network("teacher")
    found = looked_at(student, same)
    assert found["fidelity"]["agreement"] == 1.0 and found["fidelity"]["kl"] == 0.0 and found["examples"] == []
    cka = found["similarity"]["cka"]
    assert [cka[i][i] for i in range(3)] == pytest.approx([1.0] * 3, abs=1e-4)
    assert found["calibration"] == found["teacher_calibration"]


def test_modes_are_given_back_and_hooks_taken_out():
    student, teacher = network("student"), network("teacher", seed=1)
    student.module.train()
    looked_at(student, teacher)
    assert student.module.training
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in student.module.modules())


def test_without_a_teacher_there_is_what_needs_none():
    found = looked_at(network("student"), None)
    assert "calibration" in found and not {"fidelity", "similarity", "examples"} & found.keys()


def test_a_teacher_of_other_classes_is_left_out_with_the_reason():
    found = looked_at(network("student"), network("teacher", classes=7, seed=1))
    assert "one gives 10 logits and the other 7" in found["left_out"]["fidelity"]
    assert "fidelity" not in found and "calibration" in found and found["similarity"]["images"] == 48


def test_a_network_of_other_classes_is_refused_with_the_reason():
    with pytest.raises(
        SettingError, match="student cannot be judged by these data: it gives 7 logits, and there are 10"
    ):
        looked_at(network("student", classes=7), None)


def test_a_tap_that_leads_nowhere_costs_the_alignment_alone():
    teacher = network("teacher", seed=1)
    teacher.taps["stage4"] = "layer9"
    found = looked_at(network("student"), teacher)
    assert "layer9" in found["left_out"]["similarity"] and "fidelity" in found


def test_several_labels_an_image_have_their_precision_by_class_and_no_confusions():
    task = MultiLabel(normalize=NORMALIZE, num_classes=10)
    found = looked_at(network("student"), network("teacher", seed=1), task=task, data=batches(multilabel=True))
    precisions = [line["average_precision"] for line in found["per_class"]]
    assert precisions == found["figures"]["average_precision"] and len(precisions) == 10
    assert "confusion" not in found and "MultiLabel has no single class" in str(found["left_out"])
    assert found["similarity"]["images"] == 48 and found["figures"]["agreement"] is not None


def test_all_of_it_is_told_in_words_and_drawn(tmp_path):
    found = looked_at(network("student"), network("teacher", seed=1))
    text = depth_text(found)
    for word in (
        "student on 48 images of noise",
        "ECE",
        "only the teacher right",
        "KL(teacher || student)",
        "taken for",
    ):
        assert word in text
    assert "linear CKA with the teacher's taps, over 48 images" in text and "c3" in text
    assert picture.draw(tmp_path / "a.png", found) and (tmp_path / "a.png").stat().st_size > 10_000
    assert not picture.draw(tmp_path / "b.png", {"network": "student", "per_class": []})


def test_a_sample_is_drawn_from_all_batches_and_in_random_order():
    data = [{"input": torch.full((200, 1), float(number)), "target": torch.zeros(200)} for number in range(20)]
    sample = Sample(data)
    for raw in data:
        sample.add(raw)
    found = torch.cat([batch["input"] for batch in sample.batches()]).flatten()
    assert IMAGES <= len(found) < IMAGES + 60 and found.unique().tolist() == list(range(20))
    assert found[:128].unique().numel() > 10, "a batch holds images of many places"


def test_too_few_images_have_no_alignment():
    found = looked_at(network("student"), network("teacher", seed=1), data=batches(size=2, count=1))
    assert "2 samples" in found["left_out"]["similarity"]

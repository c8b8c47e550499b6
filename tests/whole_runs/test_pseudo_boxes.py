"""What a frozen detector finds as targets: which images get them, what is refused, and that a run goes through."""

import json
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from engine_fixtures import network, run, runner, stage

from distill_app.data.training_set import unlabelled
from distill_app.errors import DataError
from distill_app.training.stage import Stage

BASE = (
    "dataset=fashion_det",
    "dataset.train.count=12",
    "dataset.train.labelled=6",
    "dataset.test.count=4",
    "dataset.validation_fraction=0",
    "model@teacher=tiny_fasterrcnn",
    "model@student=tiny_fasterrcnn_8",
    "teacher.allow_random=true",
    "stage=fashion_det",
    "stage.epochs=1",
    "stage.batch_size=4",
    "method=pseudo_boxes",
)
SCORE = "method.stages.distill.adapters.boxes.module.score={}".format
EVERYWHERE = "method.stages.distill.adapters.boxes.module.everywhere=true"


def seen_by_the_student(built: Stage, batch: dict[str, Any]) -> list[dict[str, torch.Tensor]]:
    """The targets with which a step runs the student."""
    seen: list[Any] = []
    handle = network(built, "student").register_forward_pre_hook(lambda module, args: seen.append(args[1]))
    built.step.train()
    total, _ = built.step(batch, built.frozen.activations(batch))
    total.backward()
    handle.remove()
    assert total.isfinite()
    return seen[-1]


@pytest.mark.slow
@pytest.mark.parametrize("everywhere", [False, True])
def test_images_without_targets_get_what_the_teacher_finds_above_the_score(tmp_path, everywhere):
    more = (EVERYWHERE,) if everywhere else ()
    with stage(tmp_path, "prelude=none", SCORE(0.1), *more, base=BASE) as built:
        batches = [built.prepare(raw) for raw in built.data.train]
        assert sum(len(batch["index"]) for batch in batches) == 12
        for batch in batches:
            found = built.frozen.run(batch)["teacher"]["output"]
            for own, target, each in zip(batch["target"], seen_by_the_student(built, batch), found, strict=True):
                assert not own.get("unlabelled") or not len(own["boxes"])
                if everywhere or own.get("unlabelled"):
                    kept = each["scores"] >= 0.1
                    assert kept.any() and target["boxes"].equal(each["boxes"][kept])
                    assert target["labels"].equal(each["labels"][kept]) and not target["iscrowd"].any()
                else:
                    assert target["labels"].equal(own["labels"]) and len(own["labels"])
        assert {bool(own.get("unlabelled")) for batch in batches for own in batch["target"]} == {False, True}


@pytest.mark.slow
def test_stages_that_say_nothing_see_images_with_targets_alone(tmp_path):
    with runner(tmp_path, "prelude=own", "dataset.validation_fraction=0.5", base=BASE) as made:
        sets = {plan.name: made.experiment.data.training_set(plan) for plan in made.plans}
    counts = {name: (len(each.train), len(each.validation)) for name, each in sets.items()}
    assert counts == {"teacher": (3, 3), "alone": (3, 3), "distill": (9, 3)}
    assert {*sets["distill"].train.tolist()} - {*sets["alone"].train.tolist()} == {6, 7, 8, 9, 10, 11}
    assert max(sets["distill"].validation) < 6


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("dataset.train.labelled=null", "fashion_det has no images without targets"),
        ("method.stages.distill.adapters.boxes.fills=null", "the term 'own' reads student.losses, and images without"),
        ("method.stages.distill.adapters.boxes.source.found=teacher.p2", "got a tensor (4, 64, 24, 24): read teacher"),
        ("method.stages.distill.adapters.boxes.source.found=student.output", "'student' is trained here, and runs"),
        ("method.stages.distill.adapters.boxes.fills=index", "'index' says which samples a batch is made of"),
    ],
)
def test_what_would_be_learnt_as_nothing_and_teachers_that_find_none_are_refused(tmp_path, change, message):
    with pytest.raises(ValueError) as caught, stage(tmp_path, "prelude=none", change, base=BASE):
        pass
    assert message.replace("(4, ", "(2, ") in str(caught.value)


@pytest.mark.slow
def test_features_may_be_learnt_from_images_without_targets(tmp_path):
    quiet = ("method.stages.distill.losses.own=null", "method.stages.distill.unlabelled=true")
    base = tuple("method=l2_fpn" if each.startswith("method=") else each for each in BASE)
    with stage(tmp_path, "prelude=none", *quiet, base=base) as built:
        assert len(built.data.indices) == 12


@pytest.mark.slow
def test_a_run_goes_through_and_other_terms_see_the_pseudo_boxes_too(tmp_path):
    place = "method.stages.distill.losses.focal"
    focal = (f"+loss@{place}=fgd_focal", f"{place}.inputs.student=student.p2")
    run(tmp_path, "prelude=none", SCORE(0.1), *focal, base=BASE)
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    (epoch,) = [record for record in records if record["kind"] == "epoch"]
    assert epoch["metrics"]["loss_focal"] > 0 and epoch["metrics"]["loss_own"] > 0


def test_unlabelled_images_are_images_of_the_data_set():
    plan = SimpleNamespace(conf=SimpleNamespace(unlabelled=False), data=SimpleNamespace(name="mine"), key="x")

    class Twelve:
        unlabelled = (3, 12)

        def __len__(self):
            return 12

    with pytest.raises(DataError, match="mine: its `unlabelled` are indices from 3 to 12, and it has 12 images"):
        unlabelled(Twelve(), plan)
    Twelve.unlabelled = (3, 11)
    assert unlabelled(Twelve(), plan).tolist() == [3, 11]

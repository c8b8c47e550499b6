"""Classification: figures of batches, of networks that do not fit, and of answers that stand in some place."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from distill_app.errors import SettingError
from distill_app.networks.network import Network
from distill_app.tasks import Classification, MultiLabel
from distill_app.tasks.base import merged
from distill_app.tasks.evaluation import evaluate

CPU = torch.device("cpu")
NORMAL = SimpleNamespace(mean=[0.0, 0.0, 0.0], std=[1.0, 1.0, 1.0])


class Logits(Classification):
    """Inputs are logits already."""

    def prepare(self, batch, *, device):
        return batch


def network(module: nn.Module | None = None, name: str = "student", **taps: str) -> Network:
    return Network(name, module or nn.Identity(), taps)


def batches(count: int = 50, classes: int = 10, size: int = 16) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(count, classes, generator=generator), torch.arange(count) % classes
    return [{"input": logits[i : i + size], "target": labels[i : i + size]} for i in range(0, count, size)]


class Head(nn.Module):
    """Gives something beside its logits."""

    def __init__(self, style: str):
        super().__init__()
        self.fc, self.style = nn.Identity(), style

    def forward(self, x: Tensor):
        logits, features = self.fc(x), x.flip(1)
        return {
            "feature_first": (features, logits),
            "mapping": {"features": features, "logits": logits},
            "other_tensor": features,
            "flattened": logits.view(-1, logits.shape[1]),
            "one_in_a_tuple": (logits,),
        }[self.style]


@pytest.mark.parametrize("style", ["feature_first", "mapping", "other_tensor", "flattened", "one_in_a_tuple"])
def test_what_the_tap_says_is_judged_whatever_else_is_returned(style):
    task = Logits(normalize=NORMAL, num_classes=10)
    expected = evaluate(task, network(), batches(), device=CPU)
    assert evaluate(task, network(Head(style), logits="fc"), batches(), device=CPU) == expected


def test_without_a_tap_several_tensors_are_refused_with_the_key_to_set():
    task = Logits(normalize=NORMAL, num_classes=10)
    with pytest.raises(SettingError, match=r"\+student\.taps\.logits=PATH"):
        evaluate(task, network(Head("feature_first")), batches(), device=CPU)
    one = evaluate(task, network(Head("one_in_a_tuple")), batches(), device=CPU)
    assert one == evaluate(task, network(), batches(), device=CPU)


def test_no_hook_is_left_behind():
    head = Head("feature_first")
    evaluate(Logits(normalize=NORMAL, num_classes=10), network(head, logits="fc"), batches(), device=CPU)
    assert not head.fc._forward_hooks and not head._forward_hooks


def test_sums_of_parts_are_the_sums_of_the_whole():
    task = Classification(normalize=NORMAL, num_classes=10)
    whole, parts = task.start(), []
    for batch in batches():
        part = task.start()
        for sums in (whole, part):
            task.add(sums, batch["input"], batch)
            task.compare(sums, batch["input"], batch["input"].roll(1, 0), batch)
        parts.append(part)
    assert task.figures(merged(parts)) == pytest.approx(task.figures(whole))
    assert task.figures(whole)["agreement"] < 1


def test_a_teacher_of_other_classes_has_no_figures_but_a_reason():
    task, wide = Logits(normalize=NORMAL, num_classes=10), nn.Linear(10, 1000)
    found = evaluate(task, network(wide, "teacher"), batches(), device=CPU, trained=False)
    assert set(found.figures.values()) == {None} and set(found.figures) == {metric.name for metric in task.metrics}
    assert found.reasons["accuracy"] == "teacher gives 1000 logits, and there are 10 classes"


def test_a_student_is_judged_but_not_compared_with_a_teacher_of_other_classes():
    task, teacher = Logits(normalize=NORMAL, num_classes=10), network(nn.Linear(10, 1000), "teacher")
    found = evaluate(task, network(), batches(), device=CPU, reference=teacher)
    assert found.figures["agreement"] is None and found.figures["accuracy"] is not None
    assert (
        list(found.reasons) == ["agreement"] and "one gives 10 logits and the other 1000" in found.reasons["agreement"]
    )


def test_a_teacher_for_other_images_has_a_reason_and_a_student_an_error():
    task, other = Logits(normalize=NORMAL, num_classes=10), nn.Linear(7, 10)
    found = evaluate(task, network(other, "teacher"), batches(), device=CPU, trained=False)
    assert found.figures["accuracy"] is None and "teacher cannot run on these data" in found.reasons["accuracy"]
    compared = evaluate(task, network(), batches(), device=CPU, reference=network(other, "teacher"))
    assert compared.figures["agreement"] is None and compared.figures["loss"] is not None
    with pytest.raises(RuntimeError):
        evaluate(task, network(other), batches(), device=CPU)


def test_a_network_with_spare_logits_that_was_trained_here_is_judged():
    task = Logits(normalize=NORMAL, num_classes=5)
    found = evaluate(task, network(), batches(classes=10), device=CPU)
    assert found.figures["accuracy"] is not None and not found.reasons


def test_shares_of_classes_count_as_the_largest():
    task = Logits(normalize=NORMAL, num_classes=10)
    soft = [batch | {"target": nn.functional.one_hot(batch["target"], 10) * 0.9 + 0.01} for batch in batches()]
    hard = evaluate(task, network(), batches(), device=CPU).figures
    assert evaluate(task, network(), soft, device=CPU).figures["accuracy"] == hard["accuracy"]


@pytest.mark.parametrize(
    ("targets", "told"),
    [([0, 1, 2], None), ([1, 2, 3], "labels go from 1 to 3"), ([[1.0, 1.0], [0.0, 1.0]], "another task is needed")],
)
def test_targets_that_are_no_classes_are_told(targets, told):
    labels = [torch.tensor(target) if isinstance(target, list) else target for target in targets]
    dataset = [(torch.zeros(3, 4, 4), label) for label in labels]
    problems = Classification(normalize=NORMAL, num_classes=3).label_problems(dataset)
    assert (told is None and not problems) or told in problems[0]
    assert Logits(normalize=NORMAL, num_classes=3).label_problems(dataset) == []


def test_only_the_logits_of_classes_are_cached_by_their_largest():
    task = Classification(normalize=NORMAL, num_classes=10)
    assert task.class_logits("logits") == task.class_logits("output") == 10
    assert task.class_logits("pooled") is None
    assert MultiLabel(normalize=NORMAL, num_classes=10).class_logits("logits") is None

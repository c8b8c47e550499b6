"""Networks that return more than their logits, or something else: what the tap says is judged, and compared."""

import json

import pytest
import torch
from engine_fixtures import run, runner
from task_fixtures import Net

from distill_app.errors import SettingError
from distill_app.networks.answers import Answers
from distill_app.networks.network import Network

STYLES = ["features_first", "aux_first", "mapping", "nested", "mean", "aux_in_training"]
CPU = torch.device("cpu")
PAIR = ("model@teacher=plain_32_64_128", "model@student=plain_8_16")


def overrides(style: str, role: str = "student") -> tuple[str, ...]:
    net = (f"{role}.net._target_=task_fixtures.Net", f"~{role}.net.widths", f"+{role}.net.style={style}")
    return ("runtime.allow=[task_fixtures]", *net, f"{role}.taps.logits=fc", "stage.select=best", "stage.lr=0.1")


@pytest.mark.slow
@pytest.mark.parametrize("style", [STYLES[0], *(pytest.param(style, marks=pytest.mark.slow) for style in STYLES[1:])])
def test_figures_are_those_of_the_logits(tmp_path, style, distill):
    summary = run(tmp_path / "a", *overrides(style))
    row = summary["rows"][0]
    bare = Net(10)
    bare.load_state_dict(torch.load(tmp_path / "a/student.pt", weights_only=True), strict=True)
    right = []
    with runner(tmp_path / "b", *overrides(style)) as made, torch.no_grad():
        plan = made.plans[-1]
        for raw in made.experiment.data.test(plan):
            batch = made.experiment.data.task(plan).prepare(raw, device=CPU)
            right.append(bare.eval()(batch["input"]).argmax(1) == batch["target"])
    assert row["accuracy"] == float(torch.cat(right).double().mean())


@pytest.mark.slow
def test_the_verb_judges_the_logits_too(tmp_path, distill):
    options = (
        "dataset=digits",
        "stage=digits",
        "prelude=none",
        "teacher.allow_random=true",
        "model@teacher=plain_32_64_128",
        "model@student=plain_8_16",
    )
    short = ("runtime.threads=1", "runtime.max_epochs=1", f"hydra.run.dir={tmp_path}/a")
    code, _, err = distill(*options, *overrides("features_first"), *short)
    assert code == 0, err
    code, out, _ = distill("evaluate", str(tmp_path / "a"), "--allow", "task_fixtures")
    row = json.loads((tmp_path / "a/summary.json").read_text())["rows"][0]
    assert json.loads(out)["accuracy"] == row["accuracy"]


@pytest.mark.slow
def test_a_teacher_that_returns_more_is_compared_by_its_logits(tmp_path):
    plain, mixed = (run(tmp_path / style, *overrides(style, "teacher")) for style in ("logits", "features_first"))
    for row in (*plain["rows"], *mixed["rows"]):
        del row["seconds"]
    assert plain["rows"] == mixed["rows"]


@pytest.mark.slow
def test_a_teacher_of_other_classes_is_left_out_of_the_table_with_one_warning_each(tmp_path, capsys):
    summary = run(tmp_path, "method=spkd", "teacher.net.num_classes=1000", "stage.epochs=1")
    student, teacher = summary["rows"]
    assert teacher["accuracy"] is teacher["agreement"] is student["agreement"] is None
    assert student["accuracy"] is not None
    assert teacher["reasons"]["accuracy"] == "teacher gives 1000 logits, and there are 10 classes"
    out, err = capsys.readouterr()
    assert err.count("warning: no accuracy, top5, loss, agreement: teacher gives 1000 logits") == 1
    assert err.count("warning: no agreement: student is not compared with teacher") == 1
    (line,) = [line for line in out.splitlines() if line.startswith("teacher ")]
    assert line.split()[1:3] == ["-", "-"]


def test_an_entry_of_what_a_network_returns_may_be_its_answer():
    class Several(torch.nn.Module):
        def forward(self, images):
            return self.found(images)

    network = Network("student", Several(), {})
    answers, images = Answers(network, "output.out"), torch.arange(3.0)
    for found in (lambda x: x, lambda x: {"aux": x + 1, "out": x}, lambda x: {"only": x}):
        network.module.found = found
        assert torch.equal(answers(images), images)
    network.module.found = lambda x: {"aux": x, "more": x}
    with pytest.raises(SettingError, match=r"student: the network returns .*a mapping with the entry 'out', is needed"):
        answers(images)

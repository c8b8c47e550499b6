"""A method of the user's own, as the README shows it: one loss class in a package of theirs, one YAML."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

LOSS = """
import json
from pathlib import Path
import torch
from torch import nn


class CosineGap(nn.Module):
    def __init__(self, trace=None):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.trace = trace

    def forward(self, student, teacher):
        value = self.scale * (1 - nn.functional.cosine_similarity(student, teacher).mean())
        if self.trace and value.requires_grad:
            student.register_hook(self._note)
        return value

    def _note(self, gradient):
        with Path(self.trace).open("a") as file:
            file.write(json.dumps(float(gradient.abs().sum())) + "\\n")
"""
METHOD = """
# cosine: a method of my own
defaults: [kd, _self_]
name: cosine
about: {title: KD and the angle between logits}
stages: {distill: {losses: {gap: {loss: {_target_: mypkg.losses.CosineGap, trace: "${oc.env:TRACE}"}, weight: 2.0,
  inputs: {student: student.logits, teacher: teacher.logits}}}}}
"""
ALONE = ("prelude=none", "debug=one_batch", "hydra.run.dir=run")


@pytest.fixture
def home(tmp_path) -> Iterator[Path]:
    """A folder outside the repository with a package and a config folder."""
    for folder in ("code/mypkg", "myconf/method", "elsewhere"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "code/mypkg/__init__.py").touch()
    (tmp_path / "code/mypkg/losses.py").write_text(LOSS)
    (tmp_path / "myconf/method/cosine.yaml").write_text(METHOD.lstrip())
    yield tmp_path
    for name in ("mypkg", "mypkg.losses"):
        sys.modules.pop(name, None)


@pytest.mark.slow
def test_it_trains_the_student(home, distill_process, tiny):
    arguments = ["--config-dir", str(home / "myconf"), *tiny, *ALONE, "method=cosine", "runtime.allow=[mypkg]"]
    trace = home / "trace"
    done = distill_process(*arguments, cwd=home / "elsewhere", PYTHONPATH=str(home / "code"), TRACE=str(trace))
    assert done.returncode == 0, done.stderr

    run = home / "elsewhere" / "run"
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    step = next(record for record in records if record["kind"] == "step")
    assert set(step["losses"]) == {"ce", "kd", "gap"} and step["losses"]["gap"] > 0
    total = 0.5 * step["losses"]["ce"] + 0.5 * step["losses"]["kd"] + 2.0 * step["losses"]["gap"]
    assert step["total"] == pytest.approx(total, rel=1e-5)
    gradients = [json.loads(line) for line in trace.read_text().splitlines()]
    assert max(gradients) > 0, "the loss hands a gradient to the student"
    state = torch.load(next(run.glob("checkpoints/distill/*/state.pt")), weights_only=True)
    assert state["parts"]["losses"]["gap"]["scale"] != 1.0, "what the loss learns is trained and kept"
    assert json.loads((run / "summary.json").read_text())["method"] == "cosine"


@pytest.mark.slow
def test_the_config_dir_may_be_joined_by_an_equals_sign_and_the_package_lie_in_the_working_folder(
    home, distill, monkeypatch, tiny
):
    monkeypatch.chdir(home / "code")
    monkeypatch.setenv("TRACE", "")
    code, out, err = distill("--config-dir=../myconf", *tiny, "method=cosine", "runtime.allow=[mypkg]", "dry_run=true")
    assert code == 0, err
    assert "term gap: 2 x CosineGap(student=student.logits, teacher=teacher.logits)" in out


@pytest.mark.slow
def test_without_permission_or_package_it_says_what_to_type(home, distill, monkeypatch, tiny):
    monkeypatch.chdir(home)
    monkeypatch.setenv("TRACE", "")
    flags, more = ["--config-dir", "myconf"], [*tiny, "method=cosine", "dry_run=true"]
    code, _, err = distill(*flags, *more)
    assert code == 2 and "'runtime.allow=[timm, mypkg]'" in err and len(err.splitlines()) == 2
    code, _, err = distill(*flags, *more, "runtime.allow=[yourpkg]", "method.name=x")
    assert code == 2 and "'runtime.allow=[yourpkg, mypkg]'" in err

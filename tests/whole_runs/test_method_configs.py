"""All methods as config: they compose and fit any pair, train the student and their adapters alone, and do learn."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from engine_fixtures import changed, equal, mostly_slow, network, networks, run, runner, snapshot
from method_fixtures import ALL, ANY_PAIR, POOLING, SPLIT, TINY, TOKENS, base
from torch import nn

from distill_app.adapters import ConvBranch, ReviewFusion
from distill_app.check.quick import check
from distill_app.config.groups import conf_dir
from distill_app.config.tree import compose
from distill_app.runs.checkpoint import Checkpoints
from distill_app.training.describe import stage_text
from distill_app.training.runner import StageRunner
from distill_app.training.stage import Stage

MOSTLY_SLOW = mostly_slow(ALL, "kd", "crd", "ghnd")
# With several stages, networks of their own, wrappers, memories, learnt terms; test_methods trains every method.
OF_EACH_KIND = ["kd", "fitnet", "crd", "simkd", "dml", "takd", "sskd", "ca_mkd", "ofa_kd"]
PAIRS = [("resnet18", "mobilenet_v2_small"), ("vgg8", "resnet20"), ("vit_ti_16", "resnet20")]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def stages(folder: Path, method: str, *overrides: str) -> Iterator[tuple[StageRunner, Stage]]:
    """The stages of a method, one after the other, as a run builds them."""
    with runner(folder, f"method={method}", "stage.lr=0.001", *overrides, base=base(method)) as made:
        for plan in made.plans:
            with closing(Stage(plan, made.experiment)) as stage:
                made.begin(stage, None)
                stage.begin_epoch(0)
                yield made, stage


@contextmanager
def closing(stage: Stage) -> Iterator[Stage]:
    try:
        yield stage
    finally:
        stage.close()


def losses(stage: Stage, batch: dict) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    return stage.step(batch, stage.frozen.activations(batch))


def test_all_methods_of_the_paper_are_there():
    paper = [
        "kd",
        "fitnet",
        "fsp",
        "at",
        "pkt",
        "ft",
        "dab",
        "rkd",
        "vid",
        "cckd",
        "spkd",
        "crd",
        "tfkd_self",
        "tfkd_reg",
        "sskd",
        "l2",
        "pad_l2",
        "hnd",
        "ghnd",
    ]
    assert set(paper) <= set(ALL)


@pytest.mark.parametrize("method", ALL)
def test_a_method_file_is_short_and_knows_no_architecture(method):
    wiring, _, about = Path(conf_dir(), "method", f"{method}.yaml").read_text().partition("\nabout:\n")
    assert wiring.startswith(f"# distill method={method}") and len(wiring.splitlines()) <= 25
    assert not re.search(r"layer\d|features\.|classifier|\bfc\b|conv\d|_channels:", wiring)
    assert "https://" in about and not re.search(r"^\S", about, re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize("method", MOSTLY_SLOW)
def test_a_batch_of_one_is_finite_or_refused_by_batch_norm(method, tmp_path):
    for _, stage in stages(tmp_path, method):
        try:
            total, _ = losses(stage, stage.example_batch(1))
        except ValueError as error:
            assert "more than 1 value per channel" in str(error)
            # One of embeddings, of a fusion whose deepest level is an embedding as a map, or of a branch that ends so.
            norms = (nn.BatchNorm1d, ReviewFusion, ConvBranch)
            assert any(isinstance(part, norms) for part in stage.step.adapters.modules())
        else:
            assert total.isfinite()
            total.backward()
            assert all(p.grad.isfinite().all() for p in stage.optimization.parameters if p.grad is not None)


@pytest.mark.slow
@pytest.mark.parametrize("method", MOSTLY_SLOW)
def test_bfloat16_activations_give_finite_losses_and_gradients(method, tmp_path):
    for _, stage in stages(tmp_path, method, "runtime.precision=bf16"):
        total, _ = losses(stage, stage.example_batch(8))
        total.backward()
        assert total.isfinite()
        assert all(p.grad.isfinite().all() for p in stage.optimization.parameters if p.grad is not None)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "number", "name"), [("vid", 0, "losses.vid4.raw_variance"), ("pad_l2", 1, "")])
def test_learnt_variances_are_optimised(method, number, name, tmp_path):
    for position, (_, stage) in enumerate(stages(tmp_path, method)):
        if position != number:
            continue
        parameters = dict(stage.step.named_parameters())
        watched = name or next(key for key in parameters if key.startswith("adapters.log_variance"))
        before = parameters[watched].detach().clone()
        losses(stage, stage.example_batch(16))[0].backward()
        stage.optimization.step()
        assert not parameters[watched].equal(before)
        return
    pytest.fail("the stage did not run")


@pytest.mark.parametrize(("method", "learnt"), [("crd", "student_memory"), ("vid", "raw_variance")])
@pytest.mark.slow
def test_what_a_loss_learns_survives_an_interruption_bit_for_bit(method, learnt, tmp_path, monkeypatch):
    short = (f"method={method}", "stage.epochs=2", "dataset.train.size=32")
    run(tmp_path / "whole", *short, base=base(method))
    take_steps = StageRunner.take_steps

    def interrupted(self, stage, training):
        if self.progress.epoch == 1:
            raise KeyboardInterrupt
        return take_steps(self, stage, training)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(StageRunner, "take_steps", interrupted)
        run(tmp_path / "resumed", *short, base=base(method))
    run(tmp_path / "resumed", *short, base=base(method))
    ends = [
        Checkpoints(tmp_path / name / "checkpoints").load("last")["parts"]["losses"] for name in ("whole", "resumed")
    ]
    assert any(learnt in key for state in ends[0].values() for key in state)
    assert all(equal(ends[0][name], ends[1][name]) for name in ends[0])


@pytest.mark.slow
def test_pad_goes_on_from_the_student_and_the_adapter_of_the_l2_stage(tmp_path):
    before = {}
    for made, stage in stages(tmp_path, "pad_l2", "model@teacher=plain_16_32_64"):
        student, adapter = network(stage, "student"), made.experiment.parts.adapters["embedding"]
        if stage.plan.name == "pad":
            assert not changed(student, before["student"]) and not changed(adapter, before["embedding"])
            assert "embedding" in stage.plan.trained_adapters
            return
        losses(stage, stage.example_batch(16))[0].backward()
        stage.optimization.step()
        before = {"student": snapshot(student), "embedding": snapshot(adapter)}
        assert sum(p.numel() for p in adapter.parameters()) > 0


@pytest.mark.slow
def test_the_paraphraser_is_kept_and_frozen_in_the_second_stage_of_ft(tmp_path):
    encoders = []
    for made, stage in stages(tmp_path, "ft"):
        encoder = made.experiment.parts.adapters["encoder"]
        encoders.append((encoder, snapshot(encoder)))
        losses(stage, stage.example_batch(8))[0].backward()
        stage.optimization.step()
    (first, _), (second, before) = encoders
    assert first is second and not second.training
    assert not changed(second, before) and "decoder" not in stage.plan.adapters


@pytest.mark.slow
def test_the_teacher_head_of_sskd_is_kept_and_frozen_in_the_second_stage(tmp_path):
    heads = []
    for made, stage in stages(tmp_path, "sskd"):
        heads.append(made.experiment.parts.adapters["teacher_head"])
        assert ("teacher_head" in stage.plan.trained_adapters) == (stage.plan.name == "pretext")
        assert stage.plan.trained == ([] if stage.plan.name == "pretext" else ["student"])
    assert heads[0] is heads[1]


def test_sskd_runs_networks_on_all_views_and_labels_on_upright_ones(tmp_path):
    for _, stage in stages(tmp_path, "sskd"):
        batch = stage.example_batch(4)
        assert batch["input"].shape == (16, 3, 16, 16) and batch["target"].shape == (4,)
        if stage.plan.name == "distill":
            assert stage.examples["student"]["logits"].shape[0] == 8
            assert stage.examples["adapters"]["student_upright"].shape[0] == 2
        judged = next(iter(stage.data.judge))
        assert judged["input"].dim() == 4, "evaluation must not use the wrapper"


@pytest.mark.slow
def test_a_stage_can_leave_out_a_wrapper_of_the_data_set(tmp_path):
    views = "+dataset.wrappers.views={_target_: distill_app.data.RotatedViews}"
    out = "+method.stages.distill.wrappers.views=null"
    sizes = []
    for extra in ((), (out,)):
        with runner(tmp_path, "method=tfkd_reg", views, *extra, base=base("tfkd_reg")) as made:
            sizes.append(made.experiment.data.stage(made.plans[0]).train.dataset[(0, 0)]["input"].dim())
    assert sizes == [4, 3]


@pytest.mark.slow
def test_a_wrapper_that_does_not_exist_is_found_by_the_check_under_its_stage():
    errors = list(
        check(compose(["method=sskd", "dataset=fake", "method.params.views._target_=distill_app.data.Rotated"]))
    )
    assert any("method.stages.pretext.wrappers.views._target_" in error and "RotatedViews" in error for error in errors)


def test_the_self_teacher_is_another_network_than_the_student(tmp_path):
    for made, stage in stages(tmp_path, "tfkd_self"):
        assert set(networks(made)) == {"student", "pretrained"}
        if stage.plan.name == "pretrain":
            first, start = (snapshot(network(stage, name)) for name in ("pretrained", "student"))
            assert changed(network(stage, "student"), first), "another start than the student's"
            losses(stage, stage.example_batch(8))[0].backward()
            stage.optimization.step()
        else:
            assert stage.plan.trained == ["student"] and stage.frozen.names == ["pretrained"]
            assert equal(snapshot(network(stage, "student")), start), "the student starts anew"
            assert changed(network(stage, "pretrained"), first)


def test_tfkd_reg_builds_no_teacher(tmp_path):
    with runner(tmp_path, "method=tfkd_reg", base=base("tfkd_reg")) as made:
        assert set(networks(made)) == {"student"}


@pytest.mark.slow
@pytest.mark.parametrize(("method", "reads"), [("hnd", 1), ("ghnd", 4)])
def test_only_the_bottleneck_and_what_precedes_it_is_trained_and_the_tail_is_the_teachers(method, reads, tmp_path):
    for _, stage in stages(tmp_path, method):
        student, teacher = network(stage, "student"), network(stage, "teacher")
        assert len(stage.plan.terms) == reads and all(t.loss["reduction"] == "sum" for t in stage.plan.terms.values())
        assert stage.plan.optimizer["_target_"] == "torch.optim.Adam" and stage.plan.conf.lr == 1e-3
        ours, theirs = student.state_dict(), teacher.state_dict()
        assert all(ours[name].equal(value) for name, value in theirs.items())
        tail = [name for name in theirs if name.startswith(("layer", "fc"))]
        before = snapshot(student)
        for _ in range(2):
            losses(stage, stage.example_batch(8))[0].backward()
            stage.optimization.step()
        moved = changed(student, before)
        assert not moved & set(tail), "weights or batch norm statistics of the tail changed"
        assert {name for name in moved if name.startswith("relu.encoder")} and "conv1.weight" in moved
        assert stage.tapped["student"].stops_at == ("stage1" if method == "hnd" else "stage4")
        assert "8 bits" in stage_text(stage)


@pytest.mark.slow
def test_relational_methods_read_embeddings_and_dab_reads_pre_activations(tmp_path):
    for method in ("rkd", "pkt", "cckd", "crd", "l2"):
        for _, stage in stages(tmp_path, method):
            assert stage.plan.taps["teacher"] == ["pooled"]
    for _, stage in stages(tmp_path, "dab"):
        if stage.plan.name == "boundary":
            assert all(tap.endswith("_pre") for tap in stage.plan.taps["student"])
            assert (stage.examples["teacher"]["stage4_pre"] < 0).any()


@pytest.mark.slow
def test_kd_is_as_large_without_the_cross_entropy(tmp_path):
    values = []
    for off in ((), ("method.stages.distill.losses.ce=null",)):
        for _, stage in stages(tmp_path, "kd", *off):
            values.append(float(losses(stage, stage.example_batch(8))[1]["kd"].detach()))
    assert values[0] == values[1] > 0


@pytest.mark.parametrize("method", SPLIT)
@pytest.mark.slow
def test_check_says_why_head_distillation_needs_the_teachers_architecture(method):
    errors = list(check(compose([f"method={method}", "dataset=fake", "model@student=resnet20"])))
    assert len(errors) == 1 and "model@student=teacher_bottleneck" in errors[0]
    frozen = ["prelude=none", "teacher.allow_random=true"]
    errors = list(check(compose([f"method={method}", "dataset=fake", *frozen, "model@teacher=vit_b_16"])))
    assert len(errors) == 1 and "gives maps (B, C, H, W)" in errors[0]


@pytest.mark.slow
@pytest.mark.parametrize("method", TOKENS)
@pytest.mark.parametrize(("teacher", "student"), PAIRS)
def test_methods_of_blocks_refuse_networks_without_any(method, teacher, student):
    pair = [f"model@teacher={teacher}", f"model@student={student}", "dataset=fake", "prelude=none"]
    errors = list(check(compose([f"method={method}", *pair, "teacher.allow_random=true"])))
    assert errors and all("unknown tap 'block" in error or "unknown tap 'normed'" in error for error in errors)


@pytest.mark.slow
@pytest.mark.parametrize("method", ANY_PAIR)
@pytest.mark.parametrize(("teacher", "student"), PAIRS)
def test_every_method_fits_every_pair(method, teacher, student):
    pair = [f"model@teacher={teacher}", f"model@student={student}", "dataset=fake", "prelude=none"]
    assert list(check(compose([f"method={method}", *pair, "teacher.allow_random=true"]))) == []


@pytest.mark.slow
@pytest.mark.parametrize("method", POOLING)
@pytest.mark.parametrize("teacher", ["vgg11_bn", "vit_b_16", "densenet121", "resnet18", "swin_t"])
def test_methods_that_see_maps_through_the_classifier_refuse_networks_that_pool_otherwise(method, teacher):
    pair = [f"model@teacher={teacher}", "model@student=mobilenet_v2_small", "dataset=fake", "prelude=none"]
    errors = list(check(compose([f"method={method}", *pair, "teacher.allow_random=true"])))
    told = [error for error in errors if "average of its last map" in error]
    assert len(told) == len(errors) == (teacher in ("vgg11_bn", "vit_b_16", "densenet121"))


@pytest.mark.slow
def test_what_simkd_deploys_is_the_student_with_the_teachers_frozen_head(tmp_path):
    summary = run(tmp_path, "method=simkd", base=base("simkd"))
    student, teacher = torch.load(tmp_path / "reused.pt", weights_only=True), None
    with runner(tmp_path / "other", "method=simkd", base=base("simkd")) as made:
        teacher = networks(made)["teacher"].state_dict()
        networks(made)["reused"].load_state_dict(student, strict=True)
    assert all(student[name].equal(teacher[name]) for name in ("fc.weight", "fc.bias"))
    rows = {row["network"]: row for row in summary["rows"]}
    assert rows["reused"]["parameters"] == sum(
        value.numel() for value in student.values() if value.is_floating_point()
    ) - sum(value.numel() for name, value in student.items() if "running" in name)
    assert "student" not in rows


@pytest.mark.slow
@pytest.mark.parametrize(
    ("methods", "pairs"),
    [
        (OF_EACH_KIND, "model@student=mobilenet_v2_small,plain_8_16"),
        (SPLIT, "model@teacher=resnet18,mobilenet_v2_small"),
    ],
)
def test_a_sweep_over_methods_and_pairs_passes(methods, pairs, tmp_path):
    overrides = [*TINY, "debug=one_batch", "prelude=none", "runtime.threads=1", "stage.batch_size=8"]
    sweep = [f"hydra.sweep.dir={tmp_path}", f"method={','.join(methods)}", pairs]
    done = subprocess.run(
        [sys.executable, "-m", "distill_app", "-m", *sweep, *overrides],
        capture_output=True,
        text=True,
        timeout=30 * len(methods),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(list(tmp_path.glob("*/summary.json"))) == 2 * len(methods)

"""Compiled networks give the taps that they give without, stop at the same place, and later stages compile anew."""

import shutil

import pytest
import torch
import torchvision
from engine_fixtures import mostly_slow, resolved, run, stage, train
from torch._dynamo.testing import CompileCounter

from distill_app.networks.hooks import TappedModel

BACKENDS = [
    "aot_eager",
    pytest.param(
        "inductor",
        marks=[pytest.mark.slow, pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a compiler")],
    ),
]
TAPS = {"early": "layer1", "mid": "layer2", "pre": "layer2.-1.relu:in", "calls": "relu:all", "copy": "layer1:clone"}


@pytest.fixture(autouse=True)
def fresh_compiler(tmp_path_factory, monkeypatch):
    # Of its own: what inductor keeps in a folder for all was packed for the instructions of whoever came first.
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "inductor"))
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.slow
def test_taps_and_stop_are_one_graph_that_ends_where_the_forward_ends():
    net, images = torchvision.models.resnet18(num_classes=4).eval(), torch.randn(2, 3, 32, 32)
    with TappedModel(net, TAPS) as tapped, torch.no_grad():
        tapped.eval()
        tapped(images)
        expected = tapped(images)
        graphs = []

        def backend(graph, inputs):
            graphs.append([node.name for node in graph.graph.nodes])
            return graph.forward

        tapped.compile(backend=backend, fullgraph=True)
        compiled = tapped(images)
    assert compiled.keys() == expected.keys()
    assert len(compiled["calls"]) == len(expected["calls"]) == 1
    assert all(torch.equal(compiled[name], expected[name]) for name in expected if name != "calls")
    assert len(graphs) == 1 and not any("layer3" in name or "fc" in name for name in graphs[0])


@pytest.mark.slow
def test_a_network_in_evaluation_leaves_no_activation_behind():
    net, images = torchvision.models.resnet18(num_classes=4).eval(), torch.randn(2, 3, 32, 32)
    with TappedModel(net, {"mid": "layer2"}) as tapped, torch.no_grad():
        tapped.eval()
        tapped(images)
        tapped.compile(backend="eager")
        tapped(images)
        whole = torch.compile(net, backend="eager")(images)
        assert whole.shape == (2, 4) and tapped._now.captured == [] and not tapped._now.running


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("method", mostly_slow(["kd", "fitnet"], "fitnet"))
def test_a_compiled_stage_gives_the_losses_of_one_that_is_not(tmp_path, method, backend):
    def losses(folder, *overrides):
        with stage(folder, f"method={method}", *overrides) as built:
            return train(built, epochs=2)

    plain = losses(tmp_path / "plain")
    compiled = losses(tmp_path / "compiled", "runtime.compile=true", f"runtime.compile_backend={backend}")
    assert compiled == pytest.approx(plain, rel=1e-3)


@pytest.mark.slow
def test_every_stage_compiles_its_own_networks(tmp_path, monkeypatch):
    counts = []
    original = TappedModel.compile

    def compile(self, **options):
        counter = CompileCounter()
        counts.append((self.owner, sorted(tap.name for tap in self.taps), counter))
        original(self, backend=counter)

    monkeypatch.setattr(TappedModel, "compile", compile)
    summary = run(tmp_path, "method=fitnet", "runtime.compile=true", "runtime.max_epochs=1")
    assert summary["rows"]
    ran = [count for count in counts if count[2].frame_count]  # those of the trial before never run
    assert [(owner.split()[0], taps) for owner, taps, _ in ran] == [
        ("student", ["stage2"]),
        ("teacher", ["stage2"]),
        ("student", ["logits"]),
        ("teacher", ["logits"]),
    ]
    assert all(counter.op_count > 3 for _, _, counter in ran)


def test_nothing_is_compiled_unless_asked_for(tmp_path):
    assert resolved()["runtime"]["compile"] is False
    with stage(tmp_path) as built:
        train(built)
        assert all(network._compiled_call_impl is None for network in built.tapped.values())


@pytest.mark.slow
def test_a_backend_that_does_not_exist_is_found_before_anything_runs(errors_of):
    (error,) = errors_of("runtime.compile=true", "runtime.compile_backend=inductr")
    assert error.startswith("runtime.compile_backend: unknown backend 'inductr'; did you mean 'inductor'?")
    assert errors_of("runtime.compile_backend=inductr") == [], "it is not used"

"""Methods on the feature pyramids of two detectors, through the whole program: any two whose levels have one stride."""

import pytest
import torch
from engine_fixtures import changed, network, snapshot, stage
from method_fixtures import PYRAMIDS

BASE = (
    "dataset=fashion_det",
    "dataset.train.count=8",
    "dataset.test.count=4",
    "dataset.validation_fraction=0",
    "model@teacher=tiny_fasterrcnn",
    "model@student=tiny_fasterrcnn_8",
    "prelude=none",
    "teacher.allow_random=true",
    "stage=fashion_det",
    "stage.epochs=1",
    "stage.batch_size=4",
)
NARROW = "+student.net.fpn=32"


def steps(built, *, count: int, empty: bool = False) -> list[dict[str, float]]:
    """Trains on one batch, the method's terms at a weight of one, and returns every loss of every step."""
    batch = built.prepare(next(iter(built.data.train)))
    if empty:
        target = batch["target"][0]
        batch["target"][0] = {key: v[:0] if isinstance(v, torch.Tensor) else v for key, v in target.items()}
    built.step.train()
    optimizer = torch.optim.Adam(built.optimization.parameters, lr=2e-3)
    history = []
    for _ in range(count):
        torch.manual_seed(0)
        total, values = built.step(batch, built.frozen.activations(batch))
        optimizer.zero_grad()
        (total + sum(value for name, value in values.items() if name != "own")).backward()
        optimizer.step()
        history.append({name: float(value.detach()) for name, value in values.items()})
    return history


@pytest.mark.slow
@pytest.mark.parametrize("method", PYRAMIDS)
def test_a_pyramid_learns_from_one_of_other_channels_with_an_image_that_shows_nothing(method, tmp_path):
    with stage(tmp_path, f"method={method}", NARROW, base=BASE) as built:
        teacher = snapshot(network(built, "teacher"))
        history = steps(built, count=8, empty=True)
        assert built.frozen.tapped["teacher"].stops_at == "p2", "a pyramid ends with its finest level"
        reached = [parameter.grad is not None for parameter in built.optimization.parameters]
        assert all(reached) and not changed(network(built, "teacher"), teacher)
        own = [name for name in history[0] if name != "own"]
        assert len(own) == {"fgfi": 1, "fgd": 12}.get(method, 4)
        assert all(torch.tensor(list(each.values())).isfinite().all() for each in history)
        grown = {name: (history[0][name], history[-1][name]) for name in own if history[-1][name] >= history[0][name]}
        assert not grown


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fgfi", "fgd"])
def test_a_one_stage_detector_learns_from_one_of_two_on_the_levels_that_both_have(method, tmp_path):
    levels = "method.params.levels=[p3,p4,p5]"
    with stage(tmp_path, f"method={method}", "model@student=tiny_retinanet", levels, base=BASE) as built:
        assert built.frozen.tapped["teacher"].stops_at in ("p3", None)
        values = steps(built, count=1)[0]
        assert "own" in values and all(torch.tensor(list(values.values())).isfinite())


@pytest.mark.slow
def test_levels_that_are_not_there_or_of_another_stride_are_refused_with_what_to_do(tmp_path):
    def told(*overrides: str) -> str:
        with pytest.raises(ValueError) as caught, stage(tmp_path, "method=cwd_fpn", *overrides, base=BASE):
            pass
        return str(caught.value)

    text = told("model@student=tiny_retinanet")
    assert "student.p2: unknown tap 'p2'" in text
    assert "method.params.levels names it: of ['p2', 'p3', 'p4', 'p5'] there are ['p3', 'p4', 'p5']" in text
    text = told("student.taps.p3=backbone.fpn.layer_blocks.0")
    assert "method.stages.distill.adapters.map_p3" in text
    assert "these have 24 x 24 and 12 x 12 positions" in text and "method.params.levels" in text


@pytest.mark.slow
def test_terms_are_finite_where_networks_run_in_bf16(tmp_path):
    with stage(tmp_path, "method=fgd", "runtime.precision=bf16", NARROW, base=BASE) as built:
        assert all(torch.tensor(list(steps(built, count=1)[0].values())).isfinite())


@pytest.mark.slow
def test_fgd_without_attention_has_no_term_for_it(tmp_path):
    plain = ("method.stages.distill.losses.attention=null", "method.stages.distill.losses.focal.loss.attention=false")
    with stage(tmp_path, "method=fgd", *plain, base=BASE) as built:
        assert set(steps(built, count=1)[0]) == {
            "own",
            *(f"{part}_p{level}" for part in ("focal", "context") for level in range(2, 6)),
        }
